"""Operators along an axis: those that reduce it, and those that need all of it."""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from modelport.compression.prune.axes import Layout, Lost, fixed
from modelport.compression.prune.rules.norms import within
from modelport.compression.prune.trace import Rule, Trace

SHRINKING = "ReduceL1 ReduceL2 ReduceMean ReduceSum ReduceSumSquare".split()  # noqa: SIM905
"""Over channels they take what is left: exactly, but for the mean, which a normalization wants so."""

OTHERS = "ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd".split()  # noqa: SIM905


def reduce(trace: Trace, node: ir.Node, shrinks: bool) -> list[Layout]:
    x = trace.layout(node.inputs[0])
    rank = len(x.axes)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None and given.const_value is None:
        raise Lost("its axes are computed when the model runs")
    numbers = node.attributes.get_ints("axes", ()) if given is None else given.const_value.numpy().ravel()
    axes = [int(axis) % rank for axis in numbers]
    if not axes:
        if node.attributes.get_int("noop_with_empty_axes", 0):
            return [x]
        axes = list(range(rank))
    if shrinks:
        x = within(trace, x, axes)
    else:
        gone = [digit for axis in axes for digit in x.axes[axis]]
        x = fixed(x, gone, trace.slots, trace.reason(node, "channels are reduced there"))
    if node.attributes.get_int("keepdims", 1):
        return [x.with_axes(() if axis in axes else digits for axis, digits in enumerate(x.axes))]
    return [x.with_axes(digits for axis, digits in enumerate(x.axes) if axis not in axes)]


def whole_axis(trace: Trace, node: ir.Node, axis: int = -1) -> list[Layout]:
    """Softmax and its like: along the axis nothing goes."""
    x = trace.layout(node.inputs[0])
    if trace.opset < 13 and axis:
        # Until opset 13 all axes from the given one on are one.
        along = tuple(digit for digits in x.axes[node.attributes.get_int("axis", 1) :] for digit in digits)
    else:
        along = x.axes[node.attributes.get_int("axis", axis)]
    return [fixed(x, along, trace.slots, trace.reason(node, "it needs the whole axis"))]


def arg(trace: Trace, node: ir.Node) -> list[Layout]:
    """ArgMax and ArgMin."""
    axis = node.attributes.get_int("axis", 0)
    [x] = whole_axis(trace, node, 0)
    axis %= len(x.axes)
    if node.attributes.get_int("keepdims", 1):
        return [x.with_axes(() if place == axis else digits for place, digits in enumerate(x.axes))]
    return [x.with_axes(digits for place, digits in enumerate(x.axes) if place != axis)]


REDUCE: dict[str, Rule] = {
    **dict.fromkeys(SHRINKING, partial(reduce, shrinks=True)),
    **dict.fromkeys(OTHERS, partial(reduce, shrinks=False)),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), whole_axis),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg),
}
