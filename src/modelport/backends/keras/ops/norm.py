"""Normalisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from modelport.backends.keras.ops.registry import Array, CannotBuild, op, spatial
from modelport.backends.keras.ops.tensors import cast, dtype, part, plus, positive, precise, rank, size, sizes
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.splice import BUILD_DOMAIN


@spatial("BatchNormalization")
def batch_normalization(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    outputs: int = 1,
) -> Any:
    if not training_mode:
        return _normalised(x, mean, variance, scale, bias, epsilon)
    axes = tuple(range(rank(x) - 1))
    own_mean, own_variance = ops.mean(x, axis=axes), ops.var(x, axis=axes)
    result = _normalised(x, own_mean, own_variance, scale, bias, epsilon)
    moved = [
        plus(ops.multiply(old, momentum), ops.multiply(new, 1 - momentum))
        for old, new in ((mean, own_mean), (variance, own_variance))
    ]
    return (result, *moved)[:outputs] if outputs > 1 else result


def _normalised(x: Any, mean: Any, variance: Any, scale: Any, bias: Any, epsilon: float) -> Any:
    """Statistics and affine weights of the last axis, in the dtype of the statistics."""
    factor = ops.divide(cast(scale, dtype(mean)), ops.sqrt(plus(variance, epsilon)))
    result = plus(ops.multiply(ops.subtract(cast(x, dtype(mean)), mean), factor), cast(bias, dtype(mean)))
    return cast(result, dtype(x))


def _standardised(x: Any, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any, Any]:
    """A tensor with mean 0 and variance 1 over some axes; the mean; one over the deviation."""
    mean = ops.mean(x, axis=axes, keepdims=True)
    centred = ops.subtract(x, mean)
    variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
    inverse = ops.divide(1.0, ops.sqrt(plus(variance, epsilon)))
    return ops.multiply(centred, inverse), mean, inverse


@spatial("InstanceNormalization")
def instance_normalization(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5) -> Any:
    data, _, _ = _standardised(precise(x), tuple(range(1, rank(x) - 1)), epsilon)
    return cast(plus(ops.multiply(data, precise(scale)), precise(bias)), dtype(x))


@spatial("GroupNormalization")
def group_normalization(
    x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Any:
    channels, count = size(x, -1), rank(x)
    inner = sizes(x)[1:-1]
    if inner.count(None) > 0:
        data = precise(x)
        # Statistics per channel are averaged inside each group: the spatial sizes need not be known.
        mean = _over_groups(ops.mean(data, axis=tuple(range(1, count - 1)), keepdims=True), num_groups)
        centred = ops.subtract(data, mean)
        variance = _over_groups(
            ops.mean(ops.square(centred), axis=tuple(range(1, count - 1)), keepdims=True), num_groups
        )
        data = ops.divide(centred, ops.sqrt(plus(variance, epsilon)))
    else:
        grouped = ops.reshape(precise(x), (-1, *inner, num_groups, channels // num_groups))
        data, _, _ = _standardised(grouped, (*range(1, count - 1), count), epsilon)
        data = ops.reshape(data, (-1, *inner, channels))
    return cast(plus(ops.multiply(data, precise(scale)), precise(bias)), dtype(x))


def _over_groups(statistic: Any, groups: int) -> Any:
    """(batch, 1 ..., channels) averaged inside each group of channels."""
    channels = size(statistic, -1)
    ones = [1] * (rank(statistic) - 2)
    grouped = ops.mean(ops.reshape(statistic, (-1, *ones, groups, channels // groups)), axis=-1, keepdims=True)
    return ops.reshape(ops.repeat(grouped, channels // groups, axis=-1), (-1, *ones, channels))


@op("LayerNormalization")
def layer_normalization(
    x: Any,
    scale: Any,
    bias: Any = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> Any:
    axes = tuple(range(positive(axis, rank(x)), rank(x)))
    data, mean, inverse = _standardised(precise(x), axes, epsilon)
    result = ops.multiply(cast(data, dtype(x)), scale)
    result = result if bias is None else plus(result, bias)
    return (result, mean, inverse)[:outputs] if outputs > 1 else result


@op("RMSNormalization")
def rms_normalization(x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    axes = tuple(range(positive(axis, rank(x)), rank(x)))
    data = precise(x)
    mean_square = ops.mean(ops.square(data), axis=axes, keepdims=True)
    data = ops.divide(data, ops.sqrt(plus(mean_square, epsilon)))
    return ops.multiply(cast(data, dtype(x)), scale)


@op("LpNormalization")
def lp_normalization(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    size_of = ops.sum(ops.abs(x), axis=axis, keepdims=True)
    if p == 2:
        size_of = ops.sqrt(ops.sum(ops.square(x), axis=axis, keepdims=True))
    return ops.where(ops.equal(size_of, 0.0), ops.zeros_like(x), ops.divide(x, size_of))


@spatial("LRN")
def lrn(x: Any, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> Any:
    before = (size - 1) // 2
    widths = [(0, 0)] * (rank(x) - 1) + [(before, size - 1 - before)]
    squares = ops.pad(ops.square(x), widths)
    total = part(squares, -1, 0, (1 - size) or None)
    for start in range(1, size):
        total = plus(total, part(squares, -1, start, (start - size + 1) or None))
    return ops.divide(x, ops.power(plus(ops.multiply(total, alpha / size), bias), beta))


@op("Dropout")
def dropout(
    x: Any, ratio: Array | None = None, training: Array | None = None, *, seed: int = 0, outputs: int = 1
) -> Any:
    if training is not None and bool(training) and (ratio is None or float(ratio) != 0.0):
        raise CannotBuild("a random draw has no portable result: export the model in inference mode")
    return (x, ops.ones_like(x, dtype="bool")) if outputs > 1 else x


@op(SPATIAL_DROPOUT, domain=BUILD_DOMAIN)
def spatial_dropout(x: Any, ratio: Array | None = None, *, axes: Sequence[int]) -> Any:
    return x
