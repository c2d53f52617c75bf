"""Reductions along axes that only the run tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from modelport.backends.keras.dynamic.table import axes_of, dynamic, precise, ranks, wide

Rule = Callable[[Any, Any, bool], Any]


def _reduction(name: str, rule: Rule, *, on_floats: bool = False) -> None:
    """Register a reduction; `rule` takes the data, the axes and whether they stay with the size 1."""

    def function(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        data = precise(tf.cast(x, tf.float64) if on_floats and x.dtype.is_integer else wide(x))
        # The gradients of TensorFlow's reductions take axes of int32 alone.
        chosen = tf.cast(_chosen(x, axes, bool(noop_with_empty_axes)), tf.int32)
        return tf.cast(rule(data, chosen, bool(keepdims)), x.dtype)

    dynamic(name)(function)


def _chosen(x: Any, axes: Any, none_means_none: bool) -> Any:
    """The axes as an int64 vector: without any, all of them are meant, or none."""
    count = ranks(x)
    every = tf.range(tf.cast(count, tf.int64))
    if axes is None or axes.shape == (0,):
        return every[:0] if none_means_none else every
    chosen = axes_of(axes, count)
    if none_means_none or axes.shape.rank == 0 or axes.shape[0] is not None:
        return chosen
    return tf.cond(tf.size(axes) == 0, lambda: every, lambda: chosen)


def _max(x: Any, axes: Any, keepdims: bool) -> Any:
    return (tf.reduce_any if x.dtype == tf.bool else tf.reduce_max)(x, axes, keepdims)


def _min(x: Any, axes: Any, keepdims: bool) -> Any:
    return (tf.reduce_all if x.dtype == tf.bool else tf.reduce_min)(x, axes, keepdims)


_reduction("ReduceMax", _max)
_reduction("ReduceMin", _min)
_reduction("ReduceSum", tf.reduce_sum)
_reduction("ReduceProd", tf.reduce_prod)
_reduction("ReduceMean", tf.reduce_mean)
_reduction("ReduceL1", lambda x, axes, keepdims: tf.reduce_sum(tf.abs(x), axes, keepdims))
_reduction("ReduceL2", lambda x, axes, keepdims: tf.sqrt(tf.reduce_sum(x * x, axes, keepdims)), on_floats=True)
_reduction("ReduceSumSquare", lambda x, axes, keepdims: tf.reduce_sum(x * x, axes, keepdims))
_reduction("ReduceLogSum", lambda x, axes, keepdims: tf.math.log(tf.reduce_sum(x, axes, keepdims)), on_floats=True)
_reduction("ReduceLogSumExp", tf.reduce_logsumexp, on_floats=True)
