"""Naming what torch.onnx wrote: outputs of their own, and nodes after the modules that made them."""

from __future__ import annotations

import re

import onnx_ir as ir


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
    """Name every node after the module that made it (`encoder.0.linear`) and forget where its source code lies."""
    counts: dict[str, int] = {}
    for node in model.graph:
        scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        # The scopes are dotted paths of modules, outermost first, and at last the operator.
        path = re.sub(r"@\d+", "", scopes[-2]) if len(scopes) > 1 else ""
        operator = re.sub(r"_\d+$", "", scopes[-1]) if scopes else node.op_type.lower()
        name = f"{path}.{operator}" if path and not path.startswith("_") else operator
        counts[name] = counts.get(name, 0) + 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name] - 1}"
        _forget(node)
        for value in node.outputs:
            _forget(value)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _forget(value)
    _forget(model.graph)


def _forget(thing: ir.Node | ir.Value | ir.Graph | ir.Model) -> None:
    thing.metadata_props.clear()
    thing.meta.clear()
    thing.doc_string = None
