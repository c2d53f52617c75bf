"""Normalizations that exporters write out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import onnx_ir as ir

from modelport.graph.splice import is_op, only_use, other, replace_outputs, scalar


def recognize_layer_norm(model: ir.Model, weights: Collection[str]) -> int:
    """Write every layer normalization that is spelled out, with its scale and shift, as one node, in place.

    Args:
        model: a normalised graph.
        weights: the names of the initializers that are weights.

    Returns:
        How many there were.
    """
    return _rewritten(model, weights, _layer_norm)


def _rewritten(model: ir.Model, weights: Collection[str], rewrite: Callable[[ir.Node, Collection[str]], bool]) -> int:
    """How many of the nodes that may end a normalization were written as one."""
    found = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type in ("Div", "Mul") and not node.domain and node.graph is not None:
            found += rewrite(node, weights)
    return found


def _layer_norm(norm: ir.Node, weights: Collection[str]) -> bool:
    parts = _normalized(norm)
    scaled = only_use(norm.outputs[0])
    if parts is None or scaled is None or scaled.op_type != "Mul":
        return False
    x, axis, epsilon = parts
    assert x.shape is not None
    tail = tuple(x.shape[axis:])
    scale = other(scaled, norm.outputs[0])
    if not _fits(scale, tail, weights):
        return False
    shifted = only_use(scaled.outputs[0])
    shift = None
    if shifted is not None and shifted.op_type == "Add":
        shift = other(shifted, scaled.outputs[0])
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


def recognize_rms_norm(model: ir.Model, weights: Collection[str]) -> int:
    """Write every `weight * x / sqrt(mean(x ** 2) + epsilon)` over the last axes as one node, in place.

    Args:
        model: a normalised graph.
        weights: the names of the initializers that are weights.

    Returns:
        How many there were.
    """
    return _rewritten(model, weights, _rms_norm)


def _rms_norm(norm: ir.Node, weights: Collection[str]) -> bool:
    for x, deviation in _quotients(norm):
        root = deviation.producer()
        plus = None if root is None or root.inputs[0] is None else root.inputs[0].producer()
        scaled = only_use(norm.outputs[0])
        if root is None or root.op_type != "Sqrt" or plus is None or plus.op_type != "Add" or x.shape is None:
            continue
        for index in (0, 1):
            epsilon, mean = scalar(plus.inputs[1 - index]), plus.inputs[index]
            square = _squared(mean)
            axis = None if square is None else _mean_axis(mean, square)
            if epsilon is None or axis is None or not _is_square(square, x):
                continue
            if scaled is None or scaled.op_type != "Mul" or scaled.domain:
                return False
            scale = other(scaled, norm.outputs[0])
            if scale is None or not _fits(scale, tuple(x.shape[axis:]), weights):
                return False
            settings = {"axis": axis, "epsilon": epsilon}
            replace_outputs([scaled.outputs[0]], "RMSNormalization", [x, scale], settings)
            return True
    return False


def _is_square(value: ir.Value | None, x: ir.Value) -> bool:
    node = None if value is None else value.producer()
    if node is None or node.domain or node.inputs[0] is not x:
        return False
    return (node.op_type == "Mul" and node.inputs[1] is x) or (node.op_type == "Pow" and scalar(node.inputs[1]) == 2)
