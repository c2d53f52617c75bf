"""Which layers a step means, and which weights are behind a node."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from modelport.core.errors import StepError
from modelport.graph.names import dotted
from modelport.graph.weights import aliases

MOVES = frozenset({"Concat", "Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that an exporter puts between a weight and the layer that has it."""


class Excluded:
    """The nodes and weights of a graph that a step shall leave alone.

    Raises:
        StepError: nothing has one of the names.
    """

    def __init__(self, names: Sequence[str], model: ir.Model) -> None:
        self._names = tuple(names)
        tied = aliases(model)
        known = {node.name or "" for node in model.graph.all_nodes()} | set(model.graph.initializers) | set(tied)
        for name in names:
            if not any(_is_below(each, name) or _is_below(dotted(each), dotted(name)) for each in known):
                raise StepError(
                    f"Prune: exclude names {name!r}, but no node, layer or weight of the model is called so; "
                    f"its weights are {sorted(model.graph.initializers)[:8]}, …"
                )
        self._tied = {weight for alias, weight in tied.items() if self._is_below(alias)}

    def node(self, node: ir.Node) -> bool:
        """Whether a node, or a layer around it, is named."""
        return self._is_below(node.name or "")

    def weight(self, value: ir.Value) -> bool:
        """Whether a weight, by any of its names, or a layer around it is named."""
        return self._is_below(value.name or "") or value.name in self._tied

    def _is_below(self, name: str) -> bool:
        return any(_is_below(name, above) or _is_below(dotted(name), dotted(above)) for above in self._names)


def _is_below(name: str, above: str) -> bool:
    return name == above or name.startswith((f"{above}.", f"{above}/"))


def weights_behind(
    node: ir.Node, weights: Collection[str], value: ir.Value | None = None, only_moved: bool = True
) -> list[ir.Value]:
    """The weights that a node takes, of one of its inputs or of all, where nothing that a run gives is mixed in.

    Args:
        node: of a graph without noise.
        weights: the names of the weights.
        value: the input; `None` for all.
        only_moved: whether a weight that is computed with first, as weight standardization does, is none of them.
    """
    waiting = [value] if value is not None else list(node.inputs)
    found: dict[ir.Value, None] = {}
    seen: set[ir.Node] = set()
    while waiting:
        each = waiting.pop(0)
        if each is None:
            continue
        if each.is_initializer():
            if each.name in weights:
                found[each] = None
            continue
        producer = each.producer()
        if producer is None or producer in seen or not _is_constant(producer, only_moved):
            continue
        seen.add(producer)
        waiting += producer.inputs
    return list(found)


def _is_constant(node: ir.Node, only_moved: bool) -> bool:
    """Whether a node takes nothing that a run gives, however far back."""
    waiting, seen = [node], {node}
    while waiting:
        each = waiting.pop()
        if only_moved and (each.domain or each.op_type not in MOVES):
            return False
        for value in each.inputs:
            if value is None or value.is_initializer():
                continue
            producer = value.producer()
            if producer is None:
                return False
            if producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return True
