"""Choosing elements where how many are chosen depends on values."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic, lengths, rank, scalar, shape, wide


@dynamic("Gather")
def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    indices = tf.cast(indices, tf.int64)
    return tf.gather(x, _wrapped(indices, shape(x)[axis]), axis=axis)


@dynamic("GatherElements")
def gather_elements(x: Any, indices: Any, *, axis: int = 0) -> Any:
    return tf.gather_nd(x, _along(x, indices, axis))


def _along(x: Any, indices: Any, axis: int) -> Any:
    """(*indices, axes): the place of every element that indices along one axis mean."""
    axis = axis % rank(x)
    places = tf.meshgrid(*(tf.range(n) for n in tf.unstack(shape(indices), rank(x))), indexing="ij")
    places[axis] = _wrapped(tf.cast(indices, tf.int64), shape(x)[axis])
    return tf.stack(places, -1)


def _wrapped(indices: Any, sizes: Any) -> Any:
    """Indices counted from the front."""
    return tf.where(indices < 0, indices + sizes, indices)


@dynamic("GatherND")
def gather_nd(x: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    sizes = shape(x)[batch_dims : batch_dims + indices.shape[-1]]
    return tf.gather_nd(x, _wrapped(tf.cast(indices, tf.int64), sizes), batch_dims=batch_dims)


@dynamic("ScatterElements", "Scatter")
def scatter_elements(x: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    return _scattered(x, _along(x, indices, axis), updates, reduction)


@dynamic("ScatterND")
def scatter_nd(x: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    sizes = shape(x)[: indices.shape[-1]]
    return _scattered(x, _wrapped(tf.cast(indices, tf.int64), sizes), updates, reduction)


def _scattered(x: Any, places: Any, updates: Any, reduction: str) -> Any:
    """A tensor with updates at places (..., indexed axes)."""
    data, new = (tf.cast(each, tf.int32) if each.dtype == tf.bool else wide(each) for each in (x, updates))
    if reduction == "mul":
        depth = places.shape[-1]
        sizes = shape(x)
        steps = tf.math.cumprod(sizes[:depth], exclusive=True, reverse=True)
        flat = tf.reshape(tf.reduce_sum(places * steps, -1), (-1,))
        rows = tf.reshape(new, tf.concat([shape(flat), sizes[depth:]], 0))
        factors = tf.math.unsorted_segment_prod(rows, flat, tf.reduce_prod(sizes[:depth]))
        return tf.cast(data * tf.reshape(factors, sizes), x.dtype)
    scatter = {
        "none": tf.tensor_scatter_nd_update,
        "add": tf.tensor_scatter_nd_add,
        "min": tf.tensor_scatter_nd_min,
        "max": tf.tensor_scatter_nd_max,
    }[reduction]
    return tf.cast(scatter(data, places, new), x.dtype)


@dynamic("OneHot")
def one_hot(indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    depth = tf.cast(scalar(depth), tf.int64)
    axis = axis % (rank(indices) + 1)
    places = tf.cast(indices, tf.int64)
    places = tf.expand_dims(_wrapped(places, depth), axis)
    steps = tf.reshape(tf.range(depth), [-1 if i == axis else 1 for i in range(rank(indices) + 1)])
    return tf.where(places == steps, values[1], values[0])


@dynamic("TopK")
def top_k(x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    axis = axis % rank(x)
    order = [i for i in range(rank(x)) if i != axis] + [axis]
    back = [int(i) for i in np.argsort(order)]
    data = tf.transpose(_signed(x), order)
    # The smallest are the largest of the complement: it does not overflow as the negative would.
    flip = (lambda v: v) if largest else tf.negative if data.dtype.is_floating else lambda v: -1 - v
    places = tf.math.top_k(flip(data), tf.cast(scalar(k), tf.int32), sorted=bool(sorted)).indices
    values = tf.gather(tf.transpose(x, order), places, batch_dims=rank(x) - 1)
    return tf.transpose(values, back), tf.cast(tf.transpose(places, back), tf.int64)


def _signed(x: Any) -> Any:
    """A tensor in a dtype that has an order in TensorFlow, in which its elements stand in the same order."""
    if x.dtype == tf.uint64:
        return tf.bitcast(tf.bitwise.bitwise_xor(x, tf.constant(1 << 63, tf.uint64)), tf.int64)
    return wide(x)


@dynamic("NonZero")
def nonzero(x: Any) -> Any:
    return tf.transpose(tf.where(x if x.dtype == tf.bool else tf.not_equal(x, tf.zeros((), x.dtype))))


@dynamic("Compress")
def compress(x: Any, condition: Any, *, axis: int | None = None) -> Any:
    kept = tf.where(condition)[:, 0]
    return tf.gather(tf.reshape(x, (-1,)), kept) if axis is None else tf.gather(x, kept, axis=axis)


@dynamic("Unique")
def unique(x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    data = tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
    data = tf.reshape(data, (-1,)) if axis is None else data
    along = axis or 0
    values, inverse, counts = tf.raw_ops.UniqueWithCountsV2(x=data, axis=[along], out_idx=tf.int64)
    total = shape(counts)[0]
    first = tf.math.unsorted_segment_min(tf.range(tf.size(inverse, tf.int64)), inverse, total)
    if sorted:
        order = _lexical(tf.reshape(tf.experimental.numpy.moveaxis(values, along, 0), (total, -1)))
        values = tf.gather(values, order, axis=along)
        first, counts = tf.gather(first, order), tf.gather(counts, order)
        inverse = tf.gather(tf.argsort(order), inverse)
    return tf.cast(values, x.dtype), first, tf.cast(inverse, tf.int64), counts


def _lexical(rows: Any) -> Any:
    """The order of the rows of a matrix, by their first element, then the second and so on."""

    def by_column(column: Any, order: Any) -> Any:
        keys = tf.gather(_signed(rows)[:, column], order)
        return column - 1, tf.gather(order, tf.argsort(keys, stable=True))

    order = tf.range(shape(rows)[0])
    start = tf.shape(rows)[1] - 1
    return tf.while_loop(lambda column, _: column >= 0, by_column, (start, order))[1]


@dynamic("NonMaxSuppression")
def non_max_suppression(
    boxes: Any, scores: Any, most: Any = None, overlap: Any = None, least: Any = None, *, center_point_box: int = 0
) -> Any:
    if center_point_box:
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = tf.concat([centre - half, centre + half], -1)
    limit = tf.constant(0) if most is None else tf.cast(scalar(most), tf.int32)
    allowed = tf.constant(0.0) if overlap is None else tf.cast(scalar(overlap), tf.float32)
    floor = tf.constant(-np.inf, tf.float32) if least is None else tf.cast(scalar(least), tf.float32)
    classes = tf.cast(shape(scores)[1], tf.int32)

    def add(index: Any, found: Any) -> Any:
        batch, label = index // classes, index % classes
        kept = tf.image.non_max_suppression(boxes[batch], scores[batch, label], limit, allowed, floor)
        place = tf.cast(tf.stack([batch, label]), tf.int64)
        rows = tf.concat([tf.broadcast_to(place, (tf.size(kept), 2)), tf.cast(kept, tf.int64)[:, None]], 1)
        return index + 1, tf.concat([found, rows], 0)

    count = tf.cast(shape(scores)[0], tf.int32) * classes
    start = (tf.constant(0), tf.zeros((0, 3), tf.int64))
    shapes = (tf.TensorShape(()), tf.TensorShape((None, 3)))
    return tf.while_loop(lambda index, _: index < count, add, start, shape_invariants=shapes)[1]


@dynamic("MaxUnpool")
def max_unpool(
    x: Any,
    places: Any,
    output_shape: Any = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Any:
    count = len(kernel_shape)
    strides, pads = strides or (1,) * count, pads or (0,) * 2 * count
    batch, channels, *own = lengths(x)
    inner = [(n - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[count + i] for i, n in enumerate(own)]
    natural = tf.stack([tf.cast(n, tf.int64) for n in (batch, channels, *inner)])
    flat = tf.scatter_nd(tf.reshape(places, (-1, 1)), tf.reshape(x, (-1,)), tf.reduce_prod(natural)[None])
    result = tf.reshape(flat, natural)
    if output_shape is None:
        return result
    return tf.pad(result, tf.stack([tf.zeros_like(natural), output_shape - natural], 1))
