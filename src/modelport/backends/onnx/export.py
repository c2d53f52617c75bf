"""ModelProto -> portable graph."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir

from modelport.backends.onnx.weights import FILES, tensor_at
from modelport.core.backend import Exported
from modelport.core.errors import SignatureError
from modelport.core.signature import Signature
from modelport.graph.proto import to_graph
from modelport.graph.signature import graph_inputs, read_signature, write_signature
from modelport.graph.weights import ROLES_KEY, lift_weights, roles, set_roles


def export(native: Any, signature: Signature) -> Exported:
    """The model as a portable graph: as it is, with signature and roles written down, and constant weights lifted.

    Operators and opset stay the model's own; `graph.normal.normalize` brings them to the normal form where a backend
    builds from it.
    """
    graph = as_graph(native)
    write_signature(graph, signature)
    if ROLES_KEY not in graph.metadata_props:
        lift_weights(graph)
        set_roles(graph, roles(graph))
    return Exported(graph)


def as_graph(native: Any) -> ir.Model:
    """A graph of its own for the model; its weights are the model's, uncopied."""
    if isinstance(native, ir.Model):
        return native.clone()
    graph = to_graph(native)
    for tensor in native.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            graph.graph.initializers[tensor.name].const_value = tensor_at(native, tensor)
    graph.metadata_props.pop(FILES, None)
    return graph


def signature(native: Any) -> Signature:
    """The model's inputs and outputs; where the file leaves an output's type open, ONNX Runtime infers it.

    Raises:
        SignatureError: the model has no outputs.
    """
    graph = native if isinstance(native, ir.Model) else to_graph(native)
    if not graph.graph.outputs:
        raise SignatureError("the ONNX model has no outputs: export it again.")
    if any(value.type is None for value in (*graph_inputs(graph.graph), *graph.graph.outputs)):
        graph = _with_inferred_types(native, graph)
    return read_signature(graph)


def _with_inferred_types(native: Any, graph: ir.Model) -> ir.Model:
    from modelport.backends.onnx.run import session_of

    session = session_of(native)
    graph = graph.clone()
    for value, found in zip(graph.graph.outputs, session.get_outputs(), strict=True):
        if value.type is None:
            value.type = _type(found.type)
            value.shape = None if found.shape is None else ir.Shape(found.shape)
    return graph


_NAMES = {"float": "FLOAT", "double": "DOUBLE", "string": "STRING"}


def _type(text: str) -> Any:
    """The type that ONNX Runtime writes as `seq(tensor(int64))`."""
    kind, _, inner = text.removesuffix(")").partition("(")
    if kind == "seq":
        return ir.SequenceType(_type(inner))
    if kind == "optional":
        return ir.OptionalType(_type(inner))
    return ir.TensorType(ir.DataType[_NAMES.get(inner, inner.upper())])
