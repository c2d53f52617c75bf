"""The host fallback: a node that neither Keras nor TensorFlow can express, computed on NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.border import to_array, to_tensor
from modelport.backends.keras.ops.tensors import KERAS_DTYPES
from modelport.core.errors import UnsupportedOpError
from modelport.graph.host import HostNode, host_node
from modelport.graph.signature import dtype_name

HOST = "modelport.host"
"""The metadata of a node that the host computes: the opsets it is written in, as JSON."""


def on_host(node: ir.Node, inputs: list[Any], scope: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs of a node as onnx's reference evaluator computes them; no gradient passes.

    Inside `tf.function` it is a `tf.numpy_function`: a SavedModel with it runs only in the process that made it.

    Raises:
        UnsupportedOpError: it has sequences or optionals, and TensorFlow builds a graph.
    """
    host, taken = host_node(node, json.loads(node.metadata_props[HOST]))
    own = {value: given for value, given in zip(node.inputs, inputs, strict=True) if value is not None}
    values = [own[value] if value in own else scope[str(value.name)] for value in taken]
    kinds = ["" if value.dtype is None else dtype_name(value.dtype) for value in taken]
    if all(_is_concrete(value) for value in values):
        return _computed(host, values, kinds)
    dtypes = [_dtype(value, node) for value in node.outputs]

    def compute(*arrays: Any) -> list[np.ndarray]:
        found = _computed(host, list(arrays), kinds)
        return [each.numpy() for each in found]

    if not all(tf.is_tensor(value) for value in values):
        raise UnsupportedOpError(
            f"{node.op_type} at node {node.name!r} takes a sequence or an optional on the host, which TensorFlow's "
            "graph cannot hold: call the model eagerly.",
            op_type=node.op_type, node=node.name or "",
        )  # fmt: skip
    results = tf.numpy_function(compute, values, dtypes, stateful=False)
    return tuple(results) if isinstance(results, (list, tuple)) else (results,)


def _dtype(value: ir.Value, node: ir.Node) -> Any:
    number = int(value.dtype or 0)
    if number not in KERAS_DTYPES or not isinstance(value.type, ir.TensorType):
        raise UnsupportedOpError(
            f"{node.op_type} at node {node.name!r} runs on the host, and the dtype of its result {value.name!r} is not "
            "known: call the model eagerly.",
            op_type=node.op_type, node=node.name or "",
        )  # fmt: skip
    return tf.as_dtype(KERAS_DTYPES[number])


def _is_concrete(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_concrete, value))
    return value is None or isinstance(value, (np.ndarray, tf.__internal__.EagerTensor))


def _computed(host: HostNode, values: list[Any], kinds: list[str]) -> tuple[Any, ...]:
    return tuple(map(to_tensor, host(*map(to_array, values, kinds))))
