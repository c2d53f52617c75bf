"""Operators that exporters write out: exact GELU and layer normalization."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import onnx_ir as ir

from modelport.graph.splice import is_op, only_use, replace_outputs, scalar

_CLOSE = 1e-3
"""Constants are stored in float16 too."""


def recognize_gelu(model: ir.Model) -> int:
    """Write every `x * 0.5 * (1 + erf(x / sqrt(2)))`, in whatever order, as one Gelu, in place; how many there were."""
    found = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Erf" and not node.domain:
            match = _gelu(node)
            if match is not None:
                x, result = match
                replace_outputs([result], "Gelu", [x], {"approximate": "none"})
                found += 1
    return found


def _gelu(erf: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """The argument and the result of the GELU that an Erf is part of."""
    x = _scaled_by(erf.inputs[0], math.sqrt(0.5))
    plus = only_use(erf.outputs[0])
    if x is None or plus is None or plus.op_type != "Add" or not _near(_other_scalar(plus, erf.outputs[0]), 1.0):
        return None
    value, factor, seen = plus.outputs[0], 1.0, False
    while not (seen and _near(factor, 0.5)):
        node = only_use(value)
        if node is None or node.op_type not in ("Mul", "Div") or node.domain:
            return None
        number = _other_scalar(node, value)
        if number is not None:
            if node.op_type == "Div" and node.inputs[0] is not value:
                return None
            factor *= number if node.op_type == "Mul" else 1 / number
        else:
            times = None if seen or node.op_type == "Div" else _multiple_of(_other(node, value), x)
            if times is None:
                return None
            factor, seen = factor * times, True
        value = node.outputs[0]
    return x, value


def _scaled_by(value: ir.Value | None, factor: float) -> ir.Value | None:
    """What a value is that multiple of."""
    node = None if value is None else value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Div":
        number = scalar(node.inputs[1])
        return node.inputs[0] if number and _near(1 / number, factor) else None
    if node.op_type == "Mul":
        for index in (0, 1):
            if _near(scalar(node.inputs[index]), factor):
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


def recognize_layer_norm(model: ir.Model, weights: Collection[str]) -> int:
    """Write every layer normalization that is spelled out, with its scale and shift, as one node, in place.

    Args:
        model: a normalised graph.
        weights: the names of the initializers that are weights.

    Returns:
        How many there were.
    """
    found = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type in ("Div", "Mul") and not node.domain and node.graph is not None:
            found += _layer_norm(node, weights)
    return found


def _layer_norm(norm: ir.Node, weights: Collection[str]) -> bool:
    parts = _normalized(norm)
    scaled = only_use(norm.outputs[0])
    if parts is None or scaled is None or scaled.op_type != "Mul":
        return False
    x, axis, epsilon = parts
    assert x.shape is not None
    tail = tuple(x.shape[axis:])
    scale = _other(scaled, norm.outputs[0])
    if not _fits(scale, tail, weights):
        return False
    shifted = only_use(scaled.outputs[0])
    shift = None
    if shifted is not None and shifted.op_type == "Add":
        shift = _other(shifted, scaled.outputs[0])
    if _fits(shift, tail, weights) and shifted is not None:
        result, inputs = shifted.outputs[0], [x, scale, shift]
    else:
        result, inputs = scaled.outputs[0], [x, scale]
    replace_outputs([result], "LayerNormalization", inputs, {"axis": axis, "epsilon": epsilon})
    return True


def _normalized(norm: ir.Node) -> tuple[ir.Value, int, float] | None:
    """x, the first normalized axis and epsilon, where a node is `(x - mean) / sqrt(var + epsilon)`."""
    for centered, deviation in _quotients(norm):
        centre = centered.producer()
        root = deviation.producer()
        if centre is None or root is None or centre.op_type != "Sub" or root.op_type != "Sqrt":
            continue
        x, mean = centre.inputs
        plus = None if root.inputs[0] is None else root.inputs[0].producer()
        if x is None or plus is None or plus.op_type != "Add":
            continue
        for index in (0, 1):
            epsilon, variance = scalar(plus.inputs[1 - index]), plus.inputs[index]
            axis = _mean_axis(mean, x)
            square = _squared(variance)
            if epsilon is not None and axis is not None and _is_centered(square, x, mean):
                assert square is not None
                if _mean_axis(variance, square) == axis:
                    return x, axis, epsilon
    return None


def _quotients(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """The pairs (a, b) that a node divides."""
    a, b = node.inputs
    if a is None or b is None:
        return
    if node.op_type == "Div":
        yield a, b
        return
    for value, inverse in ((a, b), (b, a)):
        node_below = inverse.producer()
        if is_op(inverse, "Reciprocal") and node_below is not None and node_below.inputs[0] is not None:
            yield value, node_below.inputs[0]


def _squared(variance: ir.Value | None) -> ir.Value | None:
    """What a variance is the mean of: the squares' value."""
    node = None if variance is None else variance.producer()
    return node.inputs[0] if node is not None and node.op_type == "ReduceMean" else None


def _is_centered(square: ir.Value | None, x: ir.Value, mean: ir.Value | None) -> bool:
    """Whether a value is `(x - mean) ** 2`."""
    node = None if square is None else square.producer()
    if node is None or node.domain or node.op_type not in ("Pow", "Mul"):
        return False
    base, power = node.inputs
    if (node.op_type == "Pow" and scalar(power) != 2) or (node.op_type == "Mul" and base is not power):
        return False
    centre = None if base is None else base.producer()
    return centre is not None and centre.op_type == "Sub" and centre.inputs[0] is x and centre.inputs[1] is mean


def _mean_axis(value: ir.Value | None, x: ir.Value) -> int | None:
    """The first axis of a mean of x over its last axes, where a value is one with the axes kept."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "ReduceMean" or node.inputs[0] is not x or x.shape is None:
        return None
    axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if axes is None or not node.attributes.get_int("keepdims", 1):
        return None
    rank = len(x.shape)
    order = sorted(axis % rank for axis in axes.numpy().tolist())
    return order[0] - rank if order == list(range(rank - len(order), rank)) else None


def _fits(value: ir.Value | None, tail: tuple[object, ...], weights: Collection[str]) -> bool:
    return value is not None and value.name in weights and value.shape is not None and tuple(value.shape) == tail


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _other_scalar(node: ir.Node, value: ir.Value) -> float | None:
    return scalar(_other(node, value))


def _near(number: float | None, wanted: float) -> bool:
    return number is not None and abs(number - wanted) <= _CLOSE * abs(wanted)
