"""Weights in integers, as the floats that they stand for, where a layer has no form that reads integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.splice import discard
from modelport.graph.weights import RECURRENT, parts, roles, set_roles

WIDENED = "its weights are held in float32 here: no layer of this framework multiplies by bytes over steps"


def widen_recurrent(model: ir.Model) -> tuple[str, ...]:
    """Let recurrent layers read floats where a DequantizeLinear makes them of integers, in place.

    A weight has the name that it had before it was quantized, where that is free.

    Returns:
        The names of those layers' nodes.
    """
    known = roles(model)
    widened: dict[str, None] = {}
    for node in model.graph:
        if node.domain or node.op_type not in RECURRENT:
            continue
        for value in (part for source in node.inputs[1:3] for part in parts(source)):
            maker = value.producer()
            array = None if maker is None else dequantized(maker)
            if maker is not None and array is not None:
                name = _widen(model, maker, array)
                known[name] = "parameter"
                widened[str(node.name)] = None
    if widened:
        set_roles(model, {name: role for name, role in known.items() if name in model.graph.initializers})
    return tuple(widened)


def _widen(model: ir.Model, maker: ir.Node, array: np.ndarray) -> str:
    """Put floats in the place of a DequantizeLinear and of what it alone reads; returns their name."""
    result, sources = maker.outputs[0], [value for value in maker.inputs if value is not None]
    name = str(sources[0].name).removesuffix("_quantized")
    if name in model.graph.initializers:
        name = f"{name}_float"
    tensor = ir.tensor(array, name=name)
    weight = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    result.replace_all_uses_with(weight)
    discard(maker)
    for source in sources:
        if not source.uses() and not source.is_graph_output():
            del model.graph.initializers[str(source.name)]
    model.graph.register_initializer(weight)
    return name


def dequantized(node: ir.Node) -> np.ndarray | None:
    """What a node makes of stored integers with a scale along an axis; `None` where it does something else."""
    if node.op_type != "DequantizeLinear" or node.domain or node.attributes.get_int("block_size", 0):
        return None
    tensors = [None if value is None else value.const_value for value in node.inputs]
    if len(tensors) != 2 or tensors[0] is None or tensors[1] is None or len(tensors[1].shape) != 1:
        return None
    integers, scale = tensors[0].numpy(), tensors[1].numpy()
    shape = [1] * integers.ndim
    shape[node.attributes.get_int("axis", 1)] = -1
    return integers.astype(scale.dtype) * scale.reshape(shape)
