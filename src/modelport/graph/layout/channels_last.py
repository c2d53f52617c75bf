"""Channels-last layout for backends that compute in it, and the cancelling of transposes.

`to_channels_last(model) -> (model, residual)` takes a normalised, shape-inferred, layer-recognised graph and returns a
copy in which every operator of `CHANNELS_LAST` is a build-only node of the same `op_type` in the domain
`modelport.channels_last` (`DOMAIN`), never saved to disk:

- its data input (input 0) and its output 0 are `(batch, *spatial, channels)`;
- **everything else is as in the ONNX operator**: attributes, weights (Conv OI*, ConvTranspose IO*, (C,) scales),
  `sizes`, `scales`, `roi` and `axes` of Resize, `grid` of GridSample. They speak of `(batch, channels, *spatial)`;
- the slope of a PRelu is the parameter itself, with 1 or C elements (found behind Reshape and Unsqueeze); a PRelu
  whose slope is anything else stays an ordinary, broadcasting PRelu;
- an operator stays plain ONNX (domain "", channels first) where its layout cannot change: the rank of its data is not
  known, or the Indices output of a MaxPool is used.

BatchNormalization of (batch, channels) is a node of `DOMAIN` too, so that a builder has one row for it.

The values between are then laid out so that few transposes remain. Every value of the source has a *stored form*: the
tensor transposed by some permutation. A Transpose of the source costs nothing, it only changes how the stored form is
read. Operators that do not care about the order of axes compute on the stored form with their axes renumbered; a
weight that broadcasts against it gets a small Reshape or Transpose of its own; the rest ask for the order they need. A
Transpose is made where producer and consumer disagree, once per value and order, and only moving axes of size 1 is a
Squeeze and an Unsqueeze instead. Inputs, outputs and weights of the graph keep their names, dtypes and shapes; nodes
keep their names.

`cancel_transposes(model) -> int` is the same in place for a portable graph, without nodes of `DOMAIN`: channels-first
operators stay as they are, and what surrounds them follows.

What counts as left over (`residual`, and the result of `cancel_transposes`): Transposes of activations; those of
weights are free, since a builder transposes a weight once. `residual` leaves out as many as the source had itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.layout.axis_rules import AXIS_RULES, elementwise, weight_behind
from modelport.graph.layout.rank_rules import RANK_RULES
from modelport.graph.layout.relayout import Perm, Relayout, Rule, as_is, constant_array, identity, is_read, rank_of
from modelport.graph.splice import BUILD_DOMAIN
from modelport.graph.weights import roles

DOMAIN = "modelport.channels_last"
"""The domain of build-only nodes whose data is (batch, *spatial, channels)."""

CHANNELS_LAST = frozenset(
    """
    AveragePool BatchNormalization Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool
    GridSample GroupNormalization InstanceNormalization LRN LpPool MaxPool PRelu Resize SpaceToDepth
    """.split()  # noqa: SIM905
)
"""The operators that become nodes of `DOMAIN`."""


def to_channels_last(model: ir.Model) -> tuple[ir.Model, int]:
    """The graph with its layout-sensitive operators as nodes of `DOMAIN`, and how many Transposes that took.

    Args:
        model: normalised, with shapes inferred; it is left as it was.

    Returns:
        The new graph (the same model object where it has no such operator) and the number of Transposes of activations
        beyond those that the source had.
    """
    if not any(_has_layout(node) for node in model.graph.all_nodes()):
        return model, 0
    before = count_transposes(model.graph)
    model = model.clone()
    model.graph.opset_imports[DOMAIN] = 1
    Relayout(model.graph, _CHANNELS_LAST_RULES, set(roles(model))).run()
    return model, max(count_transposes(model.graph) - before, 0)


def _has_layout(node: ir.Node) -> bool:
    """Whether a node computes in another order of axes than frameworks with channels last have."""
    if node.domain == BUILD_DOMAIN:
        return node.op_type == SPATIAL_DROPOUT
    return node.op_type in CHANNELS_LAST and node.domain in ("", "ai.onnx")


def cancel_transposes(model: ir.Model) -> int:
    """Move the Transposes of a portable graph together until they cancel; in place.

    Args:
        model: with shapes inferred; what has no shape keeps its Transposes.

    Returns:
        How many Transposes of activations are left; never more than there were. Where none can go, the graph stays
        as it was.
    """
    before = count_transposes(model.graph)
    trial, weights = model.clone(), set(roles(model))
    Relayout(trial.graph, _CANCEL_RULES, weights).run()
    if count_transposes(trial.graph) >= before:
        return before
    Relayout(model.graph, _CANCEL_RULES, weights).run()
    return count_transposes(model.graph)


def laid_out(model: ir.Model, *, last: bool) -> tuple[dict[str, Perm], dict[str, Perm]]:
    """The order in which a graph wants each of its inputs, and the order in which it computes each of its outputs.

    Args:
        model: normalised, with shapes inferred; it is laid out in place.
        last: as `to_channels_last` does it; as `cancel_transposes` otherwise.

    Returns:
        By name: the axis of the input or output at each place. Inputs on whose order the graph does not agree are left
        out.
    """
    layout = Relayout(model.graph, _CHANNELS_LAST_RULES if last else _CANCEL_RULES, set(roles(model)), is_open=True)
    inputs = tuple(model.graph.inputs)
    layout.run()
    return {str(v.name): perm for v in inputs if (perm := layout.wanted.get(v)) is not None}, layout.computed


def count_transposes(graph: ir.Graph) -> int:
    """How many Transposes of activations a graph has; those of weights and constants are not counted."""
    fixed = {value for value in graph.initializers.values() if not value.is_graph_input()}
    count = 0
    for node in graph:
        if all(value is None or value in fixed for value in node.inputs):
            fixed.update(node.outputs)
        else:
            count += node.op_type == "Transpose" and node.domain in ("", "ai.onnx")
    return count


def channels_last(rank: int) -> Perm:
    """The stored order of a (batch, channels, *spatial) value."""
    return identity(rank) if rank < 2 else (0, *range(2, rank), 1)


def _data_rank(node: ir.Node) -> int | None:
    """The rank of the data of a layout-sensitive operator, from the attributes where shapes do not tell it."""
    rank = rank_of(node.inputs[0])
    if rank is None and node.op_type in ("Conv", "ConvTranspose"):
        rank = rank_of(node.inputs[1])
    if rank is None and "kernel_shape" in node.attributes:
        rank = len(node.attributes["kernel_shape"].as_ints()) + 2
    return rank


def _is_spatial(node: ir.Node, rank: int) -> bool:
    """Whether a Resize leaves the batch and the channels alone, as far as its inputs tell."""
    axes = node.attributes.get("axes")
    if axes is not None:
        return all(axis % rank > 1 for axis in axes.as_ints())
    scales = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return scales is None or scales.size == 0 or bool((scales[:2] == 1).all())


def _is_sensitive(node: ir.Node, rank: int) -> bool:
    """Whether a node's data can be (batch, *spatial, channels)."""
    if rank < 2:
        return False
    if node.op_type == "MaxPool":
        return not any(is_read(value) for value in node.outputs[1:])
    if node.op_type == "Resize":
        return 3 <= rank <= 5 and _is_spatial(node, rank)
    return True


