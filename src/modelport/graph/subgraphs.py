"""The graphs inside a node: which they are, and what they take from around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes, in order; not those inside them."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def captured(*graphs: ir.Graph) -> tuple[ir.Value, ...]:
    """The values from outside some subgraphs that they or the graphs inside them use, each once, in order of use.

    A node of such a graph reads them without naming them among its inputs; a builder that makes a layer of a subgraph
    hands them over.
    """
    made: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}
    for graph in graphs:
        _visit(graph, made, used)
    return tuple(value for value in used if value not in made)


def _visit(graph: ir.Graph, made: set[ir.Value], used: dict[ir.Value, None]) -> None:
    made.update(graph.inputs)
    made.update(graph.initializers.values())
    for node in graph:
        used.update(dict.fromkeys(value for value in node.inputs if value is not None))
        made.update(node.outputs)
        for inner in subgraphs(node):
            _visit(inner, made, used)
    used.update(dict.fromkeys(graph.outputs))
