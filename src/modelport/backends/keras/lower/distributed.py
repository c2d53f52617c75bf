"""Calls that are traced in a form that has operators: what they compute is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelport.backends.keras.layers import keras_class
from modelport.core.signature import map_tree


def replaced(layer: Any) -> Callable[..., Any]:
    """The `call` of a layer that is traced."""
    original = layer.call
    if keras_class(layer, {"UpSampling2D"}) and not _has_own_call(layer, "UpSampling2D"):
        return _upsampled(layer, original)
    if keras_class(layer, {"TimeDistributed"}) is None or _has_own_call(layer, "TimeDistributed"):
        return original

    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if inputs.shape.rank is None or None in inputs.shape.as_list()[2:]:
            return original(inputs, training=training, mask=mask)
        return _at_once(layer.layer, inputs, training, mask)

    return call


def _has_own_call(layer: Any, name: str) -> bool:
    known: Any = next(cls for cls in type(layer).__mro__ if cls.__name__ == name)
    return type(layer).call is not known.call


def _at_once(inner: Any, inputs: Any, training: Any, mask: Any) -> Any:
    """A layer on every step of (batch, steps, ...): the steps are rows of one batch, where Keras loops over them.

    Where the number of steps is not fixed, Keras' own loop makes as many as there are examples.
    """
    import tensorflow as tf

    settings = {"training": training} if inner._call_has_training_arg else {}
    if mask is not None and inner._call_has_mask_arg:
        settings["mask"] = tf.reshape(mask, tf.concat([[-1], tf.shape(mask)[2:]], 0))
    sizes = inputs.shape.as_list()
    outputs = inner.call(tf.reshape(inputs, [-1, *sizes[2:]]), **settings)
    front = [sizes[1]] if sizes[1] is not None else tf.shape(inputs)[1:2]

    def apart(rows: Any) -> Any:
        return tf.reshape(rows, tf.concat([[-1], front, rows.shape.as_list()[1:]], 0))

    return map_tree(apart, outputs)


def _upsampled(layer: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Interpolation to sizes that are computed: Keras asks a symbolic tensor which of them is larger."""

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        smooth = layer.interpolation in ("bilinear", "bicubic") and layer.data_format == "channels_last"
        if not smooth or inputs.shape.rank != 4 or None not in inputs.shape.as_list()[1:3]:
            return original(inputs)
        return tf.image.resize(inputs, tf.shape(inputs)[1:3] * list(layer.size), layer.interpolation)

    return call
