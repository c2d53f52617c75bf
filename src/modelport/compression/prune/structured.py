"""Structured pruning: whole channels, heads and neurons leave the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelport.compression.prune.axes import Block, Lost
from modelport.compression.prune.cut import Cut
from modelport.compression.prune.groups import Group, choose
from modelport.compression.prune.importance import Importance
from modelport.compression.prune.result import LeftAlone, Pruned, PrunedLayer
from modelport.compression.prune.rules import RULES
from modelport.compression.prune.trace import Trace, settle
from modelport.core.errors import StepError
from modelport.core.steps import Prune
from modelport.graph.named import Named
from modelport.graph.normal import drop_dead_nodes, tidied
from modelport.graph.shapes.expr import Expr
from modelport.graph.shapes.infer import infer
from modelport.graph.weights import roles


@dataclass(frozen=True)
class _Classes:
    """The channels of a graph as they go together.

    Attributes:
        root: the class of every slot.
        free: whether a class can go, by its root.
        why: why a class cannot go, by its root.
    """

    root: np.ndarray
    free: np.ndarray
    why: dict[int, str]


@dataclass(frozen=True, eq=False)
class Plan:
    """What will be cut from a graph.

    Attributes:
        trace: the channels of a copy of the graph, which is still whole.
        keep: whether each slot stays.
        layers: what goes, a row per layer.
        left: what is left alone.
    """

    trace: Trace
    keep: np.ndarray
    layers: tuple[PrunedLayer, ...]
    left: tuple[LeftAlone, ...]

    def masks(self, value: ir.Value) -> dict[int, np.ndarray]:
        """Which positions of a value stay, by the axes that something goes from."""
        cut = Cut(self.trace.model, self.keep)
        layout = self.trace.layouts.get(value)
        found = {axis: cut.mask(layout, axis) for axis in range(len(layout.axes))} if layout is not None else {}
        return {axis: mask for axis, mask in found.items() if mask is not None}


def prune_channels(graph: ir.Model, step: Prune, importance: Importance) -> Pruned:
    """The graph without the channels, heads and neurons that matter least, see `modelport.compression.prune.prune`."""
    planned = plan(graph, step, importance)
    _cut(planned.trace, Cut(planned.trace.model, planned.keep))
    return Pruned(planned.trace.model, planned.layers, planned.left)


def plan(graph: ir.Model, step: Prune, importance: Importance) -> Plan:
    """What a step takes from a graph; nothing is cut yet.

    Raises:
        StepError: nothing can go.
        DataError: gradients do not fit.
    """
    model = tidied(graph)
    excluded = Named(step.exclude, model, f"{type(step).__name__}: exclude")
    trace = Trace(model, excluded)
    trace.walk(RULES)
    classes = _classes(trace)
    groups = _groups(trace, classes, importance)
    left = _left(trace, classes)
    if not groups:
        reasons = "; ".join(f"{row.layer}: {row.reason}" for row in left[:8])
        raise StepError(f"Prune: the graph has no channels that can go{': ' if reasons else ''}{reasons}.")
    assert step.ratio is not None
    chosen = choose(groups, step.ratio, step.scope)
    if not chosen.size:
        raise StepError(
            f"Prune: no channel goes at a ratio of {step.ratio}: the layers are too narrow, take a larger one."
        )
    gone = np.zeros(trace.slots.count, bool)
    gone[chosen] = True
    keep = ~gone[classes.root]
    rows = _rows(trace, keep)
    cut = {row.layer for row in rows}
    return Plan(trace, keep, rows, tuple(row for row in left if row.layer not in cut))


def _classes(trace: Trace) -> _Classes:
    root = settle(trace)
    count = trace.slots.count
    made = np.zeros(count, bool)
    for source in trace.sources:
        made[root[source.ids]] = True
    why: dict[int, str] = {}
    for ids, reason in trace.slots.pins():
        for each in np.unique(root[ids]).tolist():
            why.setdefault(each, reason)
    made[list(why)] = False
    return _Classes(root, made, why)


def _groups(trace: Trace, classes: _Classes, importance: Importance) -> list[Group]:
    """The classes that can go, by what they go through: one group has channels of the same layers."""
    scores = _scores(trace, classes, importance)
    marks = np.zeros(trace.slots.count, np.uint64)
    random = np.random.default_rng(0)
    for block in _every_block(trace):
        found = np.unique(classes.root[block.ids])
        marks[found] += random.integers(1, 2**63, dtype=np.uint64)
    roots = np.flatnonzero(classes.free)
    groups: dict[int, list[int]] = {}
    for root, mark in zip(roots.tolist(), marks[roots].tolist(), strict=True):
        groups.setdefault(mark, []).append(root)
    return [Group(np.array(members), scores[members]) for members in groups.values()]


def _every_block(trace: Trace) -> list[Block]:
    blocks = (block for layout in trace.layouts.values() for block in layout.present())
    return list({id(block): block for block in blocks}.values())


def _scores(trace: Trace, classes: _Classes, importance: Importance) -> np.ndarray:
    """The importance of every class: the sum over all slices of weights that go with it."""
    total = np.zeros(trace.slots.count, np.float64)
    told = {name for name, role in roles(trace.model).items() if role != "buffer"}
    weights = [value for value in trace.layouts if value.is_initializer() and value.name in told]
    importance.check({str(value.name): value.const_value.shape.numpy() for value in weights})
    for value in weights:
        layout = trace.layouts[value]
        slots = {axis: layout.blocks[digits[0]].ids for axis, digits in enumerate(layout.axes) if digits}
        touched = {axis: ids for axis, ids in slots.items() if classes.free[classes.root[ids]].any()}
        if not touched or value.const_value is None:
            continue
        each = importance.of(str(value.name), value.const_value.numpy())
        if each is None:
            continue
        for axis, ids in touched.items():
            others = tuple(place for place in range(each.ndim) if place != axis)
            np.add.at(total, classes.root[ids], each.sum(axis=others, dtype=np.float64))
    return total


def _rows(trace: Trace, keep: np.ndarray) -> tuple[PrunedLayer, ...]:
    rows: dict[str, PrunedLayer] = {}
    for source in trace.sources:
        before, after = len(source.ids), int(keep[source.ids].sum())
        if after < before:
            rows.setdefault(source.layer, PrunedLayer(source.layer, before, after, "channels"))
    return tuple(rows.values())


def _left(trace: Trace, classes: _Classes) -> tuple[LeftAlone, ...]:
    """The layers none of whose channels can go, and why."""
    rows: dict[str, LeftAlone] = {}
    for source in trace.sources:
        found = classes.root[source.ids]
        if not classes.free[found].any():
            rows.setdefault(source.layer, LeftAlone(source.layer, classes.why.get(int(found[0]), "")))
        elif len(np.unique(found)) == 1:
            rows.setdefault(source.layer, LeftAlone(source.layer, "its channels go only all at once"))
    return tuple(rows.values())


def _cut(trace: Trace, cut: Cut) -> None:
    """Take out of the graph what goes."""
    for correct in trace.fixes:
        try:
            correct(cut)
        except Lost as lost:
            raise StepError(f"Prune: what was cut cannot be corrected everywhere: {lost}.") from lost
    for value, layout in trace.layouts.items():
        if not cut.touches(layout):
            continue
        if value.is_initializer():
            tensor = value.const_value
            assert tensor is not None
            array = np.ascontiguousarray(cut.take(tensor.numpy(), layout))
            value.const_value = ir.tensor(array, dtype=tensor.dtype, name=value.name)
            value.shape = ir.Shape(array.shape)
        else:
            sizes = [cut.size(layout, axis) for axis in range(len(layout.axes))]
            value.shape = ir.Shape(str(size) if isinstance(size, Expr) else int(size) for size in sizes)
    drop_dead_nodes(trace.model)
    _check(trace)


def _check(trace: Trace) -> None:
    """Whether the shapes that follow from the weights are those that were aimed at.

    Raises:
        StepError: one is not; nothing is returned then.
    """
    aimed = {value: tuple(value.shape) for value in trace.layouts if value.shape is not None and value.uses()}
    info = infer(trace.model)
    for value, shape in aimed.items():
        dims = info.dims(value)
        if dims is None or value.producer() is None or value.graph is None:
            continue
        wrong = [a for a, b in zip(shape, dims, strict=True) if isinstance(a, int) and isinstance(b, int) and a != b]
        if len(shape) != len(dims) or wrong:
            raise StepError(f"Prune: {value.name!r} should have the shape {shape} and has {dims}: exclude its layer.")
    info.write()
