"""Activations that exporters write out."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from modelport.graph.splice import is_near, is_op, only_use, other, replace_outputs, scalar


def recognize_activations(model: ir.Model) -> int:
    """Write every activation of more than one operator as one, in place; how many there were.

    - `x * 0.5 * (1 + erf(x / sqrt(2)))`, in whatever order, is a Gelu;
    - with `tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))` for the erf, it is the approximate one;
    - `x * sigmoid(x)` is a Swish.
    """
    found = 0
    for node in list(model.graph.all_nodes()):
        match = _MATCHES[node.op_type](node) if node.op_type in _MATCHES and not node.domain else None
        if match is not None and node.graph is not None:
            x, result, op_type, settings = match
            replace_outputs([result], op_type, [x], settings)
            found += 1
    return found


_Match = tuple[ir.Value, ir.Value, str, dict[str, Any]]
"""The argument, the result, and the operator with its attributes."""


def _exact(erf: ir.Node) -> _Match | None:
    x = _scaled_by(erf.inputs[0], math.sqrt(0.5))
    result = None if x is None else _half_plus_one_times(erf, x)
    return None if x is None or result is None else (x, result, "Gelu", {"approximate": "none"})


def _approximate(tanh: ir.Node) -> _Match | None:
    total = _scaled_by(tanh.inputs[0], math.sqrt(2 / math.pi))
    plus = None if total is None else total.producer()
    if plus is None or plus.op_type != "Add" or plus.domain:
        return None
    for x, cube in (plus.inputs, plus.inputs[::-1]):
        if x is not None and cube is not None and _is_cube(_scaled_by(cube, 0.044715), x):
            result = _half_plus_one_times(tanh, x)
            return None if result is None else (x, result, "Gelu", {"approximate": "tanh"})
    return None


def _is_cube(value: ir.Value | None, x: ir.Value) -> bool:
    node = None if value is None else value.producer()
    if node is None or node.domain:
        return False
    if node.op_type == "Pow":
        return node.inputs[0] is x and scalar(node.inputs[1]) == 3
    if node.op_type != "Mul" or x not in node.inputs:
        return False
    square = other(node, x)
    factors = square.producer() if square is not None and is_op(square, "Mul") else None
    return factors is not None and factors.inputs[0] is factors.inputs[1] is x


def _swish(sigmoid: ir.Node) -> _Match | None:
    x, product = sigmoid.inputs[0], only_use(sigmoid.outputs[0])
    if x is None or product is None or product.op_type != "Mul" or product.domain:
        return None
    return (x, product.outputs[0], "Swish", {}) if other(product, sigmoid.outputs[0]) is x else None


_MATCHES = {"Erf": _exact, "Tanh": _approximate, "Sigmoid": _swish}


def _half_plus_one_times(erf: ir.Node, x: ir.Value) -> ir.Value | None:
    """What `x * 0.5 * (1 + y)` is, where y is the result of a node."""
    plus = only_use(erf.outputs[0])
    if plus is None or plus.domain or plus.op_type != "Add" or not is_near(scalar(other(plus, erf.outputs[0])), 1.0):
        return None
    value, factor, seen = plus.outputs[0], 1.0, False
    while not (seen and is_near(factor, 0.5)):
        node = only_use(value)
        if node is None or node.op_type not in ("Mul", "Div") or node.domain:
            return None
        number = scalar(other(node, value))
        if number is not None:
            if node.op_type == "Div" and node.inputs[0] is not value:
                return None
            factor *= number if node.op_type == "Mul" else 1 / number
        else:
            times = None if seen or node.op_type == "Div" else _multiple_of(other(node, value), x)
            if times is None:
                return None
            factor, seen = factor * times, True
        value = node.outputs[0]
    return value


def _scaled_by(value: ir.Value | None, factor: float) -> ir.Value | None:
    """What a value is that multiple of."""
    node = None if value is None else value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Div":
        number = scalar(node.inputs[1])
        return node.inputs[0] if number and is_near(1 / number, factor) else None
    if node.op_type == "Mul":
        for index in (0, 1):
            if is_near(scalar(node.inputs[index]), factor):
                return node.inputs[1 - index]
    return None


def _multiple_of(value: ir.Value | None, x: ir.Value) -> float | None:
    """The number times x that a value is."""
    if value is x:
        return 1.0
    node = None if value is None else value.producer()
    if node is None or node.domain or node.op_type not in ("Mul", "Div"):
        return None
    if node.inputs[0] is x:
        number = scalar(node.inputs[1])
        return None if not number else number if node.op_type == "Mul" else 1 / number
    return scalar(node.inputs[0]) if node.op_type == "Mul" and node.inputs[1] is x else None
