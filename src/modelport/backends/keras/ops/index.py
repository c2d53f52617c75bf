"""Gathering, scattering and choosing elements by index."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.registry import Ints, NeedsValues, Sizes, op
from modelport.backends.keras.ops.tensors import (
    along,
    cast,
    chosen,
    dtype,
    part,
    plus,
    positive,
    rank,
    size,
    sizes,
    wide,
    zeros_along,
)


def length(x: Any, axis: int) -> Any:
    """The size of an axis: an `int`, or a scalar tensor where it is not static."""
    own = sizes(x)[axis]
    if own is not None:
        return own
    return ops.sum(plus(zeros_along(x, axis), 1))


def counting(x: Any, axis: int) -> Any:
    """0, 1, 2 ... along an axis of a tensor, shaped so that it broadcasts."""
    own = sizes(x)[axis]
    if own is not None:
        return along(np.arange(own), axis, rank(x))
    return along(ops.subtract(ops.cumsum(plus(zeros_along(x, axis), 1)), 1), axis, rank(x))


def wrapped(indices: Any, bound: Any) -> Any:
    """Indices with negative ones counted from the end."""
    indices = cast(indices, "int64")
    if isinstance(indices, np.ndarray) and isinstance(bound, int):
        return np.where(indices < 0, indices + bound, indices)
    return ops.where(ops.less(indices, 0), plus(indices, bound), indices)


@op("Gather")
def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    axis = positive(axis, rank(x))
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return x[(*[slice(None)] * axis, int(indices))]
    return ops.take(x, wrapped(indices, length(x, axis)), axis=axis)


@op("GatherElements")
def gather_elements(x: Any, indices: Any, *, axis: int = 0) -> Any:
    if 0 in sizes(indices):
        return cast(ops.zeros_like(indices), dtype(x))
    axis = positive(axis, rank(x))
    indices = wrapped(indices, length(x, axis))
    # The other axes of the indices may be shorter than the data's.
    for other in range(rank(x)):
        if other != axis and sizes(indices)[other] != sizes(x)[other]:
            x = part(x, other, 0, size(indices, other))
    return ops.take_along_axis(x, indices, axis=axis)


@op("GatherND")
def gather_nd(x: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    depth = size(indices, -1)
    count = batch_dims + depth
    flat: Any = None
    for axis in range(count):
        if axis < batch_dims:
            place = counting(part(indices, -1, 0, 1), axis)[..., 0]
        else:
            place = wrapped(indices[..., axis - batch_dims], length(x, axis))
        flat = place if flat is None else plus(ops.multiply(flat, length(x, axis)), place)
    rows = ops.reshape(x, (-1, *(size(x, axis) for axis in range(count, rank(x)))))
    return ops.take(rows, flat, axis=0)


_REDUCTIONS = {"none": None, "add": "add", "mul": "mul", "max": "max", "min": "min"}


@op("ScatterND")
def scatter_nd(x: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    bounds = [length(x, axis) for axis in range(size(indices, -1))]
    places = ops.stack([wrapped(indices[..., i], bound) for i, bound in enumerate(bounds)], axis=-1)
    return scattered(x, places, updates, reduction)


def scattered(x: Any, places: Any, updates: Any, reduction: str) -> Any:
    """A tensor with updates at places (..., indexed axes)."""
    if 0 in sizes(x):
        return x
    carried = "int32" if dtype(x) == "bool" else dtype(wide(x))
    data, updates = cast(x, carried), cast(updates, carried)
    depth = size(places, -1)
    unknown = [axis for axis in range(depth, rank(x)) if sizes(x)[axis] is None]
    if unknown:
        # TensorFlow refuses to change nothing: an axis that may be empty is made longer for a while.
        widths = [(0, int(axis in unknown)) for axis in range(rank(x))]
        data = ops.pad(data, widths)
        updates = ops.pad(updates, [(0, 0)] * (rank(updates) - rank(x) + depth) + widths[depth:])
    result = ops.scatter_update(data, places, updates, reduction=_REDUCTIONS[reduction])
    for axis in unknown:
        result = part(result, axis, 0, -1)
    return cast(result, dtype(x))


@op("ScatterElements", "Scatter")
def scatter_elements(x: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    axis = positive(axis, rank(x))
    indices = wrapped(indices, length(x, axis))
    zeros = ops.zeros_like(indices)
    places = [indices if i == axis else plus(counting(indices, i), zeros) for i in range(rank(x))]
    places = ops.reshape(ops.stack(places, axis=-1), (-1, rank(x)))
    return scattered(x, places, ops.reshape(updates, (-1,)), reduction)


@op("OneHot")
def one_hot(indices: Any, depth: Ints, values: Any, *, axis: int = -1) -> Any:
    axis = positive(axis, rank(indices) + 1)
    places = wrapped(cast(indices, "int64"), int(depth[0]))
    hit = ops.equal(ops.expand_dims(places, axis), along(np.arange(int(depth[0])), axis, rank(indices) + 1))
    off, on = values[0], values[1]
    return cast(ops.where(hit, wide(on), wide(off)), dtype(values))


@op("TopK")
def top_k(x: Any, k: Sizes, *, axis: int = -1, largest: int = 1, sorted: int = 1, site: Any = None) -> Any:
    axis = positive(axis, rank(x))
    if not isinstance(k[0], int) and (site is None or not site.has_size(k[0], axis)):
        raise NeedsValues("how many elements it takes depends on values")
    last = axis == rank(x) - 1
    data = wide(x) if last else ops.swapaxes(wide(x), axis, -1)
    # The smallest are the largest of the complement: it does not overflow as the negative would.
    flip = (lambda v: v) if largest else (ops.negative if "float" in dtype(x) else lambda v: ops.subtract(-1, v))
    if isinstance(k[0], int):
        values, places = ops.top_k(flip(data), int(k[0]), sorted=bool(sorted))
        values, places = flip(values), cast(places, "int64")
    else:
        # All of them: Keras sorts an axis of any length.
        order = ops.argsort(
            data if not largest else ops.negative(data) if "float" in dtype(x) else ops.subtract(-1, data)
        )
        values, places = ops.take_along_axis(data, order, axis=-1), cast(order, "int64")
    if not last:
        values, places = ops.swapaxes(values, axis, -1), ops.swapaxes(places, axis, -1)
    return cast(values, dtype(x)), places


@op("TensorScatter")
def tensor_scatter(past: Any, update: Any, places: Any = None, *, axis: int = -2, mode: str = "linear") -> Any:
    axis = positive(axis, rank(past))
    total, count = size(past, axis), size(update, axis)
    steps = along(np.arange(total), axis, rank(past))
    if places is not None:
        steps = ops.subtract(steps, along(cast(places, "int64"), 0, rank(past)))
    if mode == "circular":
        steps = ops.mod(steps, total)
    inside = ops.logical_and(ops.greater_equal(steps, 0), ops.less(steps, count))
    found = ops.take_along_axis(update, ops.clip(steps, 0, count - 1), axis=axis)
    return chosen(inside, found, past)


@op("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(x: Any, indices: Any) -> Any:
    return ops.take(ops.reshape(x, (-1, size(x, -1))), ops.reshape(cast(indices, "int64"), (-1,)), axis=-1)


@op("MaxUnpool")
def max_unpool(
    x: Any,
    places: Any,
    output_shape: Ints | None = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Any:
    count = len(kernel_shape)
    strides, pads = strides or (1,) * count, pads or (0,) * 2 * count
    inner = [(size(x, 2 + i) - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[count + i] for i in range(count)]
    natural = (size(x, 0), size(x, 1), *inner)
    flat = ops.scatter(ops.reshape(places, (-1, 1)), ops.reshape(x, (-1,)), (math.prod(natural),))
    result = ops.reshape(flat, natural)
    if output_shape is None:
        return result
    return ops.pad(result, [(0, target - own) for target, own in zip(output_shape, natural, strict=True)])
