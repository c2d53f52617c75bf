"""Operators that keep every element where it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import onnx_ir as ir

from modelport.compression.prune.axes import Layout, merged
from modelport.compression.prune.trace import Rule, Trace
from modelport.graph.elementwise import BROADCASTING, UNARY


def unary(trace: Trace, node: ir.Node) -> list[Layout]:
    return [trace.layout(node.inputs[0])] * len(node.outputs)


def aligned(left: int, right: int) -> list[tuple[int | None, int | None]]:
    """The axes of two ranks that broadcast against each other, from the last one on; `None` where one has none."""
    rank = max(left, right)
    here, there = ([axis if axis >= 0 else None for axis in range(each - rank, each)] for each in (left, right))
    return list(zip(here, there, strict=True))


def broadcast(trace: Trace, node: ir.Node, layouts: Sequence[Layout]) -> Layout:
    """The layout of what operands give that broadcast against each other."""
    total, *rest = layouts
    for layout in rest:
        pairs = aligned(len(total.axes), len(layout.axes))
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
