"""Following the channels of a graph, node by node: what goes only together, and what cannot go."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelport.compression.prune import axes
from modelport.compression.prune.axes import Block, Layout, Lost
from modelport.compression.prune.cut import Cut
from modelport.compression.prune.names import weights_behind
from modelport.compression.prune.slots import Ids, Slots
from modelport.graph.named import Named
from modelport.graph.shapes.expr import Size
from modelport.graph.shapes.infer import ShapeInfo, infer
from modelport.graph.subgraphs import subgraphs
from modelport.graph.weights import roles

Rule = Callable[["Trace", ir.Node], list[Layout]]
"""Layouts of a node's outputs from those of its inputs; raises `Lost` where channels cannot be followed."""


@dataclass(frozen=True, eq=False)
class Source:
    """A layer that makes channels.

    Attributes:
        layer: the portable name of its weight.
        ids: the slots of its output channels.
    """

    layer: str
    ids: Ids


class Trace:
    """What is known of the channels of a graph.

    Attributes:
        model: the graph, in normal form.
        info: the shapes of its values.
        slots: the elementary channels.
        blocks: all blocks of more than one digit that were ever made; what goes has to leave each of them whole rows.
        layouts: of the values that were come by.
        sources: the layers that make channels, in the order of the graph.
        fixes: what corrects the nodes once it is known what goes.
    """

    def __init__(self, model: ir.Model, excluded: Named) -> None:
        self.model = model
        self.info: ShapeInfo = infer(model)
        self.slots = Slots()
        self.blocks: list[Block] = []
        self.layouts: dict[ir.Value, Layout] = {}
        self.sources: list[Source] = []
        self.fixes: list[Callable[[Cut], None]] = []
        self.weights: Collection[str] = roles(model)
        self._excluded = excluded

    def walk(self, rules: dict[str, Rule]) -> None:
        """Follow the channels through the whole graph."""
        for value in self.model.graph.inputs:
            dims = self.info.dims(value)
            if dims is not None:
                self.layouts[value] = axes.plain(dims)
        for node in self.model.graph:
            self._step(node, rules)
        for value in self.model.graph.outputs:
            self.pin(value, f"{value.name!r} is an output of the graph, and outputs keep their shapes")

    def _step(self, node: ir.Node, rules: dict[str, Rule]) -> None:
        key = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        rule = rules.get(key)
        held = any(True for _ in subgraphs(node))
        if self._excluded.node(node):
            for weight in weights_behind(node, self.weights):
                self.pin(weight, f"{node.name!r} is excluded")
        if all(self._is_plain(value) for value in node.inputs) and (rule is None or held):
            self._lose(node, "") if held else self._give_plain(node)
            return
        try:
            if rule is None or held:
                raise Lost("no rule says what becomes of channels there")
            layouts = rule(self, node)
        except Lost as lost:
            self._lose(node, str(lost))
            return
        self._give_plain(node)
        self.layouts.update(zip(node.outputs, layouts, strict=False))

    def _is_plain(self, value: ir.Value | None) -> bool:
        if value is None:
            return True
        if value.is_initializer():
            return value not in self.layouts and value.name not in self.weights
        return value not in self.layouts or self.layouts[value].is_plain()

    def _lose(self, node: ir.Node, why: str) -> None:
        """Pin whatever a node takes, its subgraphs too."""
        reason = self.reason(node, why or "it has a graph inside")
        inner = [value for graph in subgraphs(node) for each in graph.all_nodes() for value in each.inputs]
        for value in (*node.inputs, *inner):
            if value is not None and (value in self.layouts or value.name in self.weights):
                self.pin(value, reason)
        self._give_plain(node)

    def _give_plain(self, node: ir.Node) -> None:
        for value in node.outputs:
            dims = self.info.dims(value)
            if dims is not None:
                self.layouts[value] = axes.plain(dims)

    def layout(self, value: ir.Value | None) -> Layout:
        """The layout of a value; every axis of a constant has slots of its own.

        Raises:
            Lost: its rank is not known.
        """
        if value is None:
            raise Lost("an input is missing")
        if value not in self.layouts:
            if not value.is_initializer() or value.const_value is None:
                raise Lost(f"the rank of {value.name!r} is not known")
            sizes = [int(dim) for dim in value.const_value.shape.numpy()]
            self.layouts[value] = axes.labelled([self.slots.fresh(size) for size in sizes])
            if self._excluded.weight(value):
                self.pin(value, f"{value.name!r} is excluded")
        return self.layouts[value]

    def dims(self, value: ir.Value) -> tuple[Size, ...]:
        """The sizes of a value.

        Raises:
            Lost: its rank is not known.
        """
        dims = self.info.dims(value)
        if dims is None:
            raise Lost(f"the rank of {value.name!r} is not known")
        return dims

    @property
    def opset(self) -> int:
        """Of ONNX's own operators."""
        return int(self.model.graph.opset_imports.get("", 1))

    def reason(self, node: ir.Node, why: str) -> str:
        return f"{node.op_type} {node.name!r}: {why}"

    def pin(self, value: ir.Value, reason: str) -> None:
        """Nothing goes from a value."""
        try:
            layout = self.layout(value)
        except Lost:
            return
        for block in layout.present():
            self.slots.pin(block.ids, reason)

    def fix(self, correct: Callable[[Cut], None]) -> None:
        """Say how a node is corrected."""
        self.fixes.append(correct)

    def elements(self, node: ir.Node, layout: Layout, axis: int) -> Ids | None:
        """The slot of every position along an axis, see `axes.elements`."""
        return axes.elements(layout, axis, self.slots, self.reason(node, "two sets of channels share an axis"))

    def meet(self, node: ir.Node, ids: Ids | None, other: Ids | None) -> None:
        """The positions of two axes go together; against a plain axis they cannot go."""
        if ids is not None and other is not None:
            self.slots.unite(ids, other)
            return
        for each in (ids, other):
            if each is not None:
                self.slots.pin(each, self.reason(node, "its other operand has a size that stays"))

    def join(self, node: ir.Node, left: Layout, right: Layout, pairs: list[tuple[int, int]]) -> tuple[Layout, Layout]:
        """Some axes of two layouts meet, see `axes.join`."""
        reason = self.reason(node, "its other operand has a size that stays")
        return axes.join(left, right, pairs, self.slots, self.blocks, reason)

    def makes(self, node: ir.Node, weight: ir.Value | None, layout: Layout, axis: int) -> None:
        """A node makes the channels along an axis with a weight; what is computed of other values makes none."""
        behind = [] if weight is None else weights_behind(node, self.weights, weight, only_moved=False)
        ids = self.elements(node, layout, axis) if behind else None
        if ids is not None:
            self.sources.append(Source(str(behind[0].name), ids))

    def split(self, layout: Layout) -> axes.Split:
        return axes.Split(layout, self.blocks)


def settle(trace: Trace) -> np.ndarray:
    """The class of every slot, such that what goes leaves every block whole rows along each of its digits.

    A block whose classes do not say along which digit it is cut is cut along its largest.
    """
    while True:
        roots = trace.slots.roots()
        before = len(trace.slots.edges)
        for block in trace.blocks:
            found = roots[block.ids]
            if not any(_is_cut_along(found, axis) for axis in range(found.ndim)):
                carrier = int(np.argmax(found.shape))
                trace.slots.unite_along(block.ids, [axis for axis in range(found.ndim) if axis != carrier])
        if len(trace.slots.edges) == before:
            return roots


def _is_cut_along(found: np.ndarray, axis: int) -> bool:
    lines = np.moveaxis(found, axis, 0).reshape(found.shape[axis], -1)
    return bool((lines == lines[:, :1]).all())
