"""A graph's nodes put in the place of one node."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelport.graph.splice import discard, merge_into, replace_outputs


def splice_graph(before: ir.Node, graph: ir.Graph, inputs: Sequence[ir.Value], label: str) -> list[ir.Value]:
    """Put a copy of a graph's nodes before a node, reading other values instead of the graph's inputs.

    Args:
        before: the node.
        graph: what it copies; values from around it stay what they are. Its constants are in the main graph.
        inputs: one value per input of the graph.
        label: goes before the names of the new nodes and values.

    Returns:
        The values that the copy's outputs are.
    """
    assert before.graph is not None
    copy = graph.clone(allow_outer_scope_values=True)
    given = dict(zip(copy.inputs, inputs, strict=True))
    results = [given.get(value, value) for value in copy.outputs]
    copy.outputs.clear()
    for own, value in given.items():
        own.replace_all_uses_with(value)
    nodes = list(copy)
    for node in nodes:
        node.name = f"{label}/{node.name}" if node.name else label
        for value in node.outputs:
            if value.name:
                value.name = f"{label}/{value.name}"
    copy.remove(nodes)
    before.graph.insert_before(before, nodes)
    return results


def replace_node(node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Remove a node whose outputs other values are now; names that the graph returns stay."""
    for old, new in zip(node.outputs, results, strict=True):
        producer = new.producer()
        if old.is_graph_output() and (producer is None or producer.graph is not node.graph):
            replace_outputs([old], "Identity", [new], at=node)
        else:
            merge_into(old, new)
    discard(node)
