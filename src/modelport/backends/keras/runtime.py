"""The layer and the model for what a functional model of Keras cannot hold: they compute an ONNX graph themselves."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import onnx
import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.carrier import carried, carrier
from modelport.backends.keras.dynamic.evaluate import evaluate
from modelport.backends.keras.ops.tensors import KERAS_DTYPES
from modelport.core.signature import Signature


def encoded(program: onnx.ModelProto) -> str:
    """A graph as text."""
    return base64.b64encode(program.SerializeToString()).decode()


def decoded(text: str) -> ir.Model:
    """What `encoded` wrote."""
    return ir.serde.deserialize_model(onnx.ModelProto.FromString(base64.b64decode(text)))


def keras_type(value: ir.Value) -> str | None:
    """Keras' dtype of a value that is a tensor; `None` where it has none."""
    number = int(value.dtype or 0) if isinstance(value.type, ir.TensorType) else 0
    return "string" if number == ir.DataType.STRING else KERAS_DTYPES.get(number)


def static_shape(value: ir.Value) -> tuple[int | None, ...] | None:
    """The shape with `None` for a size that is not known; `None` where the rank is not."""
    return None if value.shape is None else tuple(size if isinstance(size, int) else None for size in value.shape)


@keras.saving.register_keras_serializable(package="modelport")
class OnnxGraph(keras.layers.Layer):
    """A part of an ONNX graph whose sizes, branches or strings are known only when the model runs.

    It computes with TensorFlow's own operators, eagerly and inside `tf.function`; gradients pass, and a SavedModel
    holds it. To load it from a `.keras` file, modelport has to be installed.

    Args:
        graph: the part as text (`encoded`); its inputs are what the layer is called with, in their order, and the
            dtypes and shapes of its outputs are stated.
    """

    def __init__(self, graph: str, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.supports_jit = False
        self._text = graph
        self._program = decoded(graph)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "graph": self._text}

    def compute_output_spec(self, *tensors: Any) -> Any:
        specs = [keras.KerasTensor(static_shape(value), keras_type(value)) for value in self._program.graph.outputs]
        return specs[0] if len(specs) == 1 else tuple(specs)

    def call(self, *tensors: Any) -> Any:
        graph = self._program.graph
        names = [str(value.name) for value in graph.inputs]
        results = evaluate(graph, dict(zip(names, tensors, strict=True)))
        for value, result in zip(graph.outputs, results, strict=True):
            if not isinstance(result, tf.__internal__.EagerTensor):
                result.set_shape(static_shape(value))
        return results[0] if len(results) == 1 else tuple(results)


@keras.saving.register_keras_serializable(package="modelport")
class OnnxModel(keras.Model):
    """A whole ONNX graph whose inputs or outputs no functional model can have: sequences, optionals, unknown ranks.

    It is called as its signature says; a sequence is a list of tensors, an empty optional `None`.

    Args:
        graph: the graph as text (`encoded`); its weights are among its inputs.
        signature: as JSON; the weights are no inputs of it.
        carried: name, shape, dtype and whether it trains, of every weight.
    """

    def __init__(
        self, graph: str, signature: Mapping[str, Any], carried: Sequence[tuple[str, Sequence[int], str, bool]],
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs, autocast=False)
        self.supports_jit = False
        self._text = graph
        self._specs = [(name, tuple(shape), dtype, trains) for name, shape, dtype, trains in carried]
        self._program = decoded(graph)
        self._signature = Signature.from_json(signature)
        self.carriers = [_carrier(*spec) for spec in carried]
        self.built = True

    def get_config(self) -> dict[str, Any]:
        carried = [list(spec) for spec in self._specs]
        return {"name": self.name, "graph": self._text, "signature": self._signature.to_json(), "carried": carried}

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        signature = self._signature
        values: dict[str, Any] = {}
        _bind(tuple(signature.args or ()), args, values)
        _bind(dict(signature.kwargs), kwargs, values)
        for (name, shape, *_), layer in zip(self._specs, self.carriers, strict=True):
            values[name] = carried(layer, tf.ones((1, 1), layer.compute_dtype), shape)
        graph = self._program.graph
        results = evaluate(graph, values)
        return signature.pack({str(value.name): result for value, result in zip(graph.outputs, results, strict=True)})


def _carrier(name: str, shape: Sequence[int], dtype: str, trains: bool) -> keras.layers.Layer:
    layer = carrier(tuple(shape), name, dtype)
    layer.build((1, 1))
    layer.trainable = trains
    return layer


def _bind(tree: Any, value: Any, found: dict[str, Any]) -> None:
    """The values at the places of a tree of names."""
    if isinstance(tree, Mapping):
        for key, inner in tree.items():
            _bind(inner, value[key], found)
    elif isinstance(tree, (tuple, list)):
        for inner, part in zip(tree, value, strict=True):
            _bind(inner, part, found)
    elif tree is not None:
        found[tree] = value
