"""Pooling over sizes that only the run tells."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic_spatial, precise, rank, shape
from modelport.backends.keras.ops.registry import OPS

Numbers = Sequence[int] | None


class Windows:
    """The windows of one pooling node, along every spatial axis of (batch, channels, *spatial).

    Attributes:
        lengths: of the axes.
        indices: (windows, elements) per axis: where the elements lie; outside the axis in the padding.
        pads: before and after every axis.
    """

    def __init__(
        self, x: Any, kernel: Sequence[int], strides: Numbers, dilations: Numbers, pads: Numbers, auto_pad: str,
        ceil_mode: int,
    ) -> None:  # fmt: skip
        count = len(kernel)
        sizes, given = shape(x), list(pads or (0,) * 2 * count)
        self.lengths = [sizes[2 + i] for i in range(count)]
        self.indices, self.pads = [], []
        for i, length in enumerate(self.lengths):
            step, apart = strides[i] if strides else 1, dilations[i] if dilations else 1
            span = (kernel[i] - 1) * apart + 1
            before, after = _pads(auto_pad, length, span, step, (given[i], given[count + i]))
            starts = tf.range(_windows(length, span, step, before, after, ceil_mode)) * step - before
            self.indices.append(starts[:, None] + tf.range(kernel[i], dtype=tf.int64) * apart)
            self.pads.append((before, after))

    def seen(self, x: Any) -> Any:
        """(batch, channels, *windows, elements): what every window sees, something arbitrary in the padding."""
        for axis in reversed(range(len(self.indices))):
            inside = tf.clip_by_value(self.indices[axis], 0, self.lengths[axis] - 1)
            x = tf.gather(x, inside, axis=2 + axis)
        return self._flat(x, 2)

    def inside(self, *, padded: bool = False) -> Any:
        """(*windows, elements): which elements lie in the data, or in the data with its padding."""
        found = []
        for index, length, (before, after) in zip(self.indices, self.lengths, self.pads, strict=True):
            low, high = (-before, length + after) if padded else (tf.zeros_like(length), length)
            found.append((index >= low) & (index < high))
        return self._flat(functools.reduce(tf.logical_and, self._crossed(found)), 0)

    def places(self, *, columns_first: bool) -> Any:
        """(*windows, elements): the flat places of the elements in one channel of the data."""
        axes = range(len(self.indices))
        pitch: Any = tf.constant(1, tf.int64)
        total: Any = tf.constant(0, tf.int64)
        crossed = self._crossed(self.indices)
        for axis in axes if columns_first else reversed(axes):
            total += crossed[axis] * pitch
            pitch *= self.lengths[axis]
        return self._flat(total, 0)

    def _crossed(self, parts: Sequence[Any]) -> list[Any]:
        """What there is for every axis, so shaped that it broadcasts to (windows, elements, windows, elements, ...)."""
        found = []
        for axis, part in enumerate(parts):
            around = [1] * 2 * len(parts)
            around[2 * axis : 2 * axis + 2] = tf.unstack(tf.shape(part))
            found.append(tf.reshape(part, around))
        return found

    def _flat(self, x: Any, first: int) -> Any:
        """Windows and elements of every axis by turns, from an axis on, as the windows and then all elements."""
        count = len(self.indices)
        windows = [first + 2 * axis for axis in range(count)]
        x = tf.transpose(x, (*range(first), *windows, *(axis + 1 for axis in windows)))
        elements = math.prod(index.shape[1] for index in self.indices)
        return tf.reshape(x, tf.concat([tf.shape(x)[: first + count], [elements]], 0))


def _pads(auto_pad: str, length: Any, span: int, step: int, given: tuple[int, int]) -> tuple[Any, Any]:
    """The padding before and after an axis."""
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        return tf.constant(given[0], tf.int64), tf.constant(given[1], tf.int64)
    total = tf.maximum((-(-length // step) - 1) * step + span - length, 0)
    small = total // 2
    return (small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small)


def _windows(length: Any, span: int, step: int, before: Any, after: Any, ceil_mode: int) -> Any:
    """How many windows an axis has."""
    rest = length + before + after - span
    if not ceil_mode:
        return rest // step + 1
    steps = -(-rest // step)
    # A window that would start in the padding after the data is left out.
    return tf.where(steps * step >= length + before, steps, steps + 1)


def _pooling(name: str) -> Callable[[Callable[..., Any]], None]:
    """Register what pools over any sizes; Keras' own operator does it over sizes that are known."""

    def register(function: Callable[..., Any]) -> None:
        plain = OPS["", name]

        def either(x: Any, **attributes: Any) -> Any:
            return (plain.function if x.shape.is_fully_defined() else function)(x, **attributes)

        dynamic_spatial(name)(functools.wraps(function)(either))

    return register


@_pooling("MaxPool")
def max_pool(
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Numbers = None,
    kernel_shape: Sequence[int],
    pads: Numbers = None,
    storage_order: int = 0,
    strides: Numbers = None,
    outputs: int = 1,
) -> Any:
    windows = Windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    least = -math.inf if x.dtype.is_floating else x.dtype.min
    seen = tf.where(windows.inside(), windows.seen(x), tf.cast(least, x.dtype))
    result = tf.reduce_max(seen, -1)
    if outputs == 1:
        return result
    places = windows.places(columns_first=bool(storage_order))
    which = tf.one_hot(tf.argmax(seen, -1), tf.shape(places)[-1], dtype=tf.int64)
    inner = tf.reduce_sum(which * places, -1)
    sizes = shape(x)
    planes = tf.reshape(tf.range(sizes[0] * sizes[1]), (sizes[0], sizes[1], *[1] * (rank(x) - 2)))
    return result, inner + planes * tf.reduce_prod(sizes[2:])


@_pooling("AveragePool")
def average_pool(
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Numbers = None,
    kernel_shape: Sequence[int],
    pads: Numbers = None,
    strides: Numbers = None,
) -> Any:
    windows = Windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    seen = precise(windows.seen(x))
    total = tf.reduce_sum(tf.where(windows.inside(), seen, tf.zeros_like(seen)), -1)
    count = tf.reduce_sum(tf.cast(windows.inside(padded=bool(count_include_pad)), total.dtype), -1)
    return tf.cast(total / count, x.dtype)


@_pooling("LpPool")
def lp_pool(
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Numbers = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Numbers = None,
    strides: Numbers = None,
) -> Any:
    windows = Windows(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    powers = precise(windows.seen(x))
    powers = tf.where(windows.inside(), tf.abs(powers) ** p, tf.zeros_like(powers))
    return tf.cast(tf.reduce_sum(powers, -1) ** (1.0 / p), x.dtype)
