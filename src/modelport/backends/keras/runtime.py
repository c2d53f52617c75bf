"""The custom layer for what Keras cannot express: an operator that needs values which only the run tells."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from modelport.backends.keras.ops.registry import OPS, Op


def _encode(value: Any) -> Any:
    """An attribute or a constant input as JSON."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": value.dtype.name, "shape": list(value.shape)}
    return list(value) if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        array = np.frombuffer(base64.b64decode(value["array"]), np.dtype(value["dtype"]))
        return array.reshape(value["shape"])
    return tuple(value) if isinstance(value, list) else value


def _as_float(tensor: Any) -> Any:
    """A tensor in a floating dtype that holds its values exactly: `py_function` has no gradient beside integers."""
    if tensor.dtype.is_floating or tensor.dtype.is_complex:
        return tensor
    return tf.bitcast(tensor, tf.float64) if tensor.dtype.size == 8 else tf.cast(tensor, tf.float64)


def _from_float(tensor: Any, dtype: Any) -> Any:
    """What `_as_float` was given."""
    if tensor.dtype == dtype:
        return tensor
    return tf.bitcast(tensor, dtype) if dtype.size == 8 else tf.cast(tensor, dtype)


@keras.saving.register_keras_serializable(package="modelport")
class OnnxOp(keras.layers.Layer):
    """One ONNX operator whose sizes or values are known only when the model runs.

    It computes eagerly, inside a `tf.py_function` where TensorFlow builds a graph: gradients pass, but a SavedModel
    with it runs only in the process that made it.

    Args:
        op_type: the operator.
        domain: of the operator.
        attributes: by name.
        inputs: for each input of the operator `"tensor"`, `None` where it is absent, or a constant.
        results: dtype and shape of every output, `None` for a size that is not known.
    """

    def __init__(
        self,
        op_type: str,
        domain: str,
        attributes: dict[str, Any],
        inputs: Sequence[Any],
        results: Sequence[tuple[str, Sequence[int | None]]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "autocast": False})
        self.op_type, self.domain = op_type, domain
        self.attributes = {name: _decode(value) for name, value in attributes.items()}
        self.inputs_given = [_decode(value) for value in inputs]
        self.results = [(dtype, tuple(shape)) for dtype, shape in results]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "op_type": self.op_type,
            "domain": self.domain,
            "attributes": {name: _encode(value) for name, value in self.attributes.items()},
            "inputs": [_encode(value) for value in self.inputs_given],
            "results": [[dtype, list(shape)] for dtype, shape in self.results],
        }

    def compute_output_spec(self, *tensors: Any) -> Any:
        specs = [keras.KerasTensor(shape, dtype) for dtype, shape in self.results]
        return specs[0] if len(specs) == 1 else tuple(specs)

    def call(self, *tensors: Any) -> Any:
        if all(isinstance(tensor, tf.__internal__.EagerTensor) for tensor in tensors):
            found = self._run(*tensors)
        else:
            dtypes = [tensor.dtype for tensor in tensors]
            found = tf.py_function(
                lambda *given: self._run(*map(_from_float, given, dtypes)),
                [_as_float(tensor) for tensor in tensors],
                [dtype for dtype, _ in self.results],
            )
        for tensor, (_, shape) in zip(found, self.results, strict=True):
            if not isinstance(tensor, tf.__internal__.EagerTensor):
                tensor.set_shape(shape)
        return found[0] if len(found) == 1 else tuple(found)

    def _run(self, *tensors: Any) -> list[Any]:
        rest = iter(tensors)
        inputs = [next(rest) if isinstance(value, str) else value for value in self.inputs_given]
        found = OPS[self.domain, self.op_type]
        extra = {"outputs": len(self.results), "result": self.results[0][0]}
        result = call(found, inputs, self.attributes, extra, _as_form)
        results = result if isinstance(result, (tuple, list)) else (result,)
        return [tf.cast(value, dtype) for value, (dtype, _) in zip(results, self.results, strict=False)]


def _as_form(value: Any, form: str) -> Any:
    """A tensor or array in the form that a function takes it."""
    if value is None or form == "tensor":
        return value
    array = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
    return array if form == "array" else tuple(array.ravel().tolist())


def call(
    found: Op, inputs: Sequence[Any], attributes: dict[str, Any], extra: dict[str, Any], take: Callable[[Any, str], Any]
) -> Any:
    """Call an operator's function with its inputs in the forms it takes, its attributes and what else it asks for."""
    taken = [take(value, found.form(index)) for index, value in enumerate(inputs)]
    asked = {name: value for name, value in extra.items() if name in found.keywords}
    return found.function(*taken, **attributes, **asked)
