"""Shapes: reshaping, moving and joining axes, slicing, padding, and tensors made from sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.index import counting
from modelport.backends.keras.ops.registry import Array, CannotBuild, Ints, NeedsValues, Sizes, op, spatial
from modelport.backends.keras.ops.tensors import (
    cast,
    chosen,
    dtype,
    joined,
    keras_dtype,
    part,
    plus,
    positive,
    rank,
    size,
    sizes,
    static,
    wide,
)

_FAR = 2**31 - 1


def known(values: Sizes) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def reshaped(x: Any, target: Sizes, site: Any) -> Any:
    """A tensor in another shape; more than one size may be unknown only where `site` can tell them."""
    unknown = [axis for axis, value in enumerate(target) if not isinstance(value, int)]
    if len(unknown) > 1 or (unknown and -1 in target):
        if site is None:
            raise NeedsValues("more than one size is not static")
        return site.reshape(x, target)
    if None not in sizes(x) and -1 in target and 0 not in target:
        rest = -math.prod(target)
        target = tuple(math.prod(static(x)) // rest if value == -1 else value for value in target)
    return ops.reshape(x, tuple(value if isinstance(value, int) else -1 for value in target))


@op("Reshape")
def reshape(x: Any, shape: Sizes, *, allowzero: int = 0, site: Any = None) -> Any:
    target = [
        _copied(x, axis, value, site) if value == 0 and not allowzero else value for axis, value in enumerate(shape)
    ]
    if site is not None and -1 in target and not known(tuple(target)):
        target = list(site.output_dims())
    return reshaped(x, tuple(target), site)


def _copied(x: Any, axis: int, value: int, site: Any) -> Any:
    """The size that a 0 in a shape stands for."""
    own = sizes(x)[axis]
    if own is not None:
        return own
    return site.dims(0)[axis] if site is not None else value


@op("Flatten")
def flatten(x: Any, *, axis: int = 1, site: Any = None) -> Any:
    axis = positive(axis, rank(x))
    head, tail = sizes(x)[:axis], sizes(x)[axis:]
    if None not in tail:
        return ops.reshape(x, (math.prod(head) if None not in head else -1, math.prod(tail)))  # type: ignore[arg-type]
    if None not in head:
        return ops.reshape(x, (math.prod(head), -1))  # type: ignore[arg-type]
    return reshaped(x, site.output_dims() if site is not None else (None, None), site)


@op("Transpose")
def transpose(x: Any, *, perm: tuple[int, ...] | None = None) -> Any:
    return ops.transpose(x, tuple(perm) if perm is not None else tuple(reversed(range(rank(x)))))


@op("Squeeze")
def squeeze(x: Any, axes: Ints | None = None) -> Any:
    if axes is None:
        axes = tuple(axis for axis, n in enumerate(sizes(x)) if n == 1)
    gone = {positive(axis, rank(x)) for axis in axes}
    if not gone:
        return x
    if all(sizes(x)[axis] == 1 for axis in gone):
        return ops.squeeze(x, axis=tuple(sorted(gone)))
    return x[tuple(0 if axis in gone else slice(None) for axis in range(rank(x)))]


@op("Unsqueeze")
def unsqueeze(x: Any, axes: Ints) -> Any:
    count = rank(x) + len(axes)
    for axis in sorted(positive(axis, count) for axis in axes):
        x = ops.expand_dims(x, axis)
    return x


@op("Concat")
def concat(*xs: Any, axis: int) -> Any:
    return joined(xs, axis) if len(xs) > 1 else xs[0]


@op("Split")
def split(
    x: Any, lengths: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int = 1
) -> Any:
    if lengths is None:
        count, total = num_outputs or outputs, size(x, axis)
        chunk = -(-total // count)
        lengths = tuple(max(min(chunk, total - i * chunk), 0) for i in range(count))
    if len(lengths) == 1:
        return (x,)
    return tuple(ops.split(x, [int(n) for n in np.cumsum(lengths[:-1])], axis=positive(axis, rank(x))))


@op("Slice")
def slice_(
    x: Any, starts: Sizes, ends: Sizes, axes: Ints | None = None, steps: Ints | None = None, *, site: Any = None
) -> Any:
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(axes) if steps is None else steps
    key: list[Any] = [slice(None)] * rank(x)
    ranges = []
    for axis, start, stop, step in zip((positive(a, rank(x)) for a in axes), starts, ends, steps, strict=True):
        if site is not None and not known((start, stop)):
            bounds = site.bounds(axis, start, stop)
            if bounds is None:
                ranges.append((axis, start, stop, step))
                continue
            start, stop = bounds
        key[axis] = _slice(sizes(x)[axis], start, stop, step)
    if any(each != slice(None) for each in key):
        x = x[tuple(key)]
    for axis, start, stop, step in ranges:
        x = site.take_range(x, axis, start, stop, step)
    return x


def _slice(length: int | None, start: int | None, stop: int | None, step: int) -> slice:
    """ONNX's clamped start and end as Python's."""
    if length is not None:
        first, last, _ = slice(start, stop, step).indices(length)
        if step < 0 and stop is not None and stop < -length:
            last = -1
        whole = (first, last, step) == (0, length, 1)
        return slice(None) if whole else slice(first, None if last < 0 else last, None if step == 1 else step)
    if step < 0:
        start = None if start is not None and start >= _FAR else start
        stop = None if stop is not None and stop <= -_FAR else stop
    else:
        start = None if start == 0 else start
        stop = None if stop is not None and stop >= _FAR else stop
    return slice(start, stop, None if step == 1 else step)


@op("Expand")
def expand(x: Any, shape: Sizes, *, site: Any = None) -> Any:
    missing = len(shape) - rank(x)
    for _ in range(missing):
        x = ops.expand_dims(x, 0)
    target = (1,) * -missing + tuple(shape) if missing < 0 else tuple(shape)
    if known(target) and None not in sizes(x):
        shape_now = np.broadcast_shapes(static(x), target)
        return x if shape_now == static(x) else ops.broadcast_to(x, shape_now)
    if site is None:
        raise NeedsValues("a size is not static")
    return site.expand(x, target, missing)


@op("Tile")
def tile(x: Any, repeats: Sizes, *, site: Any = None) -> Any:
    if site is None and not known(repeats):
        raise NeedsValues("a size is not static")
    counts = tuple(n if isinstance(n, int) else 1 for n in repeats)
    tiled = ops.tile(x, counts) if any(n != 1 for n in counts) else x
    for axis, count in enumerate(repeats):
        if not isinstance(count, int):
            tiled = site.repeat(tiled, axis, count)
    return tiled


@op("Shape")
def shape(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    return np.array(static(x)[slice(start, end)], np.int64)


@op("Size")
def size_(x: Any) -> Any:
    return np.array(math.prod(static(x)), np.int64)


@op("ConstantOfShape")
def constant_of_shape(shape: Sizes, *, value: Any = None, site: Any = None) -> Any:
    fill = np.zeros((), np.float32) if value is None else np.asarray(value).reshape(())
    if known(shape):
        return np.full(shape, fill)
    if site is None:
        raise NeedsValues("a size is not static")
    return site.full(shape, fill)


@op("Range")
def range_(start: Sizes, limit: Sizes, delta: Sizes, *, site: Any = None, result: str = "int64") -> Any:
    (first,), (last,), (step,) = start, limit, delta
    if known((first, last, step)):
        count = max(math.ceil((last - first) / step), 0)
        return (first + step * np.arange(count)).astype(result)
    if site is None:
        raise NeedsValues("a bound is not static")
    return site.arange(first, last, step, result)


@op("EyeLike")
def eye_like(x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    rows, columns = static(x)
    name = keras_dtype(dtype) if dtype is not None else str(x.dtype)
    return np.eye(rows, columns, k).astype(name)


@op("Trilu")
def trilu(x: Any, k: Ints | None = None, *, upper: int = 1) -> Any:
    diagonal = k[0] if k else 0
    rows, columns = counting(x, rank(x) - 2), counting(x, rank(x) - 1)
    fixed = isinstance(rows, np.ndarray) and isinstance(columns, np.ndarray)
    distance = columns - rows if fixed else ops.subtract(columns, rows)
    mask = distance >= diagonal if upper else distance <= diagonal
    return ops.logical_and(x, mask) if dtype(x) == "bool" else chosen(mask, x, ops.zeros_like(x))


@op("Pad")
def pad(
    x: Any,
    pads: Sizes,
    value: Array | None = None,
    axes: Ints | None = None,
    *,
    mode: str = "constant",
    site: Any = None,
) -> Any:
    if not known(pads):
        if site is None or mode not in ("constant", "edge"):
            raise NeedsValues("a width is not static")
        return site.pad(x, pads, axes, None if mode == "edge" else 0 if value is None else value.reshape(()).item())
    widths = [(0, 0)] * rank(x)
    axes = tuple(range(rank(x))) if axes is None else axes
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        widths[axis] = (before, after)
    for axis, (before, after) in enumerate(widths):
        if before < 0 or after < 0:
            x = part(x, axis, -min(before, 0), min(after, 0) or None)
    widths = [(max(before, 0), max(after, 0)) for before, after in widths]
    if not any(map(any, widths)):
        return x
    if mode == "constant":
        return padded(x, widths, 0 if value is None else value.reshape(()).item())
    for axis, width in enumerate(widths):
        if any(width):
            x = _padded_by_copies(x, axis, width, mode)
    return x


def padded(x: Any, widths: Any, value: Any = 0) -> Any:
    """A tensor with a constant around it."""
    if not any(map(any, widths)):
        return x
    if dtype(x) == "bool":
        return cast(ops.pad(cast(x, "int32"), widths, constant_values=int(value)), "bool")
    return cast(ops.pad(wide(x), widths, constant_values=value), dtype(x))


def _padded_by_copies(x: Any, axis: int, width: tuple[int, int], mode: str) -> Any:
    length = sizes(x)[axis]
    if length is not None:
        return ops.take(x, np.pad(np.arange(length), width, mode), axis=axis)  # type: ignore[call-overload]
    before, after = width
    if mode == "reflect" and 0 in sizes(x):
        # TensorFlow refuses to reflect where another axis is empty.
        first = ops.flip(part(x, axis, 1, before + 1), axis=axis)
        last = ops.flip(part(x, axis, -1 - after, -1), axis=axis)
    elif mode == "reflect":
        return ops.pad(x, [width if i == axis else (0, 0) for i in range(rank(x))], mode="reflect")
    elif mode == "wrap":
        first, last = part(x, axis, -before, None), part(x, axis, 0, after)
    else:
        first = ops.repeat(part(x, axis, 0, 1), before, axis=axis)
        last = ops.repeat(part(x, axis, -1, None), after, axis=axis)
    return joined([*[first] * (before > 0), x, *[last] * (after > 0)], axis)


@op("CenterCropPad")
def center_crop_pad(x: Any, shape: Ints, *, axes: tuple[int, ...] | None = None) -> Any:
    widths = [(0, 0)] * rank(x)
    for axis, target in zip(range(rank(x)) if axes is None else axes, shape, strict=True):
        extra = size(x, axis) - target
        if extra > 0:
            x = part(x, axis, extra // 2, extra // 2 + target)
        elif extra < 0:
            widths[axis] = (-extra // 2, -extra - -extra // 2)
    return padded(x, widths)


@spatial("DepthToSpace")
def depth_to_space(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    if mode == "CRD":
        depth = size(x, -1) // blocksize**2
        x = ops.take(x, np.arange(depth * blocksize**2).reshape(depth, -1).T.ravel(), axis=-1)
    return ops.nn.depth_to_space(x, blocksize, data_format="channels_last")


@spatial("SpaceToDepth")
def space_to_depth(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    result = ops.nn.space_to_depth(x, blocksize, data_format="channels_last")
    if mode == "CRD":
        depth = size(x, -1)
        return ops.take(result, np.arange(depth * blocksize**2).reshape(-1, depth).T.ravel(), axis=-1)
    return result


@op("ReverseSequence")
def reverse_sequence(x: Any, lengths: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    if {batch_axis, time_axis} != {0, 1}:
        raise CannotBuild("time_axis and batch_axis must be 0 and 1")
    steps = np.arange(size(x, time_axis)).reshape((-1, 1) if time_axis == 0 else (1, -1))
    ends = ops.expand_dims(cast(lengths, "int64"), time_axis)
    places = ops.where(
        ops.less(steps, ends), ops.subtract(ops.subtract(ends, 1), steps), plus(steps, ops.zeros_like(ends))
    )
    for _ in range(rank(x) - 2):
        places = ops.expand_dims(places, -1)
    return ops.take_along_axis(x, places, axis=time_axis)
