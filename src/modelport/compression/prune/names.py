"""Which weights are behind a node."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

MOVES = frozenset({"Concat", "Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that an exporter puts between a weight and the layer that has it."""


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
