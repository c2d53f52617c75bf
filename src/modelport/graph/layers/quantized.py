"""Quantization that frameworks compute by arithmetic, as the operators that say so.

PyTorch and Keras have no operators for it that every process knows, so there it is what the standard says that
QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and MatMulInteger compute, written out. Here that is read back:
`saturate(round(x / scale) + zero_point)` and `(x - zero_point) * scale`. A result is replaced only where the operator
computes that very number for every input; a scale that is trained stays arithmetic, which a gradient passes.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from modelport.graph.layers.flattened import unflatten_products
from modelport.graph.layers.quantized_parts import (
    fits,
    is_initializer,
    pairs,
    producer,
    saturated,
    sizes,
    widened,
    widened_blocks,
)
from modelport.graph.layers.quantized_products import join_biases, recognize_integer_products, recognize_measured
from modelport.graph.layers.quantized_settings import INTEGERS, Setting, Settings, whole_numbers
from modelport.graph.layers.quantized_weights import restore_weights
from modelport.graph.normal import drop_dead_nodes
from modelport.graph.padding import absorb_pads
from modelport.graph.shapes.infer import infer
from modelport.graph.splice import only_use, replace_outputs

__all__ = ["recognize_quantization", "restore_layers"]

_KEEP_VALUES = frozenset({
    "Concat", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip
"""Operators whose results are elements of their first input."""

_HALVES = {ir.DataType.INT8: (ir.DataType.INT4, -8, 7), ir.DataType.UINT8: (ir.DataType.UINT4, 0, 15)}
"""What holds integers of a byte that need half of it, and from where to where those go."""


def recognize_quantization(model: ir.Model) -> int:
    """Write quantization that is computed by arithmetic as its operators, in place; how many there are now.

    - `cast(clip(round(x / scale) + zero_point))`, clipped at the limits of the type, is a QuantizeLinear;
    - `(cast(x) - zero_point) * scale` is a DequantizeLinear where x is a weight in integers, or comes from a
      QuantizeLinear; with an axis for blocks, it has a `block_size`, and integers that fit into four bits get them;
    - the same with a scale and a zero point from the least and the largest element is a DynamicQuantizeLinear;
    - a product of such integers in int32 is a MatMulInteger.

    Args:
        model: a graph whose values have their dtypes and shapes, and whose weights have their roles.
    """
    settings = Settings(model)
    found = sum(_quantize(node, settings) for node in _nodes(model, "Cast"))
    found += sum(recognize_measured(node) for node in _nodes(model, "Cast"))
    found += sum(_dequantize(node, settings) for node in _nodes(model, "Mul"))
    if not found and not any(value.dtype in INTEGERS for value in model.graph.initializers.values()):
        return 0
    unflatten_products(model, infer(model))
    found += sum(recognize_integer_products(node, settings) for node in _nodes(model, "MatMul"))
    drop_dead_nodes(model)
    return found


def restore_layers(model: ir.Model) -> None:
    """Make layers of quantized weights one operator each again, in place, so that runtimes compute them in integers.

    Args:
        model: the graph, after `recognize_quantization` has found something in it, with its Transposes cancelled.
    """
    absorb_pads(model)
    restore_weights(model)
    drop_dead_nodes(model)
    # A padding that several slices read is that of one convolution now.
    absorb_pads(model)
    join_biases(model)
    drop_dead_nodes(model)


def _nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if node.op_type == op_type and not node.domain]


def _quantize(cast: ir.Node, settings: Settings) -> bool:
    found = saturated(cast)
    if found is None:
        return False
    dtype, value = found
    rounded, zero = _shifted(value, INTEGERS[dtype], settings)
    division = None if rounded is None else producer(rounded.inputs[0], "Div")
    scale = None if division is None else settings.read(division.inputs[1])
    x = None if division is None else division.inputs[0]
    if x is None or scale is None or x.dtype != ir.DataType.FLOAT or x.shape is None:
        return False
    axis = _common_axis(scale, zero, tuple(x.shape))
    if axis is None or scale.array.dtype != np.float32 or not (scale.array > 0).all():
        return False
    shape = () if axis < 0 else (int(x.shape[axis]),)
    zeros = Setting(scale.root, np.zeros(shape)) if zero is None else _spread(zero, shape)
    inputs = [x, settings.write(scale, ir.DataType.FLOAT, shape, cast)]
    if zero is None:
        inputs.append(settings.constant(zeros.array.astype(dtype.numpy()), f"{cast.name}.zero_point", dtype))
    else:
        inputs.append(settings.write(zeros, dtype, shape, cast))
    replace_outputs([cast.outputs[0]], "QuantizeLinear", inputs, {} if axis < 0 else {"axis": axis})
    return True


def _shifted(value: ir.Value, limits: tuple[int, int], settings: Settings) -> tuple[ir.Node | None, Setting | None]:
    """The Round behind a value, and the zero point that is added to it."""
    if (plain := producer(value, "Round")) is not None:
        return plain, None
    addition = producer(value, "Add")
    for rounded, other in () if addition is None else pairs(addition):
        zero = settings.read(other)
        if zero is not None and whole_numbers(zero.array, limits) and (found := producer(rounded, "Round")) is not None:
            return found, zero
    return None, None


def _common_axis(scale: Setting, zero: Setting | None, shape: tuple[Any, ...]) -> int | None:
    """The axis of a scale and its zero point; -1 where both are one number, `None` where they do not fit."""
    axis = scale.axis(shape)
    other = -1 if zero is None else zero.axis(shape)
    if axis is None or other is None or (other >= 0 and other != axis):
        return None
    return axis


def _spread(zero: Setting, shape: tuple[int, ...]) -> Setting:
    """A zero point with as many numbers as its scale."""
    if zero.array.size == 1 and shape:
        return Setting(zero.root, np.broadcast_to(zero.array.reshape(()), shape))
    return zero


def _dequantize(product: ir.Node, settings: Settings) -> bool:
    for value, factor in pairs(product):
        scale = settings.read(factor)
        if scale is None or not np.issubdtype(scale.array.dtype, np.floating):
            continue
        difference = producer(value, "Sub")
        zero = None if difference is None else settings.read(difference.inputs[1])
        if difference is not None and zero is None:
            continue
        data = value if difference is None else difference.inputs[0]
        integers = widened(data, ir.DataType.FLOAT)
        if (
            integers is not None
            and _is_quantized(integers, zero)
            and _by_axis(product, integers, scale, zero, settings)
        ):
            return True
        weight = widened_blocks(data, ir.DataType.FLOAT)
        if weight is not None and _is_quantized(weight, zero):
            return _by_blocks(product, value, weight, scale, zero, settings)
    return False


def _is_quantized(integers: ir.Value, zero: Setting | None) -> bool:
    """Whether integers are a weight, or come from a QuantizeLinear, and the zero point is one of their type."""
    dtype = integers.dtype
    if is_initializer(integers) and dtype == ir.DataType.INT32:
        return zero is None
    if dtype not in INTEGERS or (zero is not None and not whole_numbers(zero.array, INTEGERS[dtype])):
        return False
    value: ir.Value | None = integers
    while value is not None and (node := producer(value, *_KEEP_VALUES)) is not None:
        value = node.inputs[0]
    return is_initializer(value) or producer(value, "QuantizeLinear") is not None


def _by_axis(product: ir.Node, integers: ir.Value, scale: Setting, zero: Setting | None, settings: Settings) -> bool:
    result = _in_type_of(scale, product.outputs[0])
    axis = _common_axis(scale, zero, tuple(integers.shape or ()))
    if result is None or integers.dtype is None:
        return False
    if axis is None:
        return _by_ragged_blocks(product, result, integers, scale, zero, settings)
    shape = () if axis < 0 else (int((integers.shape or ())[axis]),)
    inputs = [integers, settings.write(scale, _type_of(scale), shape, product)]
    maker = producer(integers, "QuantizeLinear")
    if zero is not None:
        inputs.append(settings.write(_spread(zero, shape), integers.dtype, shape, product))
    elif maker is not None and _has_no_zero(maker) and inputs[1].shape == maker.inputs[1].shape:
        # Runtimes join a pair that says the same of its zero point.
        inputs.append(maker.inputs[2])
    replace_outputs([result], "DequantizeLinear", inputs, {} if axis < 0 else {"axis": axis})
    return True


def _has_no_zero(maker: ir.Node) -> bool:
    zero = maker.inputs[2] if len(maker.inputs) > 2 else None
    return zero is not None and zero.const_value is not None and not zero.const_value.numpy().any()


def _by_blocks(
    product: ir.Node, value: ir.Value, integers: ir.Value, scale: Setting, zero: Setting | None, settings: Settings
) -> bool:
    """The same where an axis of a weight is split into blocks of one scale each."""
    whole, split = sizes(integers), sizes(value)
    reshape = only_use(product.outputs[0])
    if whole is None or split is None or reshape is None or reshape.op_type != "Reshape" or reshape.domain:
        return False
    axis = next((place for place, size in enumerate(whole) if split[place : place + 1] != (size,)), None)
    if axis is None or not is_initializer(integers) or sizes(reshape.outputs[0]) != whole:
        return False
    blocks, length = split[axis], split[axis + 1]
    narrow = (*whole[:axis], blocks, 1, *whole[axis + 1 :])
    if split != (*whole[:axis], blocks, length, *whole[axis + 1 :]) or scale.array.shape != narrow:
        return False
    if blocks * length != whole[axis] or (zero is not None and zero.array.shape != narrow):
        return False
    result = _in_type_of(scale, reshape.outputs[0])
    if result is None or integers.dtype is None:
        return False
    shape = (*whole[:axis], blocks, *whole[axis + 1 :])
    _halve(integers, zero)
    inputs = [integers, settings.write(scale, _type_of(scale), shape, product)]
    if zero is not None:
        inputs.append(settings.write(zero, integers.dtype, shape, product))
    replace_outputs([result], "DequantizeLinear", inputs, {"axis": axis, "block_size": length})
    return True


def _by_ragged_blocks(
    product: ir.Node, result: ir.Value, integers: ir.Value, scale: Setting, zero: Setting | None, settings: Settings
) -> bool:
    """The same where blocks do not fill an axis, so that every scale is repeated."""
    whole = sizes(integers)
    found = None if whole is None or not is_initializer(integers) else scale.blocks(whole)
    if found is None or whole is None or integers.dtype is None:
        return False
    if zero is not None and (zero.array.shape != whole or zero.blocks(whole) != found):
        return False
    axis, length = found
    _halve(integers, zero)
    shape = (*whole[:axis], -(-whole[axis] // length), *whole[axis + 1 :])
    inputs = [integers, settings.write(scale, _type_of(scale), shape, product)]
    if zero is not None:
        inputs.append(settings.write(zero, integers.dtype, shape, product))
    replace_outputs([result], "DequantizeLinear", inputs, {"axis": axis, "block_size": length})
    return True


def _type_of(scale: Setting) -> ir.DataType:
    return scale.root.dtype or ir.DataType.FLOAT


def _in_type_of(scale: Setting, result: ir.Value) -> ir.Value | None:
    """The result in the type that the scale is stored in, as DequantizeLinear gives it."""
    if _type_of(scale) == result.dtype:
        return result
    cast = only_use(result)
    same = cast is not None and cast.op_type == "Cast" and cast.outputs[0].dtype == _type_of(scale)
    return cast.outputs[0] if cast is not None and same else None


def _halve(integers: ir.Value, zero: Setting | None) -> None:
    """Store weights in four bits that fit into them: a framework without such a type holds them in eight."""
    tensor = integers.const_value
    if tensor is None or integers.dtype not in _HALVES:
        return
    dtype, *limits = _HALVES[integers.dtype]
    held = [integers] if zero is None else [integers, zero.root]
    arrays = [value.const_value.numpy() for value in held if value.const_value is not None]
    same = all(value.dtype == integers.dtype and len(value.uses()) == 1 for value in held)
    if not same or not all(fits(array, (limits[0], limits[1])) for array in arrays):
        return
    kind = ml_dtypes.int4 if dtype == ir.DataType.INT4 else ml_dtypes.uint4
    for value, array in zip(held, arrays, strict=True):
        value.const_value = ir.tensor(array.astype(kind), dtype=dtype, name=value.name)
        value.type = ir.TensorType(dtype)
