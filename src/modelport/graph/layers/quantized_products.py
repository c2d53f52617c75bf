"""Products on integers whose ranges each call measures, and biases that a quantized layer adds."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.quantized_parts import (
    cast_to,
    clipped,
    is_initializer,
    pairs,
    producer,
    saturated,
    sizes,
    widened,
)
from modelport.graph.layers.quantized_settings import INTEGERS, Setting, Settings, whole_numbers
from modelport.graph.quantized import EXACT_PRODUCTS
from modelport.graph.splice import only_use, replace_outputs, scalar, take_place

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)


def recognize_measured(cast: ir.Node) -> bool:
    """Write the quantization of a tensor by its own range, which a Cast ends, as a DynamicQuantizeLinear."""
    found = saturated(cast)
    addition = None if found is None or found[0] != ir.DataType.UINT8 else producer(found[1], "Add")
    for rounded, zero in () if addition is None else pairs(addition):
        rounding = producer(rounded, "Round")
        division = None if rounding is None else producer(rounding.inputs[0], "Div")
        if division is None or division.inputs[0] is None or division.inputs[0].dtype != ir.DataType.FLOAT:
            continue
        x, scale = division.inputs[:2]
        low = _measured_scale(x, scale)
        if x is None or scale is None or low is None or not _is_measured_zero(zero, low, scale):
            continue
        narrow = next((use for use in _casts(zero) if cast_to(use) == ir.DataType.UINT8), None)
        node = replace_outputs([cast.outputs[0], None, None], "DynamicQuantizeLinear", [x], at=_first(division))
        for place, old in ((1, scale), (2, None if narrow is None else narrow.outputs[0])):
            if old is not None:
                node.outputs[place].type, node.outputs[place].shape = old.type, old.shape
                take_place(old, node.outputs[place])
        return True
    return False


def _first(division: ir.Node) -> ir.Node:
    """Where the operator goes: all that uses the scale comes after what makes it."""
    scale = division.inputs[1]
    node = None if scale is None else scale.producer()
    return division if node is None else node


def _casts(value: ir.Value) -> list[ir.Node]:
    """The Casts of whole numbers, also by way of a wider type."""
    found = [use.node for use in value.uses() if use.node.op_type == "Cast" and not use.node.domain]
    wide = [node for node in found if cast_to(node) in (ir.DataType.INT32, ir.DataType.INT64)]
    return found + [again for node in wide for again in _casts(node.outputs[0])]


def _measured_scale(x: ir.Value | None, scale: ir.Value | None) -> ir.Value | None:
    """The least element or 0, where a scale is a 255th of the range of a tensor and 0, and of 1 where that is empty."""
    division = producer(scale, "Div")
    choice = None if division is None or scalar(division.inputs[1]) != 255 else producer(division.inputs[0], "Where")
    if choice is None or scalar(choice.inputs[1]) != 1:
        return None
    is_empty, span = producer(choice.inputs[0], "Equal"), producer(choice.inputs[2], "Sub")
    if is_empty is None or span is None:
        return None
    high, low = span.inputs[:2]
    if high is None or low is None or {high, low} != set(is_empty.inputs):
        return None
    return low if _is_bound(high, "Max", x) and _is_bound(low, "Min", x) else None


def _is_bound(value: ir.Value, kind: str, x: ir.Value | None) -> bool:
    """Whether a value is the largest (`"Max"`) or the least element of a tensor and 0."""
    node = producer(value, kind, "Clip")
    if node is None:
        return False
    if node.op_type == "Clip":
        limits = [scalar(limit) for limit in (*node.inputs[1:3], None, None)[:2]]
        found = node.inputs[0] if limits == ([0.0, None] if kind == "Max" else [None, 0.0]) else None
    else:
        found = next((rest for rest, bound in pairs(node) if scalar(bound) == 0), None)
    reduction = producer(found, f"Reduce{kind}")
    return reduction is not None and reduction.inputs[0] is x and _is_over_all(reduction)


def _is_over_all(reduction: ir.Node) -> bool:
    axes = reduction.inputs[1] if len(reduction.inputs) > 1 else None
    rank = None if reduction.inputs[0] is None or reduction.inputs[0].shape is None else len(reduction.inputs[0].shape)
    if reduction.attributes.get_int("keepdims", 1) and rank != 0:
        return False
    if axes is None:
        return not reduction.attributes.get_int("noop_with_empty_axes", 0)
    if axes.const_value is None or rank is None:
        return False
    return sorted(int(axis) % rank for axis in axes.const_value.numpy().ravel()) == list(range(rank))


def _is_measured_zero(zero: ir.Value, low: ir.Value, scale: ir.Value) -> bool:
    rounded = clipped(zero, INTEGERS[ir.DataType.UINT8])
    rounding = producer(rounded, "Round")
    division = None if rounding is None else producer(rounding.inputs[0], "Div")
    negative = None if division is None or division.inputs[1] is not scale else producer(division.inputs[0], "Neg")
    return negative is not None and negative.inputs[0] is low


def recognize_integer_products(product: ir.Node, settings: Settings) -> bool:
    """Write a product of bytes, each less its zero point, as a MatMulInteger.

    It is computed in int32, or in floats that have all of its sums exactly and are cast to int32.
    """
    kind, result = product.outputs[0].dtype, product.outputs[0]
    if kind in _EXACT and product.inputs[0] is not None:
        cast, length = only_use(result), (product.inputs[0].shape or (None,))[-1]
        if cast is None or cast.op_type != "Cast" or cast.domain or cast_to(cast) != ir.DataType.INT32:
            return False
        if not isinstance(length, int) or length > _EXACT[kind]:
            return False
        result = cast.outputs[0]
    elif kind != ir.DataType.INT32:
        return False
    first, second = (_operand(value, kind, settings) for value in product.inputs)
    if first is None or second is None:
        return False
    (a, a_zero), (b, b_zero) = first, second
    axis = b_zero.axis(tuple(b.shape or ())) if isinstance(b_zero, Setting) else -1
    if b.shape is None or axis not in (-1, len(b.shape) - 1) or (isinstance(a_zero, Setting) and a_zero.array.size > 1):
        return False
    shape = () if axis < 0 else (int(b.shape[axis]),)
    zeros = [_written(a_zero, a, (), product, settings), _written(b_zero, b, shape, product, settings)]
    while zeros and zeros[-1] is None:
        zeros.pop()
    replace_outputs([result], "MatMulInteger", [a, b, *zeros], at=product)
    return True


_EXACT = {ir.DataType.FLOAT: EXACT_PRODUCTS, ir.DataType.DOUBLE: 2**53 // 255**2}
"""The floats that sums of products of bytes are exact in, and how many products at most."""


def _operand(
    value: ir.Value | None, kind: ir.DataType, settings: Settings
) -> tuple[ir.Value, ir.Value | Setting | None] | None:
    """The bytes that a factor is, and their zero point: a constant, a value, or none."""
    difference = producer(value, "Sub")
    data = widened(value if difference is None else difference.inputs[0], kind)
    if data is None or data.dtype not in _BYTES or value is None or data.shape != value.shape:
        return None
    if difference is None:
        return data, None
    constant = settings.read(difference.inputs[1])
    if constant is not None:
        return (data, constant) if whole_numbers(constant.array, INTEGERS[data.dtype]) else None
    zero = widened(difference.inputs[1], kind)
    is_one = zero is not None and sizes(zero) in ((), (1,))
    return (data, zero) if zero is not None and is_one and zero.dtype == data.dtype else None


def _written(
    zero: ir.Value | Setting | None, data: ir.Value, shape: tuple[int, ...], product: ir.Node, settings: Settings
) -> ir.Value | None:
    if not isinstance(zero, Setting):
        return zero
    assert data.dtype is not None
    array = np.broadcast_to(zero.array.reshape(-1) if zero.array.size > 1 else zero.array.reshape(()), shape)
    return settings.write(Setting(zero.root, array), data.dtype, shape, product)


def join_biases(model: ir.Model) -> int:
    """Give a bias in 32 bits to the convolution or the matrix product that it is added to, in place; how many did.

    A framework adds it in a call of its own. With its bias a layer is one operator, which runtimes compute in integers.
    """
    return sum(_join(node) for node in list(model.graph.all_nodes()) if node.op_type == "Add" and not node.domain)


def _join(addition: ir.Node) -> bool:
    for product, addend in pairs(addition):
        layer, bias = producer(product, "Conv", "ConvTranspose", "MatMul"), _bias(addend)
        if layer is None or bias is None or only_use(product) is not addition or product.shape is None:
            continue
        rank, axis = len(product.shape), 1 if layer.op_type != "MatMul" else len(product.shape) - 1
        shape = sizes(addend)
        count = (sizes(bias) or (0,))[0]
        behind = (1,) * (rank - axis - 1)
        if len(layer.inputs) > 2 or shape is None or product.shape[axis] != count:
            return False
        if shape[len(shape) - len(behind) - 1 :] != (count, *behind) or any(
            size != 1 for size in shape[: len(shape) - len(behind) - 1]
        ):
            return False
        return _joined(addition, layer, bias, rank)
    return False


def _bias(value: ir.Value) -> ir.Value | None:
    """The vector that a value is, in whatever shape, where it is a weight of 32 bits."""
    while (node := producer(value, "Reshape", "Unsqueeze")) is not None and node.inputs[0] is not None:
        value = node.inputs[0]
    made = producer(value, "DequantizeLinear")
    data = None if made is None else made.inputs[0]
    held = data is not None and is_initializer(data) and data.dtype == ir.DataType.INT32
    return value if held and value.shape is not None and len(value.shape) == 1 else None


def _joined(addition: ir.Node, layer: ir.Node, bias: ir.Value, rank: int) -> bool:
    result = addition.outputs[0]
    x, weight = layer.inputs[:2]
    if layer.op_type != "MatMul":
        attributes = {name: each.value for name, each in layer.attributes.items()}
        replace_outputs([result], layer.op_type, [x, weight, bias], attributes, name=layer.name, at=addition)
        return True
    if rank != 2 or x is None or weight is None or weight.shape is None or x.shape is None:
        return False
    if len(x.shape) != 2 or len(weight.shape) != 2:
        return False
    turned = producer(weight, "Transpose")
    if turned is not None and list(turned.attributes.get_ints("perm", (1, 0))) == [1, 0]:
        replace_outputs([result], "Gemm", [x, turned.inputs[0], bias], {"transB": 1}, name=layer.name, at=addition)
    else:
        replace_outputs([result], "Gemm", [x, weight, bias], name=layer.name, at=addition)
    return True