def _wants_channels_last(node: ir.Node, out: Perm | None) -> Iterable[tuple[int, Perm]]:
    rank = _data_rank(node)
    if rank is not None and _is_sensitive(node, rank):
        return [(0, channels_last(rank))]
    rule = _RULES.get(("", node.op_type))
    return as_is(node, out) if rule is None else rule.wants(node, out)


def _to_domain(layout: Relayout, node: ir.Node) -> bool:
    value = node.inputs[0]
    assert value is not None
    rank = _data_rank(node) if layout.rank(value) is None else layout.rank(value)
    if rank is None or not _is_sensitive(node, rank):
        rule = _RULES.get(("", node.op_type))
        return rule is not None and rule.apply(layout, node)
    layout.take(node, 0, channels_last(rank))
    node.domain = DOMAIN
    layout.give(node, 0, channels_last(rank))
    return True


def _prelu(layout: Relayout, node: ir.Node) -> bool:
    """A PRelu with one slope, or one per channel, gets the parameter itself."""
    value, slope = node.inputs[0], node.inputs[1]
    rank, sizes = layout.rank(value), None if slope is None else layout.entry(slope).dims
    if slope is None or sizes is None or rank is None or rank < 2 or not layout.is_constant(slope):
        return elementwise(layout, node)
    channel = len(sizes) - rank + 1
    if any(dim != 1 for axis, dim in enumerate(sizes) if axis != channel):
        return elementwise(layout, node)
    layout.replace(node, 1, weight_behind(slope))
    return _to_domain(layout, node)


_RULES = AXIS_RULES | RANK_RULES
_CANCEL_RULES = {key: rule for key, rule in _RULES.items() if key != ("", "Resize")}
"""A Resize of other axes than the last ones is legal ONNX, but no framework has it: it stays channels first."""

_CHANNELS_LAST_RULES = _RULES | {
    ("", op_type): Rule(_prelu if op_type == "PRelu" else _to_domain, _wants_channels_last, always=True)
    for op_type in CHANNELS_LAST
}
