"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F

from modelport.backends.torch.padding import Window, output_size, pad_axes
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Sizes, Tensor

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}


def _settled(x: Tensor, window: Window, ceil_mode: int) -> tuple[Window, bool]:
    """The window with its padding, traced where it depends on a size that is not known; whether it rounds up."""
    if len(window.kernel) not in _MAX:
        raise CannotBuild(f"it pools {len(window.kernel)} axes; torch pools {sorted(_MAX)}")
    begin, end = window.resolve(x)
    settled = replace(window, begin=tuple(begin), end=tuple(end), auto_pad="NOTSET")
    return settled, bool(ceil_mode) and not _is_traced(settled)


def _is_traced(window: Window) -> bool:
    """Whether the padding is known only when the module runs."""
    return not all(isinstance(size, int) for size in (*window.begin, *window.end))


def _symmetric(window: Window) -> bool:
    """Whether torch's pooling takes the padding itself: alike on both sides and at most half the kernel."""
    pairs = zip(window.begin, window.end, window.kernel, strict=True)
    return not _is_traced(window) and all(b == e and 2 * b <= k for b, e, k in pairs)


def _rounded_up(x: Tensor, window: Window) -> tuple[int, ...]:
    """The padding at the end that makes room for the last, partial windows of `ceil_mode`."""
    extra = []
    for axis in range(len(window.kernel)):
        size = x.dims[axis + 2]
        if size is None:
            raise CannotBuild("it rounds up the size of an axis that is not known; make it static")
        count = output_size(size, axis, window, True)
        if (count - 1) * window.strides[axis] >= size + window.begin[axis]:
            count -= 1
        need = (count - 1) * window.strides[axis] + window.extents[axis]
        extra.append(max(need - size - window.begin[axis] - window.end[axis], 0))
    return tuple(extra)


@op("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    node: ir.Node,
) -> Any:
    window, ceil = _settled(x, Window.read(kernel_shape, strides, dilations, pads, auto_pad), ceil_mode)
    indices = len(node.outputs) > 1 and bool(node.outputs[1].uses() or node.outputs[1].is_graph_output())
    integer = not x.element.is_floating_point
    y: Any = x.to(torch.float32) if integer else x
    padding: tuple[int, ...] = window.begin
    if not _symmetric(window):
        end = window.end
        if ceil:
            end, ceil = tuple(e + r for e, r in zip(end, _rounded_up(x, window), strict=True)), False
        y, padding = pad_axes(y, window.begin, end, -math.inf), (0,) * len(window.kernel)
    pool: Any = _MAX[len(window.kernel)]
    result = pool(y, window.kernel, window.strides, padding, window.dilations, ceil_mode=ceil, return_indices=indices)
    values = result[0] if indices else result
    values = values.to(x.element) if integer else values
    if not indices:
        return values
    return values, _flat_indices(x, result[1], window, padded=not _symmetric(window), column_major=bool(storage_order))


def _flat_indices(x: Tensor, found: Any, window: Window, *, padded: bool, column_major: bool) -> Any:
    """torch counts within a channel's plane, ONNX within the whole tensor."""
    sizes = [x.size_of(axis) for axis in range(x.rank)]
    spatial = sizes[2:]
    if padded:
        raise CannotBuild("it returns indices over an uneven padding; pad the input with a Pad operator")
    plane = math.prod(spatial)
    if column_major:
        parts = []
        for size in reversed(spatial):
            parts.append(torch.remainder(found, size))
            found = torch.div(found, size, rounding_mode="floor")
        found, step = 0, 1
        for part, size in zip(reversed(parts), spatial, strict=True):
            found = found + part * step
            step *= size
    base = torch.arange(sizes[0] * sizes[1], device=x.device) * plane
    return found + torch.reshape(base, [sizes[0], sizes[1]] + [1] * len(spatial))


@op("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window, ceil = _settled(x, Window.read(kernel_shape, strides, dilations, pads, auto_pad), ceil_mode)
    if _symmetric(window) and set(window.dilations) == {1}:
        settings = (window.kernel, window.strides, window.begin, ceil, bool(count_include_pad))
        return _AVERAGE[len(window.kernel)](x, *settings)
    total = _window_sum(x, x, window, ceil)
    ones = torch.ones_like(x)
    if count_include_pad:
        # The elements that only `ceil_mode` adds are outside the tensor and its padding, and count for nothing.
        ones, bare = pad_axes(ones, window.begin, window.end, 1.0), (0,) * len(window.kernel)
        if ceil:
            ones, ceil = pad_axes(ones, bare, _rounded_up(x, window)), False
        return total / _window_sum(x, ones, replace(window, begin=bare, end=bare), ceil)
    return total / _window_sum(x, ones, window, ceil)


def _window_sum(x: Tensor, values: Any, window: Window, ceil: bool) -> Any:
    """The sum over every window, as a convolution by ones of each channel."""
    rank = len(window.kernel)
    end = window.end
    if ceil:
        end = tuple(e + r for e, r in zip(end, _rounded_up(x, window), strict=True))
    if _is_traced(window) or any(window.begin) or any(end):
        values = pad_axes(values, window.begin, end)
    rows = torch.flatten(values, 0, 1).unsqueeze(1)
    ones = x.new_ones((1, 1, *window.kernel))
    y = _CONV[rank](rows, ones, None, window.strides, 0, window.dilations)
    return torch.unflatten(y.squeeze(1), 0, (-1, x.size_of(1)))


@op("LpPool")
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window, ceil = _settled(x, Window.read(kernel_shape, strides, dilations, pads, auto_pad), ceil_mode)
    return torch.pow(_window_sum(x, torch.pow(torch.abs(x), p), window, ceil), 1 / p)


@op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Any:
    return torch.mean(x, list(range(2, x.rank)), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Any:
    return torch.amax(x, list(range(2, x.rank)), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: int = 2) -> Any:
    total = torch.sum(torch.pow(torch.abs(x), p), list(range(2, x.rank)), keepdim=True)
    return torch.pow(total, 1 / p)


@op("MaxUnpool")
def max_unpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Sizes | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window = Window.read(kernel_shape, strides, None, pads, "NOTSET")
    spatial = [
        (x.size_of(axis + 2) - 1) * window.strides[axis] + window.kernel[axis] - window.begin[axis] - window.end[axis]
        for axis in range(len(window.kernel))
    ]
    lead = [x.size_of(0), x.size_of(1)]
    # The indices count within the tensor that was pooled, which an explicit output_shape only pads at its end.
    flat = torch.zeros_like(torch.flatten(x)).new_zeros((math.prod([*lead, *spatial]),))
    y = torch.reshape(torch.scatter(flat, 0, torch.flatten(indices), torch.flatten(x)), [*lead, *spatial])
    if output_shape is None:
        return y
    return pad_axes(y, [0] * len(spatial), [want - have for want, have in zip(output_shape[2:], spatial, strict=True)])
