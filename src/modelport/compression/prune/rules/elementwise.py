"""Operators that keep every element where it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import onnx_ir as ir

from modelport.compression.prune.axes import Layout, merged
from modelport.compression.prune.trace import Rule, Trace

UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor Gelu
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign
    Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
""".split()  # noqa: SIM905

BROADCASTING = """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod
    Mul Or PRelu Pow Sub Sum Where Xor
""".split()  # noqa: SIM905


def unary(trace: Trace, node: ir.Node) -> list[Layout]:
    return [trace.layout(node.inputs[0])] * len(node.outputs)


def broadcast(trace: Trace, node: ir.Node, layouts: Sequence[Layout]) -> Layout:
    """The layout of what operands give that broadcast against each other."""
    total, *rest = layouts
    for layout in rest:
        rank = max(len(total.axes), len(layout.axes))
        here = [axis if axis >= 0 else None for axis in range(len(total.axes) - rank, len(total.axes))]
        there = [axis if axis >= 0 else None for axis in range(len(layout.axes) - rank, len(layout.axes))]
        pairs = list(zip(here, there, strict=True))
        meeting = [(i, j) for i, j in pairs if i is not None and j is not None]
        total, layout = trace.join(node, total, layout, meeting)
        total = merged(total, layout, pairs)
    return total


def elementwise(trace: Trace, node: ir.Node) -> list[Layout]:
    return [broadcast(trace, node, [trace.layout(value) for value in node.inputs])]


def quantize(trace: Trace, node: ir.Node, axis: int = 1) -> list[Layout]:
    """QuantizeLinear and DequantizeLinear, with one scale per tensor or per position along an axis."""
    x = trace.layout(node.inputs[0])
    along = node.attributes.get_int("axis", axis)
    for value in node.inputs[1:]:
        if value is not None and (scale := trace.layout(value)).axes and scale.axes[0]:
            trace.meet(node, trace.elements(node, x, along), trace.elements(node, scale, 0))
    return [x]


ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCASTING, elementwise),
    "DequantizeLinear": partial(quantize),
    "QuantizeLinear": partial(quantize),
}
