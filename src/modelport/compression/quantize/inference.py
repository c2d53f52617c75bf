"""A graph as it runs: what only training needs is gone, and weights lie as they are multiplied."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.compression.quantize.fold_norms import fold_norms
from modelport.graph.names import unique_name
from modelport.graph.splice import discard, merge_into
from modelport.graph.weights import roles, set_roles


def inference_form(graph: ir.Model) -> ir.Model:
    """A copy of a graph in normal form with only what inference needs, BatchNormalization in the weights before it."""
    model = graph.clone()
    drop_dropout(model)
    drop_detours(model)
    turn_weights(model)
    fold_norms(model)
    drop_unread(model)
    return model


def drop_dropout(model: ir.Model) -> None:
    """Take every Dropout away, in place; in inference it hands on what it reads."""
    for node in list(model.graph.all_nodes()):
        if node.domain or node.op_type != "Dropout" or any(value.uses() for value in node.outputs[1:]):
            continue
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        if result.is_graph_output() and (source.is_graph_output() or source.producer() is None):
            continue
        merge_into(result, source)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


_DETOURS = frozenset({"Reshape", "Squeeze", "Unsqueeze"})


def drop_detours(model: ir.Model) -> None:
    """Let nodes read a weight itself where they read it reshaped and reshaped back, in place."""
    for node in list(model.graph):
        if node.op_type != "Reshape" or node.domain or node.outputs[0].is_graph_output():
            continue
        source = node.inputs[0]
        while source is not None and (maker := source.producer()) is not None:
            source = maker.inputs[0] if maker.op_type in _DETOURS and not maker.domain else None
        result = node.outputs[0]
        if source is None or source.const_value is None or result.shape is None or result.shape != source.shape:
            continue
        last = node
        result.replace_all_uses_with(source)
        while last.op_type in _DETOURS and not any(value.uses() for value in last.outputs):
            before = last.inputs[0]
            discard(last)
            if before is None or (maker := before.producer()) is None:
                break
            last = maker


def turn_weights(model: ir.Model) -> None:
    """Store every weight that a Transpose turns as it comes out of it, in place.

    A weight that is read as it was too is stored twice.
    """
    kept = roles(model)
    for node in list(model.graph.all_nodes()):
        source = node.inputs[0] if node.op_type == "Transpose" and not node.domain else None
        if source is None or source.const_value is None or source.name not in model.graph.initializers:
            continue
        array = np.transpose(source.const_value.numpy(), node.attributes.get_ints("perm", None))
        result = node.outputs[0]
        if result.is_graph_output():
            continue
        label = str(source.name)
        is_free = len(source.uses()) == 1 and not source.is_graph_output()
        name = label if is_free else unique_name(f"{label}.transposed", model.graph.initializers)
        tensor = ir.tensor(np.ascontiguousarray(array), dtype=source.const_value.dtype, name=name)
        turned = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        result.replace_all_uses_with(turned)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        if is_free:
            model.graph.initializers.pop(label)
        model.graph.register_initializer(turned)
        if label in kept:
            kept[name] = kept[label]
    set_roles(model, kept)


def drop_unread(model: ir.Model) -> None:
    """Take away the initializers that nothing reads, in place."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            model.graph.initializers.pop(name)
    set_roles(model, roles(model))
