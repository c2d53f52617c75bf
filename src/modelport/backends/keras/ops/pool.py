"""Pooling."""

from __future__ import annotations

import math
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from keras import layers, ops

from modelport.backends.keras.ops.conv import Numbers, dilated, explicit_pads
from modelport.backends.keras.ops.index import counting
from modelport.backends.keras.ops.math import in_wide
from modelport.backends.keras.ops.registry import NeedsValues, spatial
from modelport.backends.keras.ops.shape import padded
from modelport.backends.keras.ops.tensors import cast, dtype, inner_sizes, is_float, plus, rank, sizes, wide

Widths = tuple[tuple[int, int], ...]


class Window:
    """The windows of one pooling node.

    Attributes:
        kernel: their sizes.
        strides: the steps between them.
        dilations: the steps inside them.
        pads: the padding that the node asks for.
        extra: what `ceil_mode` adds after it, so that the last window fits.
    """

    def __init__(
        self, x: Any, kernel: Numbers, strides: Numbers | None, dilations: Numbers | None, pads: Numbers | None,
        auto_pad: str, ceil_mode: int,
    ) -> None:  # fmt: skip
        count = len(kernel)
        self.kernel, self.strides = tuple(kernel), tuple(strides or (1,) * count)
        self.dilations = tuple(dilations or (1,) * count)
        self.span = dilated(self.kernel, self.dilations)
        lengths = sizes(x)[1:-1]
        self.pads = explicit_pads(auto_pad, pads, lengths, self.span, self.strides)
        self.extra = tuple(self._extra(i, lengths[i]) if ceil_mode else 0 for i in range(count))

    def _extra(self, axis: int, length: int | None) -> int:
        if self.strides[axis] == 1:
            return 0
        if length is None:
            raise NeedsValues("ceil_mode depends on a size that is not static")
        before, after = self.pads[axis]
        rest = length + before + after - self.span[axis]
        steps = -(-rest // self.strides[axis])
        if steps * self.strides[axis] >= length + before:
            # A window that would start in the padding after the data is left out.
            steps -= 1
        return max(steps * self.strides[axis] - rest, 0)

    @property
    def widths(self) -> Widths:
        """The padding of (batch, *spatial, channels)."""
        inner = ((before, after + more) for (before, after), more in zip(self.pads, self.extra, strict=True))
        return ((0, 0), *inner, (0, 0))

    def has_layer(self, x: Any) -> bool:
        """Whether Keras has a pooling for it; TensorFlow has none of volumes in these dtypes."""
        axes = 2 if dtype(x) in ("float16", "float64") else 3
        return len(self.kernel) <= axes and all(d == 1 for d in self.dilations)

    def views(self, x: Any) -> list[Any]:
        """What each element of the window sees: strided slices of the padded data, in the order of the kernel."""
        result = []
        for place in product(*map(range, self.kernel)):
            key: list[Any] = [slice(None)]
            for i, at in enumerate(place):
                start = at * self.dilations[i]
                stop = start - (self.span[i] - 1)
                key.append(slice(start, stop if stop < 0 else None, self.strides[i]))
            result.append(x[tuple(key)])
        return result


def _lowest(name: str) -> Any:
    return -float("inf") if "float" in name else int(np.iinfo(name).min)


@spatial("MaxPool")
def max_pool(
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Numbers | None = None,
    kernel_shape: Numbers,
    pads: Numbers | None = None,
    storage_order: int = 0,
    strides: Numbers | None = None,
    outputs: int = 1,
) -> Any:
    window = Window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    data = padded(x, window.widths, _lowest(dtype(x)))
    if outputs > 1:
        return _with_places(x, data, window, storage_order)
    if is_float(x) and window.has_layer(x):
        return _layer("Max", data, window)
    return in_wide(lambda *views: ops.max(ops.stack(views), axis=0), *window.views(data))


def _layer(kind: str, data: Any, window: Window) -> Any:
    """Keras' own pooling layer, of padded data.

    The operation `keras.ops.max_pool` comes back from a file with lists for its sizes, which Keras on JAX refuses.
    """
    made = getattr(layers, f"{kind}Pooling{len(window.kernel)}D")
    return made(window.kernel, window.strides, "valid", data_format="channels_last", dtype=dtype(data))(data)


def _with_places(x: Any, data: Any, window: Window, storage_order: int) -> tuple[Any, Any]:
    """The maxima and the flat places (in the channels-first tensor) where they are."""
    *lengths, channels = inner_sizes(x)
    inner = np.arange(math.prod(lengths)).reshape(lengths if not storage_order else lengths[::-1])
    inner = inner.T if storage_order else inner
    # (elements of a window, windows)
    seen = np.stack([view.ravel() for view in window.views(np.pad(inner[None, ..., None], window.widths))])
    views = ops.stack([wide(view) for view in window.views(data)])
    which = cast(ops.argmax(views, axis=0), "int64")
    own = np.arange(seen.shape[1]).reshape(1, *inner_sizes(which)[:-1], 1)
    found = ops.take(seen.ravel(), plus(ops.multiply(which, seen.shape[1]), own), axis=0)
    batch, own = counting(x, 0) * (channels * inner.size), np.arange(channels) * inner.size
    # One constant where the batch is known: TensorFlow folds a bias and a constant after it into a wrong one.
    planes = batch + own if isinstance(batch, np.ndarray) else plus(batch, own)
    return cast(ops.max(views, axis=0), dtype(x)), plus(cast(found, "int64"), planes)


def _counts(x: Any, window: Window, include_pad: int) -> Any:
    """How many elements every window averages: (1, *spatial, 1)."""
    lengths = sizes(x)[1:-1]
    if None in lengths:
        ones = ops.ones_like(x[:1, ..., :1] if rank(x) else x)
        inner = ((0, 0), *window.pads, (0, 0))
        ones = padded(ones, inner, 1.0 if include_pad else 0.0)
        ones = padded(ones, ((0, 0), *((0, more) for more in window.extra), (0, 0)))
        return reduce(plus, window.views(ones))
    ones = np.ones((1, *lengths, 1), np.float32)
    ones = np.pad(ones, ((0, 0), *window.pads, (0, 0)), constant_values=1.0 if include_pad else 0.0)
    ones = np.pad(ones, ((0, 0), *((0, more) for more in window.extra), (0, 0)))
    return np.sum(window.views(ones), axis=0).astype(dtype(x))


@spatial("AveragePool")
def average_pool(
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Numbers | None = None,
    kernel_shape: Numbers,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Any:
    window = Window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    data = padded(x, window.widths)
    if not window.has_layer(x):
        return ops.divide(reduce(plus, window.views(data)), _counts(x, window, count_include_pad))
    average = _layer("Average", data, window)
    if not any(map(any, window.widths)) or (count_include_pad and not any(window.extra)):
        return average
    share = ops.divide(float(math.prod(window.kernel)), _counts(x, window, count_include_pad))
    return ops.multiply(average, share)


@spatial("LpPool")
def lp_pool(
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Numbers | None = None,
    kernel_shape: Numbers,
    p: int = 2,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Any:
    window = Window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    powers = padded(ops.power(ops.abs(x), float(p)), window.widths)
    return ops.power(reduce(plus, window.views(powers)), 1.0 / p)


def _inner(x: Any) -> tuple[int, ...]:
    return tuple(range(1, rank(x) - 1))


@spatial("GlobalAveragePool")
def global_average_pool(x: Any) -> Any:
    return ops.mean(x, axis=_inner(x), keepdims=True)


@spatial("GlobalMaxPool")
def global_max_pool(x: Any) -> Any:
    return ops.max(x, axis=_inner(x), keepdims=True)


@spatial("GlobalLpPool")
def global_lp_pool(x: Any, *, p: int = 2) -> Any:
    total = ops.sum(ops.power(ops.abs(x), float(p)), axis=_inner(x), keepdims=True)
    return ops.power(total, 1.0 / p)
