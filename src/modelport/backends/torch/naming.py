"""Naming what torch.onnx wrote: outputs of their own, and nodes after the modules that made them."""

from __future__ import annotations

import onnx_ir as ir

from modelport.graph.scopes import CALL, name_calls, name_values, torch_call


def separate_outputs(graph: ir.Graph) -> None:
    """Give every output of the graph a value of its own: what is an input, a weight or an output already is copied."""
    seen: set[int] = set()
    for i, value in enumerate(graph.outputs):
        if id(value) in seen or value.is_graph_input() or value.is_initializer():
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[i] = value = node.outputs[0]
        seen.add(id(value))


def name_nodes(model: ir.Model) -> None:
    """Name every node and value after the module that made it, and forget where its source code lies."""
    graph = model.graph
    for node in graph.all_nodes():
        call = torch_call(node)
        _forget(node)
        if call is not None:
            node.meta[CALL] = call
        for value in node.outputs:
            _forget(value)
    for value in (*graph.inputs, *graph.initializers.values()):
        _forget(value)
    _forget(graph)
    name_calls(graph)
    name_values(graph)


def _forget(thing: ir.Node | ir.Value | ir.Graph | ir.Model) -> None:
    thing.metadata_props.clear()
    thing.meta.clear()
    thing.doc_string = None
