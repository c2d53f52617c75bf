"""What quantization written out consists of: saturation to a type, integers as floats, sums with a zero point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.quantized_settings import INTEGERS
from modelport.graph.splice import is_op, scalar

_WIDE = frozenset({ir.DataType.INT32, ir.DataType.INT64})


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of one of some operators that makes a value."""
    return value.producer() if value is not None and is_op(value, *op_types) else None


def cast_to(node: ir.Node) -> ir.DataType:
    """What a Cast casts to."""
    return ir.DataType(node.attributes.get_int("to", 0))


def pairs(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The operands of a node of two, either way round."""
    first, second = node.inputs[:2]
    if first is not None and second is not None:
        yield first, second
        yield second, first


def saturated(cast: ir.Node) -> tuple[ir.DataType, ir.Value] | None:
    """The type that a Cast saturates to, and the float before it is cut off at the limits of that type."""
    dtype, value = cast_to(cast), cast.inputs[0]
    if dtype not in INTEGERS or value is None:
        return None
    while (inner := producer(value, "Cast")) is not None and cast_to(inner) in _WIDE:
        value = inner.inputs[0]
    found = None if value is None else clipped(value, INTEGERS[dtype])
    return None if found is None or found.dtype != ir.DataType.FLOAT else (dtype, found)


def clipped(value: ir.Value, limits: tuple[float, float]) -> ir.Value | None:
    """What is cut off at two limits to give a value, by a Clip or by a Max and a Min in either order."""
    if (clip := producer(value, "Clip")) is not None:
        given = tuple(scalar(limit) for limit in clip.inputs[1:3])
        return clip.inputs[0] if given == limits else None
    wanted = {"Max": limits[0], "Min": limits[1]}
    inner: ir.Value | None = value
    while wanted:
        node = producer(inner, *wanted)
        if node is None or len(node.inputs) != 2:
            return None
        limit = wanted.pop(node.op_type)
        inner = next((rest for rest, bound in pairs(node) if scalar(bound) == limit), None)
    return inner


def widened(value: ir.Value | None, to: ir.DataType) -> ir.Value | None:
    """The integers that a value is in a wider type; those of a weight are the weight itself."""
    cast = producer(value, "Cast")
    if cast is None or cast_to(cast) != to:
        return None
    integers = cast.inputs[0]
    root = _before_reshapes(integers)
    return root if is_initializer(root) and root is not None and root.shape == cast.outputs[0].shape else integers


def widened_blocks(value: ir.Value | None, to: ir.DataType) -> ir.Value | None:
    """The weight in integers that a value is in a wider type and another shape."""
    if (reshape := producer(value, "Reshape")) is not None:
        value = reshape.inputs[0]
    cast = producer(value, "Cast")
    root = None if cast is None or cast_to(cast) != to else _before_reshapes(cast.inputs[0])
    return root if is_initializer(root) else None


def _before_reshapes(value: ir.Value | None) -> ir.Value | None:
    while (node := producer(value, "Identity", "Reshape", "Squeeze", "Unsqueeze")) is not None:
        value = node.inputs[0]
    return value


def is_initializer(value: ir.Value | None) -> bool:
    """Whether a value is a constant or a weight."""
    return value is not None and value.producer() is None and value.const_value is not None


def sizes(value: ir.Value) -> tuple[int, ...] | None:
    """The shape of a value, where all of it is known."""
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(size) for size in value.shape.numpy())


def fits(array: np.ndarray, limits: tuple[int, int]) -> bool:
    """Whether integers lie within limits."""
    return bool(array.size and array.min() >= limits[0] and array.max() <= limits[1])
