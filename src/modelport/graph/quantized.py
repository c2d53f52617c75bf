"""Weights in fewer bits: the integers, and the scales and zero points that say what they stand for."""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir

EXACT_PRODUCTS = 2**24 // 255**2
"""How many products of bytes a float32 adds up without rounding: it has every integer up to 2 ** 24."""

_DATA = {
    "ConvInteger": (1,),
    "DequantizeLinear": (0,),
    "MatMulInteger": (1,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
}
"""Inputs that are weights in integers, by operator."""

_SETTINGS: dict[str, dict[int, int]] = {
    "ConvInteger": {3: 1},
    "DequantizeLinear": {1: 0, 2: 0},
    "MatMulInteger": {3: 1},
    "QLinearConv": {4: 3, 5: 3},
    "QLinearMatMul": {4: 3, 5: 3},
    "QuantizeLinear": {1: 0, 2: 0},
}
"""Inputs that are scales or zero points, each with the input that it is about, by operator."""

_SELECT = frozenset({"Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that hand on elements of their first input."""


def quantized_weights(model: ir.Model) -> dict[str, Literal["buffer"]]:
    """The role of every weight in integers, and of its scale and zero point: no gradient reaches them."""
    return {
        name: "buffer"
        for name, value in model.graph.initializers.items()
        if holds_integers(value) or says_what_integers_mean(value)
    }


def holds_integers(value: ir.Value) -> bool:
    """Whether an initializer is a weight in integers, as it is or with its elements moved or selected."""
    return value.is_initializer() and value.dtype is not None and not _is_float(value.dtype) and _is_data(value)


def _is_data(value: ir.Value) -> bool:
    return any(
        not node.domain
        and (
            index in _DATA.get(node.op_type, ())
            or (index == 0 and node.op_type in _SELECT and _is_data(node.outputs[0]))
        )
        for node, index in value.uses()
    )


def says_what_integers_mean(value: ir.Value) -> bool:
    """Whether an initializer is nothing but a scale or a zero point, and one of weights in integers."""
    if not value.is_initializer() or not value.uses():
        return False
    if all(_scales_product(node, value) for node, _ in value.uses()):
        return True
    about = [
        node.inputs[_SETTINGS[node.op_type][index]]
        for node, index in value.uses()
        if not node.domain and index in _SETTINGS.get(node.op_type, {})
    ]
    return len(about) == len(value.uses()) and any(each is not None and _comes_from_weight(each) for each in about)


def _scales_product(node: ir.Node, scale: ir.Value) -> bool:
    """Whether a node multiplies a scale by that of a tensor which each call measures."""
    if node.op_type != "Mul" or node.domain:
        return False
    makers = (value.producer() for value in node.inputs if value is not None and value is not scale)
    return any(maker is not None and maker.op_type == "DynamicQuantizeLinear" for maker in makers)


def _comes_from_weight(value: ir.Value) -> bool:
    """Whether a value is an initializer, as it is or with its elements moved or selected."""
    node = value.producer()
    while node is not None and not node.domain and node.op_type in _SELECT and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value.is_initializer()


def _is_float(dtype: ir.DataType) -> bool:
    return dtype.is_floating_point()
