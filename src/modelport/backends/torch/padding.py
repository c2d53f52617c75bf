"""The window of a convolution or a pooling, and the padding that torch's own layers cannot be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from modelport.backends.torch.registry import CannotBuild
from modelport.backends.torch.traced import Tensor


@dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes; one entry per axis in each.

    Attributes:
        begin: zeros before the first element.
        end: zeros after the last one.
        auto_pad: ONNX's rule from which the padding follows, `"NOTSET"` where begin and end say it.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    auto_pad: str = "NOTSET"

    @classmethod
    def read(
        cls,
        kernel: Sequence[int],
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        pads: Sequence[int] | None,
        auto_pad: str,
    ) -> Window:
        """From ONNX's attributes."""
        count = len(kernel)
        pads = tuple(pads) if pads and auto_pad == "NOTSET" else (0,) * (2 * count)
        auto_pad = "NOTSET" if auto_pad == "VALID" else auto_pad
        ones = (1,) * count
        return cls(
            tuple(kernel), tuple(strides or ones), tuple(dilations or ones), pads[:count], pads[count:], auto_pad
        )

    @property
    def extents(self) -> tuple[int, ...]:
        """How many elements the window spans, holes included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def resolve(self, x: Tensor) -> tuple[list[Any], list[Any]]:
        """Begin and end for an input (batch, channels, *spatial); traced sizes where they depend on a symbolic one."""
        if self.auto_pad == "NOTSET":
            return list(self.begin), list(self.end)
        totals = [self._total(x, axis) for axis in range(len(self.kernel))]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (small, large) if self.auto_pad == "SAME_UPPER" else (large, small)

    def _total(self, x: Tensor, axis: int) -> Any:
        extent, stride = self.extents[axis], self.strides[axis]
        if stride == 1:
            return extent - 1
        size = x.size_of(axis + 2)
        total = ((size + stride - 1) // stride - 1) * stride + extent - size
        return max(total, 0) if isinstance(total, int) else torch.sym_max(total, 0)


def pad_axes(x: Tensor, begin: Sequence[Any], end: Sequence[Any], value: float = 0.0) -> Tensor:
    """The tensor with its last axes padded by a number."""
    pairs = [size for pair in zip(reversed(begin), reversed(end), strict=True) for size in pair]
    return F.pad(x, pairs, value=value)


def pad_input(x: Tensor, window: Window, value: float = 0.0) -> tuple[Tensor, tuple[int, ...]]:
    """What to give to torch: the input, and the symmetric padding to ask for.

    A padding that is the same on both sides is left to torch; any other is put around the input.
    """
    begin, end = window.resolve(x)
    if all(isinstance(b, int) and isinstance(e, int) and b == e for b, e in zip(begin, end, strict=True)):
        return x, tuple(begin)
    return pad_axes(x, begin, end, value), (0,) * len(begin)


def crop_or_pad_output(
    x: Tensor, window: Window, output_padding: Sequence[int] | None, output_shape: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...], Callable[[Tensor], Tensor]]:
    """What to ask of a transposed convolution: padding, output padding, and the crop of its result."""
    extra = tuple(output_padding or (0,) * len(window.kernel))
    if output_shape or window.auto_pad != "NOTSET":
        window, extra = _window_for_shape(x, window, extra, output_shape)
    padding = tuple(min(b, e) for b, e in zip(window.begin, window.end, strict=True))
    begin = [b - p for b, p in zip(window.begin, padding, strict=True)]
    end = [e - p for e, p in zip(window.end, padding, strict=True)]
    kept = [min(e, o) for e, o in zip(end, extra, strict=True)]
    extra = tuple(o - k for o, k in zip(extra, kept, strict=True))
    end = [e - k for e, k in zip(end, kept, strict=True)]
    if not any(begin) and not any(end):
        return padding, extra, lambda y: y
    crop = [-size for pair in zip(reversed(begin), reversed(end), strict=True) for size in pair]
    return padding, extra, lambda y: F.pad(y, crop)


def _window_for_shape(
    x: Tensor, window: Window, extra: tuple[int, ...], output_shape: Sequence[int] | None
) -> tuple[Window, tuple[int, ...]]:
    """The padding from which an output of a given size follows (`SAME`: the input's size times the stride)."""
    totals = []
    for axis, extent in enumerate(window.extents):
        stride = window.strides[axis]
        size = x.dims[axis + 2]
        if output_shape and size is None:
            raise CannotBuild("it has an output_shape on an input of unknown size; give the input a static size")
        natural = extent - stride + extra[axis] + (stride * size if output_shape and size is not None else 0)
        totals.append(natural - (output_shape[axis] if output_shape else 0))
    small, large = [max(t, 0) // 2 for t in totals], [max(t, 0) - max(t, 0) // 2 for t in totals]
    begin, end = (small, large) if window.auto_pad == "SAME_UPPER" else (large, small)
    extra = tuple(o + max(-t, 0) for o, t in zip(extra, totals, strict=True))
    return replace(window, begin=tuple(begin), end=tuple(end), auto_pad="NOTSET"), extra


def output_size(size: int, axis: int, window: Window, ceil_mode: bool) -> int:
    """How many windows fit along one axis whose padding is already resolved."""
    span = size + window.begin[axis] + window.end[axis] - window.extents[axis]
    return (math.ceil if ceil_mode else math.floor)(span / window.strides[axis]) + 1
