"""Half precision trains in single: a step of the learning rate is often less than a half can hold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.core.signature import Signature
from modelport.core.training import Batch
from modelport.graph.signature import KEY, read_signature, write_signature

_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def in_single(graph: ir.Model) -> ir.Model:
    """A copy of a graph that computes in float32 where the graph does in float16 or bfloat16, inputs included.

    So the weights that learn are float32 (Micikevicius et al. 2018, section 3.1), which are rounded when training is
    over.

    Args:
        graph: in normal form; it stays as it is.
    """
    model = graph.clone()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        values += [*node.outputs, *(value for value in node.inputs if value is not None)]
        _widen(node)
    for value in values:
        if value.const_value is not None and value.const_value.dtype in _HALVES:
            value.const_value = _single(value.const_value)
        if value.dtype in _HALVES and isinstance(value.type, ir.TensorType):
            value.type = ir.TensorType(ir.DataType.FLOAT)
    model.metadata_props.pop(KEY, None)
    write_signature(model, read_signature(model))
    return model


def _widen(node: ir.Node) -> None:
    """Turn the attributes of a node that ask for halves."""
    for name in ("to", "dtype"):
        if name in node.attributes and node.attributes.get_int(name) in _HALVES:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
    tensor = node.attributes.get_tensor("value") if "value" in node.attributes else None
    if tensor is not None and tensor.dtype in _HALVES:
        node.attributes["value"] = ir.AttrTensor("value", _single(tensor))


def _single(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def single_precision(batch: Batch, signature: Signature) -> Batch:
    """A batch whose halves are float32 where a signature has float32 for them."""
    halves = {spec.name for spec in signature.inputs if spec.dtype == "float32"}
    inputs = {
        name: array.astype(np.float32) if name in halves and array.dtype != np.float32 else array
        for name, array in batch.inputs.items()
    }
    return Batch(inputs, batch.targets)
