"""Channels-last nodes as the ONNX operators that they stand for, so that ONNX Runtime can say what they compute."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.layout.channels_last import DOMAIN, channels_last
from modelport.graph.layout.relayout import inverse


def lowered(model: ir.Model) -> ir.Model:
    """The graph with every channels-last node as Transpose, operator, Transpose."""
    model = model.clone()
    for node in [node for node in model.graph if node.domain == DOMAIN]:
        _lower(model.graph, node)
    model.graph.opset_imports.pop(DOMAIN, None)
    for node in model.graph:
        for value in node.outputs:
            if value not in model.graph.outputs:
                value.shape = None
    return model


def _lower(graph: ir.Graph, node: ir.Node) -> None:
    value, out = node.inputs[0], node.outputs[0]
    assert value is not None
    assert value.shape is not None
    rank = len(value.shape)
    before = ir.node("Transpose", [value], {"perm": inverse(channels_last(rank))})
    graph.insert_before(node, before)
    node.replace_input_with(0, before.outputs[0])
    node.domain = ""
    if node.op_type == "PRelu" and rank > 2:
        _spread_slope(graph, node, rank)
    after = ir.node("Transpose", [out], {"perm": channels_last(rank)})
    graph.insert_after(node, after)
    stored = after.outputs[0]
    stored.shape, stored.type, out.shape = out.shape, out.type, None
    for user, index in tuple(out.uses()):
        if user is not after:
            user.replace_input_with(index, stored)
    for index, output in enumerate(graph.outputs):
        if output is out:
            stored.name, out.name = out.name, f"{out.name}_first"
            graph.outputs[index] = stored


def _spread_slope(graph: ir.Graph, node: ir.Node, rank: int) -> None:
    slope = node.inputs[1]
    assert slope is not None
    shape = ir.Value(
        name=f"{node.outputs[0].name}_slope_shape", const_value=ir.tensor(np.array([-1] + [1] * (rank - 2)))
    )
    graph.register_initializer(shape)
    spread = ir.node("Reshape", [slope, shape])
    graph.insert_before(node, spread)
    node.replace_input_with(1, spread.outputs[0])
