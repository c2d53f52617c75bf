"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.math import in_wide
from modelport.backends.keras.ops.registry import Ints, op
from modelport.backends.keras.ops.tensors import cast, dtype, is_bool, positive, precise, rank, size, sizes, wide

Rule = Callable[..., Any]


def _reduction(name: str, rule: Rule) -> None:
    """Register a reduction; `rule` takes the data, `axis` and `keepdims`."""

    def function(data: Any, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        if not axes:
            axes = () if noop_with_empty_axes else tuple(range(rank(data)))
        axes = tuple(sorted(positive(axis, rank(data)) for axis in axes))
        return rule(data, axis=axes, keepdims=bool(keepdims))

    op(name)(function)


def _sum(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return cast(ops.sum(wide(x), axis=axis, keepdims=keepdims), dtype(x)) if axis else x


def _product(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return cast(ops.prod(wide(x), axis=axis, keepdims=keepdims), dtype(x)) if axis else x


def _mean(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    if not axis:
        return x
    if "float" in dtype(x):
        return cast(ops.mean(precise(x), axis=axis, keepdims=keepdims), dtype(x))
    return cast(ops.mean(cast(x, "float64"), axis=axis, keepdims=keepdims), dtype(x))


def _extreme(function: Rule, on_booleans: Rule, bound: Callable[[str], Any]) -> Rule:
    def rule(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        if not axis:
            return x
        if is_bool(x):
            return on_booleans(x, axis=axis, keepdims=keepdims)
        if 0 in sizes(x):
            # Keras refuses it, also where the result has no elements. A sum of none has the result's shape.
            return ops.full_like(ops.sum(x, axis=axis, keepdims=keepdims), bound(dtype(x)), dtype=dtype(x))
        return in_wide(lambda data: function(data, axis=axis, keepdims=keepdims), x)

    return rule


def _lowest(name: str) -> Any:
    return -float("inf") if "float" in name else int(np.iinfo(name).min)


def _highest(name: str) -> Any:
    return float("inf") if "float" in name else int(np.iinfo(name).max)


def _floating(rule: Rule) -> Rule:
    """A rule that computes on floats, for integers too."""

    def function(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
        return cast(rule(precise(x) if "float" in dtype(x) else cast(x, "float64"), axis, keepdims), dtype(x))

    return function


def _logsumexp(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    if not axis:
        return x
    if any(sizes(x)[each] == 0 for each in axis):
        return ops.log(ops.sum(ops.exp(x), axis=axis, keepdims=keepdims))
    return ops.logsumexp(x, axis=axis, keepdims=keepdims)


_reduction("ReduceSum", _sum)
_reduction("ReduceProd", _product)
_reduction("ReduceMean", _mean)
_reduction("ReduceMax", _extreme(ops.max, ops.any, _lowest))
_reduction("ReduceMin", _extreme(ops.min, ops.all, _highest))
_reduction("ReduceL1", lambda x, axis, keepdims: _sum(in_wide(ops.abs, x), axis, keepdims))
_reduction("ReduceL2", _floating(lambda x, axis, keepdims: ops.sqrt(_sum(ops.square(x), axis, keepdims))))
_reduction("ReduceSumSquare", lambda x, axis, keepdims: _sum(in_wide(ops.square, x), axis, keepdims))
_reduction("ReduceLogSum", _floating(lambda x, axis, keepdims: ops.log(_sum(x, axis, keepdims))))
_reduction("ReduceLogSumExp", _floating(_logsumexp))


def _arg(function: Rule, data: Any, axis: int, keepdims: int, select_last_index: int) -> Any:
    data = wide(data)
    if not select_last_index:
        found = function(data, axis=axis, keepdims=bool(keepdims))
        return cast(found, "int64")
    last = size(data, axis) - 1
    found = function(ops.flip(data, axis=positive(axis, rank(data))), axis=axis, keepdims=bool(keepdims))
    return ops.subtract(last, cast(found, "int64"))


@op("ArgMax")
def argmax(data: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return _arg(ops.argmax, data, axis, keepdims, select_last_index)


@op("ArgMin")
def argmin(data: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return _arg(ops.argmin, data, axis, keepdims, select_last_index)
