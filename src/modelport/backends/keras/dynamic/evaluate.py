"""A graph computed node by node on TensorFlow's tensors, eagerly or while `tf.function` builds its own graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.border import carrier_array
from modelport.backends.keras.dynamic.host import HOST, on_host
from modelport.backends.keras.dynamic.table import DYNAMIC
from modelport.backends.keras.ops.registry import OPS, NeedsValues, Op, call
from modelport.backends.keras.ops.tensors import KERAS_DTYPES
from modelport.core.errors import UnsupportedOpError


def attributes(node: ir.Node) -> dict[str, Any]:
    """A node's attributes as Python values; subgraphs as they are."""
    found: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        value = attribute.value
        if isinstance(value, ir.TensorProtocol):
            value = value.numpy()
        found[name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return found


def used(node: ir.Node) -> int:
    """How many outputs a node has, up to the last that has a name."""
    return max((i + 1 for i, value in enumerate(node.outputs) if value.name), default=1)


def kinds(node: ir.Node) -> tuple[int, ...]:
    """The element types of a node's inputs, as ONNX numbers them; 0 where one is not known."""
    return tuple(int((value.dtype if value is not None else None) or 0) for value in node.inputs)


def tensor_dtype(value: ir.Value) -> Any:
    """TensorFlow's dtype of a value; `None` where it is not known or the value is no tensor."""
    number = int(value.dtype or 0) if isinstance(value.type, ir.TensorType) else 0
    if number == ir.DataType.STRING:
        return tf.string
    return tf.as_dtype(KERAS_DTYPES[number]) if number in KERAS_DTYPES else None


def element_dtype(value: ir.Value) -> Any:
    """TensorFlow's dtype of the elements of a sequence."""
    number = int(value.dtype or ir.DataType.FLOAT)
    return tf.string if number == ir.DataType.STRING else tf.as_dtype(KERAS_DTYPES[number])


def evaluate(graph: ir.Graph, values: Mapping[str, Any]) -> list[Any]:
    """The outputs of a graph.

    Args:
        graph: in normal form.
        values: by name: the graph's inputs, and what it uses from around it. A sequence is a list of tensors, an empty
            optional `None`.
    """
    scope = dict(values)
    for name, initializer in graph.initializers.items():
        if name not in scope and initializer.const_value is not None:
            scope[name] = constant(initializer.const_value.numpy())
    for node in graph:
        inputs = [None if value is None else scope[str(value.name)] for value in node.inputs]
        for value, result in zip(node.outputs, run_node(node, inputs, scope), strict=False):
            scope[str(value.name)] = result
    return [scope[str(value.name)] for value in graph.outputs]


def constant(array: np.ndarray) -> Any:
    """An array as a tensor, of a type that TensorFlow lacks in the dtype that carries it."""
    return tf.constant(carrier_array(array))


def run_node(node: ir.Node, inputs: list[Any], scope: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs of one node.

    Raises:
        UnsupportedOpError: TensorFlow cannot compute it with these inputs; the message names the node.
    """
    if HOST in node.metadata_props:
        return on_host(node, inputs, scope)
    found = implementation(node)
    assert found is not None, node.op_type
    extra = {
        "outputs": used(node), "result": tensor_dtype(node.outputs[0]), "kinds": kinds(node), "scope": scope,
        "node": node,
    }  # fmt: skip
    if (node.domain, node.op_type) not in DYNAMIC:
        extra["result"] = KERAS_DTYPES.get(int(node.outputs[0].dtype or 0), "")
    try:
        result = call(found, inputs, attributes(node), extra, _known)
    except NeedsValues as error:
        raise UnsupportedOpError(
            f"{node.op_type} at node {node.name!r} cannot be part of TensorFlow's graph: {error}. Call the model "
            "eagerly, or replace the operator in the source model.",
            op_type=node.op_type, node=node.name or "",
        ) from error  # fmt: skip
    return result if isinstance(result, tuple) else (result,)


def implementation(node: ir.Node) -> Op | None:
    """The function that computes a node in TensorFlow; `None` where there is none that takes its attributes."""
    for table in (DYNAMIC, OPS):
        found = table.get((node.domain, node.op_type))
        if found is not None and (found.takes_all or set(node.attributes) <= found.keywords):
            return found
    return None


def _known(value: Any, form: str) -> Any:
    """A tensor in the form that a function takes it."""
    if value is None or form == "tensor":
        return value
    array = tf.get_static_value(value)
    if array is None:
        raise NeedsValues("it needs values that only the run tells")
    return np.asarray(array) if form == "array" else tuple(np.asarray(array).ravel().tolist())
