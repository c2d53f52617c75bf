"""Shapes that only the run tells: reshaping, slicing, padding, and tensors made from sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelport.backends.keras.border import carrier_array
from modelport.backends.keras.dynamic.table import axes_of, dynamic, lengths, rank, ranks, scalar, shape, wide


@dynamic("Constant")
def constant(*, result: Any, **values: Any) -> Any:
    ((name, value),) = values.items()
    kind = tf.int64 if name.startswith("value_int") else tf.float32 if name.startswith("value_float") else result
    return tf.constant(carrier_array(value) if name == "value" else value, kind)


@dynamic("Shape")
def shape_(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    return shape(x)[start:end]


@dynamic("Size")
def size(x: Any) -> Any:
    return tf.size(x, out_type=tf.int64)


@dynamic("Reshape")
def reshape(x: Any, target: Any, *, allowzero: int = 0) -> Any:
    if not allowzero:
        own = tf.concat([shape(x), tf.ones_like(target)], 0)[: tf.size(target)]
        target = tf.where(target == 0, own, target)
    return tf.reshape(x, target)


@dynamic("Flatten")
def flatten(x: Any, *, axis: int = 1) -> Any:
    sizes = shape(x)
    return tf.reshape(x, (tf.reduce_prod(sizes[:axis]), tf.reduce_prod(sizes[axis:])))


@dynamic("Transpose")
def transpose(x: Any, *, perm: Sequence[int] | None = None) -> Any:
    return tf.transpose(x, perm)


@dynamic("Squeeze")
def squeeze(x: Any, axes: Any = None) -> Any:
    sizes = shape(x)
    if axes is None:
        return tf.reshape(x, tf.boolean_mask(sizes, sizes != 1))
    gone = _is_among(axes_of(axes, ranks(x)), tf.size(sizes))
    return tf.reshape(x, tf.boolean_mask(sizes, tf.logical_not(gone)))


@dynamic("Unsqueeze")
def unsqueeze(x: Any, axes: Any) -> Any:
    count = tf.rank(x) + tf.size(axes)
    new = _is_among(axes_of(axes, count), count)
    # Where an old axis comes in the new order.
    place = tf.maximum(tf.cumsum(tf.cast(tf.logical_not(new), tf.int64)) - 1, 0)
    own = tf.gather(tf.concat([shape(x), [1]], 0), place)
    return tf.reshape(x, tf.where(new, tf.ones_like(own), own))


def _is_among(axes: Any, count: Any) -> Any:
    """For each of `count` axes whether it is one of some."""
    return tf.reduce_any(tf.range(tf.cast(count, tf.int64))[:, None] == axes[None, :], axis=1)


@dynamic("Concat")
def concat(*xs: Any, axis: int) -> Any:
    return tf.concat(xs, axis)


@dynamic("Split")
def split(
    x: Any, sizes: Any = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int = 1
) -> tuple[Any, ...]:
    if sizes is None:
        count, total = num_outputs or outputs, shape(x)[axis]
        chunk = -(-total // count)
        sizes = tf.stack([tf.clip_by_value(total - i * chunk, 0, chunk) for i in range(count)])
    return tuple(tf.split(x, sizes, axis, num=outputs))


@dynamic("Slice")
def slice_(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    sizes = shape(x)
    count = tf.size(sizes)
    starts, ends = (tf.cast(bound, tf.int64) for bound in (starts, ends))
    axes = tf.range(tf.size(starts, out_type=tf.int64)) if axes is None else axes_of(axes, count)
    steps = tf.ones_like(starts) if steps is None else tf.cast(steps, tf.int64)
    own = tf.gather(sizes, axes)
    back = steps < 0
    last = tf.where(back, own - 1, own)
    starts = tf.clip_by_value(tf.where(starts < 0, starts + own, starts), 0, last)
    ends = tf.clip_by_value(tf.where(ends < 0, ends + own, ends), tf.where(back, tf.constant(-1, tf.int64), 0), last)
    # An end before the first element is counted from the back: -1 would be the last one.
    ends = tf.where(ends < 0, -own - 1, ends)
    places = axes[:, None]
    begin = tf.tensor_scatter_nd_update(tf.zeros_like(sizes), places, starts)
    end = tf.tensor_scatter_nd_update(sizes, places, ends)
    stride = tf.tensor_scatter_nd_update(tf.ones_like(sizes), places, steps)
    return tf.strided_slice(x, begin, end, stride)


@dynamic("Expand")
def expand(x: Any, target: Any) -> Any:
    return tf.broadcast_to(x, tf.broadcast_dynamic_shape(shape(x), tf.cast(target, tf.int64)))


@dynamic("Tile")
def tile(x: Any, repeats: Any) -> Any:
    return tf.tile(x, repeats)


@dynamic("ConstantOfShape")
def constant_of_shape(sizes: Any, *, value: Any = None) -> Any:
    return tf.fill(sizes, np.zeros((), np.float32) if value is None else np.asarray(value).reshape(()))


@dynamic("Range")
def range_(start: Any, limit: Any, delta: Any) -> Any:
    start, limit, delta = (scalar(each) for each in (start, limit, delta))
    work = start.dtype if start.dtype in (tf.float64, tf.int64) else tf.float32 if start.dtype.is_floating else tf.int64
    first, last, step = (tf.cast(each, work) for each in (start, limit, delta))
    span = last - first
    count = tf.cast(tf.math.ceil(span / step), tf.int64) if work.is_floating else -(-span // step)
    return tf.cast(first + step * tf.cast(tf.range(tf.maximum(count, 0)), work), start.dtype)


@dynamic("EyeLike")
def eye_like(x: Any, *, dtype: int | None = None, k: int = 0, result: Any = None) -> Any:
    rows, columns = lengths(x)
    return tf.cast(_diagonals(rows, columns) == k, result)


def _diagonals(rows: Any, columns: Any) -> Any:
    """(rows, columns): on which diagonal each element lies."""
    return tf.range(tf.cast(columns, tf.int64))[None, :] - tf.range(tf.cast(rows, tf.int64))[:, None]


@dynamic("Trilu")
def trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    diagonal = tf.constant(0, tf.int64) if k is None else scalar(k)
    sizes = shape(x)
    lies = _diagonals(sizes[-2], sizes[-1])
    return tf.where(lies >= diagonal if upper else lies <= diagonal, x, tf.zeros_like(x))


@dynamic("Pad")
def pad(x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    count = tf.rank(x)
    axes = tf.range(tf.cast(count, tf.int64)) if axes is None else axes_of(axes, count)
    widths = tf.transpose(tf.reshape(tf.cast(pads, tf.int64), (2, -1)))
    widths = tf.tensor_scatter_nd_update(tf.zeros((count, 2), tf.int64), axes[:, None], widths)
    if mode != "constant":
        for axis in range(rank(x)):
            x = tf.gather(x, _copied(lengths(x)[axis], widths[axis, 0], widths[axis, 1], mode), axis=axis)
        return x
    x = tf.slice(x, tf.maximum(-widths[:, 0], 0), shape(x) + tf.reduce_sum(tf.minimum(widths, 0), 1))
    return padded(x, tf.maximum(widths, 0), value)


def padded(x: Any, widths: Any, value: Any = None) -> Any:
    """A tensor with a constant around it."""
    data = tf.cast(x, tf.int32) if x.dtype == tf.bool else wide(x)
    fill = tf.zeros((), data.dtype) if value is None else tf.cast(scalar(value), data.dtype)
    return tf.cast(tf.pad(data, widths, constant_values=fill), x.dtype)


def _copied(length: Any, before: Any, after: Any, mode: str) -> Any:
    """Which element of an axis stands at every place of the padded one."""
    length = tf.cast(length, tf.int64)
    place = tf.range(-before, length + after)
    if mode == "edge":
        return tf.clip_by_value(place, 0, length - 1)
    if mode == "wrap":
        return place % length
    period = tf.maximum(2 * (length - 1), 1)
    folded = place % period
    return tf.minimum(folded, period - folded)


@dynamic("CenterCropPad")
def center_crop_pad(x: Any, target: Any, *, axes: Sequence[int] | None = None) -> Any:
    own = shape(x)
    target = tf.cast(target, tf.int64)
    if axes is not None:
        target = tf.tensor_scatter_nd_update(own, axes_of(axes, ranks(x))[:, None], target)
    less, more = tf.maximum(own - target, 0), tf.maximum(target - own, 0)
    x = tf.slice(x, less // 2, own - less)
    return padded(x, tf.stack([more // 2, more - more // 2], axis=1))


@dynamic("Col2Im")
def col2im(
    x: Any,
    image_shape: Any,
    block_shape: Any,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    count = image_shape.shape[0] or len(dilations or strides or ()) or rank(x) - 1
    dilations, strides, pads = dilations or (1,) * count, strides or (1,) * count, pads or (0,) * 2 * count
    full = [image_shape[i] + pads[i] + pads[count + i] for i in range(count)]
    place = tf.zeros((1,) * 2 * count, tf.int64)
    for i, n in enumerate(full):
        block = tf.range(block_shape[i]) * dilations[i]
        steps = tf.range((n - dilations[i] * (block_shape[i] - 1) - 1) // strides[i] + 1) * strides[i]
        both = [1] * 2 * count
        both[i], both[count + i] = -1, tf.size(steps)
        place = place * n + tf.reshape(block[:, None] + steps[None, :], both)
    batch, inner = shape(x)[0], tf.reduce_prod(block_shape)
    columns = tf.transpose(tf.reshape(x, (batch * (shape(x)[1] // inner), -1)))
    image = tf.math.unsorted_segment_sum(columns, tf.reshape(place, (-1,)), tf.reduce_prod(tf.stack(full)))
    image = tf.reshape(tf.transpose(image), (batch, -1, *full))
    return tf.slice(image, (0, 0, *pads[:count]), tf.concat([shape(image)[:2], image_shape], 0))


@dynamic("CumSum")
def cumsum(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    return tf.cast(tf.cumsum(wide(x), scalar(axis), bool(exclusive), bool(reverse)), x.dtype)


@dynamic("CumProd")
def cumprod(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    return tf.cast(tf.math.cumprod(wide(x), scalar(axis), bool(exclusive), bool(reverse)), x.dtype)


@dynamic("ReverseSequence")
def reverse_sequence(x: Any, ends: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    return tf.reverse_sequence(x, ends, seq_axis=time_axis, batch_axis=batch_axis)
