"""Random draws: as TensorFlow's generator makes them, the same at every call where the model gives a seed."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic, scalar, shape
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.splice import BUILD_DOMAIN


def _work(dtype: Any) -> Any:
    """The dtype that numbers are drawn in."""
    return dtype if dtype == tf.float64 else tf.float32


def _uniform(sizes: Any, dtype: Any, seed: float | None) -> Any:
    """Numbers in [0, 1)."""
    work = _work(dtype)
    if seed is None:
        return tf.random.uniform(sizes, dtype=work)
    return tf.random.stateless_uniform(sizes, _pair(seed), dtype=work)


def _normal(sizes: Any, dtype: Any, seed: float | None) -> Any:
    work = _work(dtype)
    if seed is None:
        return tf.random.normal(sizes, dtype=work)
    return tf.random.stateless_normal(sizes, _pair(seed), dtype=work)


def _pair(seed: float) -> list[int]:
    whole = int(seed)
    return [whole, int((seed - whole) * 2**31)]


@dynamic("RandomUniform")
def random_uniform(
    *, shape: Any, dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None, result: Any
) -> Any:
    return tf.cast(_uniform(shape, result, seed) * (high - low) + low, result)


@dynamic("RandomUniformLike")
def random_uniform_like(
    x: Any, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None, result: Any
) -> Any:
    return tf.cast(_uniform(shape(x), result, seed) * (high - low) + low, result)


@dynamic("RandomNormal")
def random_normal(
    *, shape: Any, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None, result: Any
) -> Any:
    return tf.cast(_normal(shape, result, seed) * scale + mean, result)


@dynamic("RandomNormalLike")
def random_normal_like(
    x: Any, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None, result: Any
) -> Any:
    return tf.cast(_normal(shape(x), result, seed) * scale + mean, result)


@dynamic("Bernoulli")
def bernoulli(x: Any, *, dtype: int | None = None, seed: float | None = None, result: Any) -> Any:
    return tf.cast(_uniform(shape(x), x.dtype, seed) < tf.cast(x, _work(x.dtype)), result)


@dynamic("Multinomial")
def multinomial(x: Any, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None, result: Any) -> Any:
    if seed is None:
        return tf.cast(tf.random.categorical(x, sample_size), result)
    return tf.cast(tf.random.stateless_categorical(x, sample_size, _pair(seed)), result)


@dynamic(SPATIAL_DROPOUT, domain=BUILD_DOMAIN)
def spatial_dropout(x: Any, ratio: Any = None, *, axes: Any) -> Any:
    return x


@dynamic("Dropout")
def dropout(
    x: Any, ratio: Any = None, training: Any = None, *, seed: float | None = None, outputs: int = 1
) -> tuple[Any, ...]:
    work = _work(x.dtype)
    share = tf.constant(0.5, work) if ratio is None else tf.cast(scalar(ratio), work)
    active = tf.constant(False) if training is None else scalar(training)
    kept = tf.logical_or(tf.logical_not(active), _uniform(shape(x), work, seed) >= share)
    factor = tf.where(active, 1 / (1 - share), tf.ones_like(share))
    dropped = tf.cast(tf.cast(x, work) * factor, x.dtype)
    dropped = tf.where(kept, dropped, tf.zeros_like(x))
    return (dropped, kept)[:outputs]
