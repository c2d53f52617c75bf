"""Relatives of the convolution that have no layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from modelport.backends.torch.layers import F_CONV
from modelport.backends.torch.padding import Window
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Sizes, Tensor


@op("Col2Im")
def col2im(
    x: Tensor,
    image_shape: Sizes,
    block_shape: Sizes,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window = Window.read(block_shape, strides, dilations, pads, "NOTSET")
    if len(block_shape) == 2 and window.begin == window.end:
        return F.fold(x, image_shape, block_shape, window.dilations, window.begin, window.strides)
    return _scattered(x, image_shape, window)


def _scattered(x: Tensor, image_shape: list[Any], window: Window) -> Any:
    """Any number of axes: every column's elements are added where they came from in the padded image."""
    sizes = [n + b + e for n, b, e in zip(image_shape, window.begin, window.end, strict=True)]
    rank, flat = len(sizes), 0
    for axis, size in enumerate(sizes):
        count = (size - window.extents[axis]) // window.strides[axis] + 1
        block = torch.arange(window.kernel[axis], device=x.device) * window.dilations[axis]
        start = torch.arange(count, device=x.device) * window.strides[axis]
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = window.kernel[axis], count
        flat = flat * size + torch.reshape(block.unsqueeze(1) + start, shape)
    channels = x.size_of(1) // math.prod(window.kernel)
    columns = torch.reshape(x, [x.size_of(0), channels, -1])
    image = x.new_zeros((x.size_of(0), channels, math.prod(sizes)))
    index = torch.flatten(flat).expand_as(columns)
    image = torch.reshape(torch.scatter_add(image, 2, index, columns), [x.size_of(0), channels, *sizes])
    crop = [-size for pair in zip(reversed(window.begin), reversed(window.end), strict=True) for size in pair]
    return F.pad(image, crop)


@op("CausalConvWithState")
def causal_conv_with_state(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: str = "none",
) -> Any:
    taps = weight.dims[-1]
    if taps is None:
        raise CannotBuild("the size of its kernel is not known; make it static")
    past = past_state if past_state is not None else x.new_zeros((x.size_of(0), x.size_of(1), taps - 1))
    padded = torch.cat([past, x], -1)
    y = F_CONV[1](padded, weight, bias, groups=x.size_of(1))
    state = torch.narrow(padded, -1, x.size_of(2), taps - 1)
    return (F.silu(y) if activation in ("silu", "swish") else y), state


@op("DeformConv")
def deform_conv(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    """Two spatial axes; the samples of every kernel position are read by bilinear interpolation."""
    if x.rank != 4 or weight.dims[2] is None or weight.dims[3] is None:
        raise CannotBuild("it deforms other than two axes, or its kernel has no static shape")
    kernel = kernel_shape or (weight.dims[2], weight.dims[3])
    window = Window.read(kernel, strides, dilations, pads, "NOTSET")
    n, c, h, w = (x.size_of(axis) for axis in range(4))
    rows, columns, taps = offset.size_of(2), offset.size_of(3), math.prod(window.kernel)
    shift = torch.reshape(offset, [n, offset_group, taps, 2, rows, columns])
    places = []
    for axis, count in ((0, rows), (1, columns)):
        base = torch.arange(count, device=x.device) * window.strides[axis] - window.begin[axis]
        tap = torch.arange(window.kernel[axis], device=x.device) * window.dilations[axis]
        tap = tap.repeat_interleave(window.kernel[1]) if axis == 0 else tap.repeat(window.kernel[0])
        grid = torch.reshape(tap, [-1, 1, 1]) + torch.reshape(base, [-1, 1] if axis == 0 else [1, -1])
        places.append(torch.select(shift, 3, axis) + grid)
    vertical, horizontal = ((2 * p + 1) / size - 1 for p, size in zip(places, (h, w), strict=True))
    grid = torch.reshape(torch.stack([horizontal, vertical], -1), [n * offset_group, taps * rows, columns, 2])
    image = torch.reshape(x, [n * offset_group, c // offset_group, h, w])
    sampled = F.grid_sample(image, grid, "bilinear", "zeros", align_corners=False)
    sampled = torch.reshape(sampled, [n, offset_group, c // offset_group, taps, rows, columns])
    if mask is not None:
        sampled = sampled * torch.reshape(mask, [n, offset_group, 1, taps, rows, columns])
    stacked = torch.reshape(sampled, [n, group, (c // group) * taps, rows * columns])
    filters = torch.reshape(weight, [group, weight.size_of(0) // group, (c // group) * taps])
    y = torch.reshape(torch.matmul(filters, stacked), [n, weight.size_of(0), rows, columns])
    return y if bias is None else y + torch.reshape(bias, [1, -1, 1, 1])
