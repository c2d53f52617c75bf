"""A graph as it runs: what only training needs is gone, and weights lie as they are multiplied."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.compression.quantize.fold_norms import fold_norms
from modelport.graph.names import unique_name
from modelport.graph.splice import merge_into
from modelport.graph.weights import roles, set_roles


def inference_form(graph: ir.Model) -> ir.Model:
    """A copy of a graph in normal form with only what inference needs, BatchNormalization in the weights before it."""
    model = graph.clone()
    drop_dropout(model)
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
