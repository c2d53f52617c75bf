"""Normalizations: their scales and shifts are cut with the channels, statistics over channels shrink with them."""

from __future__ import annotations

import onnx_ir as ir

from modelport.compression.prune.axes import Layout, collapsed
from modelport.compression.prune.rules.linear import set_int
from modelport.compression.prune.trace import Rule, Trace


def per_channel(trace: Trace, node: ir.Node) -> list[Layout]:
    """BatchNormalization and InstanceNormalization: a number per channel in every further input."""
    x = trace.layout(node.inputs[0])
    ids = trace.elements(node, x, 1)
    for value in node.inputs[1:]:
        trace.meet(node, ids, trace.elements(node, trace.layout(value), 0))
    return [x]


def group_norm(trace: Trace, node: ir.Node) -> list[Layout]:
    """Whole groups go, and channels where there is one group.

    Until opset 21 there is a scale per group, from then on one per channel.
    """
    x = trace.layout(node.inputs[0])
    ids = trace.elements(node, x, 1)
    groups = None
    if ids is not None and node.attributes.get_int("num_groups", 1) > 1:
        groups = trace.slots.unite_along(ids.reshape(node.attributes.get_int("num_groups", 1), -1), [1])
        trace.fix(lambda cut: set_int(node, "num_groups", cut.kept(groups)))
    for value in node.inputs[1:]:
        trace.meet(node, groups if trace.opset < 21 else ids, trace.elements(node, trace.layout(value), 0))
    return [x]


def within(trace: Trace, layout: Layout, axes: list[int]) -> Layout:
    """A layout for statistics over some axes: of a block that lies across others too, nothing goes along these."""
    inside = {digit for axis in axes for digit in layout.axes[axis]}
    across = [digit for digit in inside if digit in layout.blocks and set(layout.blocks[digit].digits) - inside]
    return collapsed(layout, across, trace.slots)


def layer_norm(trace: Trace, node: ir.Node) -> list[Layout]:
    """LayerNormalization and RMSNormalization over the last axes."""
    x = trace.layout(node.inputs[0])
    rank = len(x.axes)
    first = node.attributes.get_int("axis", -1) % rank
    x = within(trace, x, list(range(first, rank)))
    for value in node.inputs[1:]:
        if value is not None:
            weight = trace.layout(value)
            missing = rank - len(weight.axes)
            pairs = [(axis, axis - missing) for axis in range(max(missing, 0), rank)]
            x, _ = trace.join(node, x, weight, pairs)
    return [x]


def lp_norm(trace: Trace, node: ir.Node) -> list[Layout]:
    x = trace.layout(node.inputs[0])
    return [within(trace, x, [node.attributes.get_int("axis", -1) % len(x.axes)])]


NORMS: dict[str, Rule] = {
    "BatchNormalization": per_channel,
    "GroupNormalization": group_norm,
    "InstanceNormalization": per_channel,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_norm,
    "RMSNormalization": layer_norm,
}
