"""Activation functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.math import in_wide
from modelport.backends.keras.ops.registry import op
from modelport.backends.keras.ops.tensors import along, cast, dtype, plus, positive, precise, rank, size


@op("Relu")
def relu(x: Any) -> Any:
    return in_wide(ops.relu, x)


@op("LeakyRelu")
def leaky_relu(x: Any, *, alpha: float = 0.01) -> Any:
    return ops.leaky_relu(x, negative_slope=alpha)


@op("PRelu")
def prelu(x: Any, slope: Any) -> Any:
    def rule(x: Any, slope: Any) -> Any:
        return ops.where(ops.less(x, 0), ops.multiply(x, slope), x)

    return in_wide(rule, x, slope)


@op("PRelu", domain="modelport.channels_last")
def prelu_channels_last(x: Any, slope: Any) -> Any:
    # The slope is the parameter itself, with one or C elements: the channels are the last axis here.
    return prelu(x, ops.reshape(slope, (-1,)))


@op("Elu")
def elu(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.elu(x, alpha=alpha)


@op("Celu")
def celu(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.celu(x, alpha=alpha)


@op("Selu")
def selu(x: Any, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    return ops.multiply(ops.elu(x, alpha=alpha), gamma)


@op("ThresholdedRelu")
def thresholded_relu(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.where(ops.greater(x, alpha), x, ops.zeros_like(x))


@op("Sigmoid")
def sigmoid(x: Any) -> Any:
    return ops.sigmoid(x)


@op("HardSigmoid")
def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return ops.clip(plus(ops.multiply(x, alpha), beta), 0.0, 1.0)


@op("HardSwish")
def hard_swish(x: Any) -> Any:
    return ops.hard_silu(x)


@op("Swish")
def swish(x: Any, *, alpha: float = 1.0) -> Any:
    return ops.silu(x) if alpha == 1.0 else ops.multiply(x, ops.sigmoid(ops.multiply(x, alpha)))


@op("Mish")
def mish(x: Any) -> Any:
    return ops.multiply(x, ops.tanh(ops.softplus(x)))


@op("Gelu")
def gelu(x: Any, *, approximate: str = "none") -> Any:
    return ops.gelu(x, approximate=approximate == "tanh")


@op("Softplus")
def softplus(x: Any) -> Any:
    return ops.softplus(x)


@op("Softsign")
def softsign(x: Any) -> Any:
    return ops.softsign(x)


@op("Shrink")
def shrink(x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    def rule(x: Any) -> Any:
        outside = ops.where(ops.greater(x, lambd), ops.subtract(x, bias), ops.zeros_like(x))
        return ops.where(ops.less(x, -lambd), plus(x, bias), outside)

    if "float" in dtype(x):
        return rule(x)
    return cast(rule(cast(x, "float32")), dtype(x))


@op("Softmax")
def softmax(x: Any, *, axis: int = -1) -> Any:
    if rank(x) > _MOST_AXES:
        powers = ops.exp(_below_zero(x, axis))
        return cast(ops.divide(powers, ops.sum(powers, axis=axis, keepdims=True)), dtype(x))
    return cast(ops.softmax(precise(x), axis=axis), dtype(x)) if rank(x) else ops.ones_like(x)


_MOST_AXES = 5
"""Of a softmax: TensorFlow's kernel on a CPU takes no more."""


def _below_zero(x: Any, axis: int) -> Any:
    """A tensor less its largest element along an axis."""
    return ops.subtract(precise(x), ops.max(precise(x), axis=axis, keepdims=True))


@op("LogSoftmax")
def log_softmax(x: Any, *, axis: int = -1) -> Any:
    if rank(x) > _MOST_AXES:
        data = _below_zero(x, axis)
        return cast(ops.subtract(data, ops.log(ops.sum(ops.exp(data), axis=axis, keepdims=True))), dtype(x))
    return cast(ops.log_softmax(precise(x), axis=axis), dtype(x)) if rank(x) else ops.zeros_like(x)


@op("Hardmax")
def hardmax(x: Any, *, axis: int = -1) -> Any:
    if not size(x, axis):
        return x
    steps = along(np.arange(size(x, axis)), positive(axis, rank(x)), rank(x))
    # The two zeros are equal, and Keras' argmax orders them.
    one_zero = ops.where(ops.equal(x, 0), ops.zeros_like(x), x)
    return cast(ops.equal(cast(ops.argmax(one_zero, axis=axis, keepdims=True), "int64"), steps), dtype(x))
