"""Gradients of a Keras model's parameters, and training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from modelport.backends.keras.layers import Weight, weights
from modelport.backends.keras.run import by_name, call
from modelport.core.errors import StepError
from modelport.core.signature import Arrays, Signature
from modelport.core.training import (
    BETAS,
    EPSILON,
    TINY,
    Batch,
    Epoch,
    Plan,
    Term,
    check_scalar,
    check_shapes,
    run_epochs,
)


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


def fit(
    native: Any,
    batches: Callable[[int], Iterable[Batch]],
    plan: Plan,
    signature: Signature,
    on_epoch: Callable[[Epoch], bool],
) -> tuple[Epoch, ...]:
    """Train a model in place; see `Trainer.fit`."""
    import keras
    import tensorflow as tf

    known = weights(native)
    trained = [weight for weight in known if weight.role == "parameter"]
    frozen = {id(weight.variable) for weight in trained if plan.frozen.issuperset(weight.names)}
    learning = [weight.variable for weight in trained if id(weight.variable) not in frozen]
    if not learning:
        raise StepError("no parameter is left to train: freeze fewer layers.")
    variables = [getattr(variable, "value", variable) for variable in learning]
    masks = _masks(known, plan)
    optimizer = keras.optimizers.AdamW(
        plan.rate(0), weight_decay=plan.weight_decay, beta_1=BETAS[0], beta_2=BETAS[1], epsilon=EPSILON
    )
    optimizer.build(learning)

    def loss(inputs: Mapping[str, Any], targets: Mapping[str, Any], training: bool) -> Any:
        outputs = by_name(call(native, inputs, signature, training=training), signature)
        return tf.add_n([term.weight * _loss(term, outputs[term.output], targets) for term in plan.terms])

    def learn(inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            value = loss(inputs, targets, True)
        found = tape.gradient(value, variables)
        # What the loss does not depend on takes no step, and does not decay.
        taken = [(gradient, each) for gradient, each in zip(found, learning, strict=True) if gradient is not None]
        if not taken:
            raise StepError("the loss depends on no parameter that is trained.")
        # An embedding's gradient comes as the rows that were looked up.
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient, _ in taken], [each for _, each in taken])
        for variable, mask in masks:
            variable.assign(variable * mask)
        return value

    # Autograph would rewrite the model's own `call`; Keras itself traces without it.
    learned = tf.function(learn, autograph=False, reduce_retracing=True)
    checked = tf.function(lambda x, y: loss(x, y, False), autograph=False, reduce_retracing=True)

    def step(batch: Batch, rate: float) -> Any:
        optimizer.learning_rate.assign(rate)
        return learned(_tensors(batch.inputs), _tensors(batch.targets))

    def check(batch: Batch) -> Any:
        return checked(_tensors(batch.inputs), _tensors(batch.targets))

    with _training(native, frozen, plan.seed):
        return run_epochs(plan, batches, on_epoch, step=step, check=check)


def _tensors(arrays: Arrays) -> dict[str, Any]:
    from modelport.backends.keras.border import to_tensor

    return {name: to_tensor(array) for name, array in arrays.items()}


def _masks(known: Iterable[Weight], plan: Plan) -> list[tuple[Any, Any]]:
    """Variables with what they are multiplied by after each step."""
    found = []
    for weight in known:
        if plan.masks.keys() & set(weight.names):
            arrays = [np.asarray(plan.masks.get(name, np.ones(weight.layout.portable))) for name in weight.names]
            native = weight.to_native(arrays) != 0
            found.append((weight.variable, native.astype(weight.variable.numpy().dtype)))
    return found


def _loss(term: Term, output: Any, targets: Mapping[str, Any]) -> Any:
    import tensorflow as tf

    target = targets[term.target]
    if callable(term.kind):
        found = tf.reduce_mean(term.kind(target, output)) if _is_keras_loss(term.kind) else term.kind(output, target)
        check_scalar(term, found.shape)
        return found
    check_shapes(term, output.shape, target.shape)
    if term.kind in ("mse", "nmse"):
        wanted = tf.cast(target, output.dtype)
        rows = tf.math.squared_difference(output, wanted)
        rows = rows / tf.maximum(tf.reduce_mean(tf.square(wanted)), TINY) if term.kind == "nmse" else rows
    elif term.kind == "binary_cross_entropy":
        rows = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(target, output.dtype), output / term.temperature)
    elif term.kind == "cross_entropy":
        rows = tf.nn.sparse_softmax_cross_entropy_with_logits(target, output)
    else:
        said, wanted = (tf.nn.log_softmax(each / term.temperature) for each in (output, tf.cast(target, output.dtype)))
        rows = tf.reduce_sum(tf.exp(wanted) * (wanted - said), -1)
    if not term.counted:
        return tf.reduce_mean(rows)
    counted = tf.cast(targets[term.counted], rows.dtype)
    return tf.reduce_sum(rows * counted) / tf.maximum(tf.reduce_sum(counted), 1)


def _is_keras_loss(function: Any) -> bool:
    """Whether a loss takes the targets first, as Keras' own do, which give one number per row."""
    import keras

    if isinstance(function, keras.losses.Loss):
        return True
    try:
        return next(iter(inspect.signature(function).parameters), None) == "y_true"
    except (TypeError, ValueError):
        return False


@contextmanager
def _training(native: Any, frozen: set[int], seed: int) -> Iterator[None]:
    """Layers whose parameters are all frozen are in inference mode, and what is drawn follows from the seed."""
    layers = list(native._flatten_layers()) if hasattr(native, "_flatten_layers") else []
    still = []
    for index, layer in enumerate(layers):
        own = {id(variable) for variable in getattr(layer, "_trainable_variables", ())}
        if own and own <= frozen and layer.trainable:
            layer.trainable = False
            still.append(layer)
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign([seed, index])
    try:
        yield
    finally:
        for layer in still:
            layer.trainable = True
