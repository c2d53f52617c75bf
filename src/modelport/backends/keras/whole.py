"""The graph as one model that computes it node by node: where no functional model can take or give its values."""

from __future__ import annotations

import keras
import onnx_ir as ir

from modelport.backends.keras.border import carrier_array
from modelport.backends.keras.carrier import stored
from modelport.backends.keras.ops.tensors import keras_dtype
from modelport.backends.keras.parts import settle_hosts, whole
from modelport.backends.keras.runtime import OnnxModel, keras_type, static_shape
from modelport.core.backend import Built
from modelport.core.report import Note
from modelport.core.signature import Signature
from modelport.graph.signature import graph_inputs
from modelport.graph.weights import roles


def why_whole(model: ir.Model) -> str:
    """Why a graph cannot be a functional model; empty where it can.

    Args:
        model: in normal form, with types and shapes on its values.
    """
    inputs = graph_inputs(model.graph)
    if not inputs:
        return "the graph has no inputs"
    for value in (*inputs, *model.graph.outputs):
        if not isinstance(value.type, ir.TensorType) and value.type is not None:
            return f"{value.name!r} is {value.type}, no tensor"
        if value.name and (keras_type(value) is None or static_shape(value) is None):
            return f"the dtype or the rank of {value.name!r} is known only at run time"
    return ""


def build_whole(model: ir.Model, signature: Signature, why: str) -> Built:
    """A `keras.Model` that computes a graph in normal form node by node."""
    held = roles(model)
    values = {name: model.graph.initializers[name] for name in held}
    carried = [
        (name, list(value.const_value.numpy().shape), keras_dtype(value.const_value.dtype), held[name] == "parameter")
        for name, value in values.items()
        if value.const_value is not None
    ]
    hosted = settle_hosts(model.graph, model.graph.opset_imports)
    native: keras.Model = OnnxModel(whole(model, held), signature.to_json(), carried, name="model")
    for layer, value in zip(native.carriers, values.values(), strict=True):
        assert value.const_value is not None
        layer.kernel.assign(stored(carrier_array(value.const_value.numpy())))
    needs = "to load it from a .keras file, import modelport.backends.keras.runtime first"
    notes = [Note("custom", "model", f"is modelport's own OnnxModel, since {why}; {needs}")]
    notes += [Note("fallback", name, "runs on the host: neither Keras nor TensorFlow has it") for name in hosted]
    return Built(native, tuple(notes))
