"""Weights by blocks: which there are in a graph, and how they are written as DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelport.compression.quantize.regions import holds_weight
from modelport.compression.quantize.rounding import Bits, Blocks
from modelport.graph.named import Named
from modelport.graph.names import unique_name
from modelport.graph.splice import discard, only_use

_KERNEL_OF_ONE = frozenset({1})


@dataclass(frozen=True)
class Matrix:
    """A weight that products contract, and tables that are looked up, along one of its axes.

    Attributes:
        value: the initializer.
        axis: the one that is contracted.
        products: what the weight multiplies, by the name of the node that does, and the axis that is contracted there.
        nodes: the names of all nodes that the weight serves.
    """

    value: ir.Value
    axis: int
    products: dict[str, tuple[ir.Value, int]]
    nodes: tuple[str, ...]

    @property
    def columns(self) -> np.ndarray:
        """The weight as float32 (columns, rows), with the contracted axis last."""
        assert self.value.const_value is not None
        array = self.value.const_value.numpy()
        return np.ascontiguousarray(np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis]))


@dataclass(frozen=True)
class _Use:
    node: ir.Node
    axis: int
    product: tuple[ir.Value, int] | None = None


def find_matrices(model: ir.Model, excluded: Named, size: int) -> tuple[list[Matrix], dict[str, str]]:
    """The weights of a graph in normal form that can be stored by blocks, and why other nodes keep theirs.

    Args:
        model: the graph.
        excluded: the layers that stay in float.
        size: rows of a block.
    """
    found: list[Matrix] = []
    alone: dict[str, str] = {}
    for value in list(model.graph.initializers.values()):
        if not holds_weight(value) or not value.uses():
            continue
        uses, reason = _uses(model, value)
        if not uses:
            alone.update(reason)
            continue
        reason = reason or _refusals(value, uses, excluded, size)
        alone.update(reason)
        if not reason:
            products = {str(use.node.name): use.product for use in uses if use.product is not None}
            found.append(Matrix(value, uses[0].axis, products, tuple(str(use.node.name) for use in uses)))
    return found, alone


def _refusals(value: ir.Value, uses: list[_Use], excluded: Named, size: int) -> dict[str, str]:
    assert value.const_value is not None
    rows = value.const_value.shape[uses[0].axis]
    names = [str(use.node.name) for use in uses]
    if excluded.weight(value) or any(excluded.node(use.node) for use in uses):
        return dict.fromkeys(names, "it is excluded")
    if len({use.axis for use in uses}) > 1:
        return dict.fromkeys(names, f"other layers multiply its weight {value.name!r} along another axis")
    if rows < size:
        return dict.fromkeys(names, f"its weight {value.name!r} has {rows} rows only, fewer than a block of {size}")
    return {}


def _uses(model: ir.Model, value: ir.Value) -> tuple[list[_Use], dict[str, str]]:
    """How each node takes a weight; why one takes it otherwise, where it does."""
    found: list[_Use] = []
    refused: dict[str, str] = {}
    for node, place in value.uses():
        if node.graph is not model.graph:
            refused[str(node.name)] = f"{node.op_type} is inside a branch or a loop, which stay in float"
            continue
        uses = list(_read(node, place, value))
        found += uses
        if not uses and (node.domain or node.op_type in _WEIGHED):
            refused[str(node.name)] = f"{node.op_type} does not take this weight by blocks"
        elif not uses:
            refused[str(node.name)] = f"{node.op_type} is no product, so its weight stays in float"
    return found, refused


_WEIGHED = frozenset({"Conv", "ConvTranspose", "Gemm", "GRU", "Gather", "LSTM", "MatMul", "RNN"})


def _read(node: ir.Node, place: int, value: ir.Value) -> Iterator[_Use]:
    if node.domain or value.shape is None:
        return
    rank, first = len(value.shape), node.inputs[0]
    assert first is not None
    match node.op_type, place:
        case "MatMul", 1 if rank == 2:
            yield _Use(node, 0, (first, -1))
        case "Gemm", 1 if not node.attributes.get_int("transA", 0):
            yield _Use(node, node.attributes.get_int("transB", 0), (first, -1))
        case "Gather", 0 if rank == 2 and node.attributes.get_int("axis", 0) in (0, -2):
            yield _Use(node, 1)
        case "Conv", 1 if set(value.shape[2:]) == _KERNEL_OF_ONE and node.attributes.get_int("group", 1) == 1:
            yield _Use(node, 1, (first, 1))
        case "Transpose", 0 if rank == 2 and tuple(node.attributes.get_ints("perm", (1, 0))) == (1, 0):
            readers = list(node.outputs[0].uses())
            if readers and all(user.op_type == "MatMul" and index == 1 for user, index in readers):
                for user, _ in readers:
                    assert user.inputs[0] is not None
                    yield _Use(user, 1, (user.inputs[0], -1))


def write(model: ir.Model, matrix: Matrix, blocks: Blocks, bits: Bits) -> None:
    """Put a DequantizeLinear of blocks in the place of a weight, in place.

    Its integers, its scales and its zero points have the weight's name and `_quantized`, `_scale` and `_zero_point`.
    """
    value = matrix.value
    assert value.const_value is not None
    axis, shape = _turned(value, matrix.axis)
    kind = ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8
    name = str(value.name)
    integers, scale, zero = (
        _initializer(model, f"{name}_{label}", _laid(array, shape, axis), dtype)
        for label, array, dtype in (
            ("quantized", blocks.steps, kind),
            ("scale", blocks.scale, ir.DataType.from_numpy(blocks.scale.dtype)),
            ("zero_point", blocks.zero, kind),
        )
    )
    made = []
    if scale.dtype != value.const_value.dtype:
        cast = ir.node("Cast", [scale], {"to": int(value.const_value.dtype)}, name=f"{name}_scale/Cast")
        made.append(cast)
        scale = cast.outputs[0]
        scale.name = f"{name}_scale/cast"
    attributes = {"axis": axis, "block_size": blocks.size}
    node = ir.node("DequantizeLinear", [integers, scale, zero], attributes, name=f"{name}_DequantizeLinear")
    node.outputs[0].name = f"{name}_dequantized"
    node.outputs[0].type, node.outputs[0].shape = value.type, ir.Shape(shape)
    value.replace_all_uses_with(node.outputs[0])
    model.graph.insert_before(model.graph[0], [*made, node])
    model.graph.initializers.pop(name)


def _turned(value: ir.Value, axis: int) -> tuple[int, tuple[int, ...]]:
    """The contracted axis and the shape that a weight is stored with.

    Where one product is all that reads a matrix, the contracted axis comes first: ONNX Runtime multiplies by blocks of
    such weights, and before others it writes all numbers out at every call.
    """
    assert value.const_value is not None
    shape = tuple(int(size) for size in value.const_value.shape)
    reader = only_use(value)
    if axis == 0 or len(shape) > 2 or reader is None:
        return axis, shape
    if reader.op_type == "Gemm":
        reader.attributes["transB"] = ir.AttrInt64("transB", 0)
    elif reader.op_type == "Transpose":
        reader.outputs[0].replace_all_uses_with(value)
        discard(reader)
    else:
        return axis, shape
    return 0, shape[::-1]


def _laid(array: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """An array (columns, anything) with its last axis where the weight has the contracted one."""
    others = [size for place, size in enumerate(shape) if place != axis]
    return np.ascontiguousarray(np.moveaxis(array.reshape(*others, array.shape[-1]), -1, axis))


def _initializer(model: ir.Model, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
    name = unique_name(name, model.graph.initializers)
    tensor = ir.tensor(array, dtype=dtype, name=name) if dtype.bitwidth >= 8 else _packed(array, dtype, name)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _packed(array: np.ndarray, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    """A tensor of 4-bit integers, two in a byte, the first one in the lower half."""
    flat = np.pad(array.ravel(), (0, array.size % 2))
    return ir.PackedTensor(flat[::2] | flat[1::2] << 4, dtype, shape=ir.Shape(array.shape), name=name)
