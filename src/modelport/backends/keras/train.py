"""Gradients of a Keras model's parameters."""

from __future__ import annotations

from typing import Any

from modelport.backends.keras.layers import weights
from modelport.backends.keras.run import by_name, call
from modelport.core.signature import Arrays, Signature


def gradients(native: Any, inputs: Arrays, cotangents: Arrays, signature: Signature) -> Arrays:
    """The gradient of `sum(output * cotangent)` over the outputs, in inference mode.

    Returns:
        One array per trainable parameter, by portable name and in the portable layout; zeros where the outputs do not
        depend on it. The two biases of a recurrent layer, of which Keras keeps the sum, both have the sum's gradient.
    """
    import tensorflow as tf

    trained = [weight for weight in weights(native) if weight.role == "parameter"]
    variables = [getattr(weight.variable, "value", weight.variable) for weight in trained]
    tensors = {name: tf.convert_to_tensor(array) for name, array in inputs.items()}
    with tf.GradientTape() as tape:
        outputs = by_name(call(native, tensors, signature), signature)
        targets = [outputs[name] for name in cotangents]
    found = tape.gradient(
        targets,
        variables,
        output_gradients=[tf.convert_to_tensor(array) for array in cotangents.values()],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    result: Arrays = {}
    for weight, gradient in zip(trained, found, strict=True):
        # An embedding's gradient comes as the rows that were looked up.
        result.update(weight.gradient(tf.convert_to_tensor(gradient).numpy()))
    return result
