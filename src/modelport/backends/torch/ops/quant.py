"""Quantisation, and products of quantised tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.layers import F_CONV
from modelport.backends.torch.operands import Operands
from modelport.backends.torch.ops.cast import cast_to, limits
from modelport.backends.torch.padding import Window, pad_axes
from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Tensor


def _along(setting: Tensor, x: Tensor, axis: int, block_size: int = 0, operands: Operands | None = None) -> Any:
    """A scale or zero point in a shape that broadcasts against x: one number, one per slice, or one per block."""
    size = x.dims[axis] if block_size else None
    if operands is not None and size is not None:
        return torch.index_select(setting, axis, operands.stored("blocks", np.arange(size) // block_size))
    if setting.rank == 0 or (setting.rank == 1 and setting.dims == (1,) and not block_size):
        return torch.reshape(setting, [])
    if block_size:
        repeated = torch.repeat_interleave(setting, block_size, axis)
        return torch.narrow(repeated, axis, 0, x.size_of(axis))
    shape = [1] * x.rank
    shape[axis] = -1
    return torch.reshape(setting, shape)


def _type_of(zero: Tensor) -> ir.DataType:
    """The type that a zero point says."""
    assert zero.value is not None
    assert zero.value.dtype is not None
    return zero.value.dtype


def _quantize(x: Any, scale: Any, zero: Any, dtype: ir.DataType) -> Any:
    if dtype.is_floating_point():
        y = x / scale
        return cast_to(y if zero is None else y + zero.to(torch.float32), dtype)
    y = torch.round(x / scale)
    y = y if zero is None else y + zero.to(torch.float32)
    return torch.clamp(y, *limits(dtype)).to(torch_dtype(dtype))


@op("QuantizeLinear")
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    node: ir.Node,
) -> Any:
    dtype = node.outputs[0].dtype
    assert dtype is not None
    axis = axis % x.rank if x.rank else 0
    zero = None if zero_point is None else _along(zero_point, x, axis, block_size)
    wide = x.to(torch.float32)
    return _quantize(wide, _along(scale, x, axis, block_size).to(torch.float32), zero, dtype)


@op("DequantizeLinear")
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    operands: Operands,
) -> Any:
    target = torch_dtype(output_dtype) if output_dtype else scale.element
    axis = axis % x.rank if x.rank else 0
    if block_size and x.dims[axis] is not None and x.dims[axis] == (scale.dims[axis] or 0) * block_size:
        # The blocks get an axis of their own, so that no scale is repeated in memory.
        blocks = [scale.size_of(axis), block_size]
        sizes = [x.size_of(place) for place in range(x.rank)]
        y = torch.reshape(x.to(torch.float32), [*sizes[:axis], *blocks, *sizes[axis + 1 :]])
        if zero_point is not None:
            y = y - torch.unsqueeze(zero_point, axis + 1).to(torch.float32)
        return torch.reshape(y * torch.unsqueeze(scale, axis + 1).to(torch.float32), sizes).to(target)
    y = x.to(torch.float32)
    if zero_point is not None:
        y = y - _along(zero_point, x, axis, block_size, operands).to(torch.float32)
    return (y * _along(scale, x, axis, block_size, operands).to(torch.float32)).to(target)


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Tensor) -> Any:
    low, high = torch.clamp_max(torch.min(x), 0), torch.clamp_min(torch.max(x), 0)
    # A range of nothing has the scale of a range of 1.
    scale = torch.where(high == low, 1.0, high - low) / 255
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    y = torch.clamp(torch.round(x / scale) + zero, 0, 255)
    return y.to(torch.uint8), scale, zero.to(torch.uint8)


def _centred(x: Tensor, zero: Tensor | None, dtype: torch.dtype, axis: int | None = None) -> Any:
    """Integers less their zero point, in a dtype that holds the products."""
    y = x.to(dtype)
    if zero is None:
        return y
    if zero.rank == 1 and zero.dims != (1,) and axis is not None:
        shape = [1] * x.rank
        shape[axis] = -1
        return y - torch.reshape(zero, shape).to(dtype)
    return y - (torch.reshape(zero, []) if zero.dims == (1,) else zero).to(dtype)


@op("MatMulInteger")
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Any:
    return torch.matmul(_centred(a, a_zero, torch.int32, -2), _centred(b, b_zero, torch.int32, -1))


@op("QLinearMatMul")
def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Any:
    product = torch.matmul(_centred(a, a_zero, torch.float64, -2), _centred(b, b_zero, torch.float64, -1))
    scale = a_scale.to(torch.float64) * b_scale.to(torch.float64) / y_scale.to(torch.float64)
    return _quantize(product, 1 / scale, y_zero, _type_of(y_zero))


def _conv(x: Any, weight: Any, window: Window, group: int) -> Any:
    if any(window.begin) or any(window.end):
        x = pad_axes(x, window.begin, window.end)
    return F_CONV[len(window.kernel)](x, weight, None, window.strides, 0, window.dilations, group)


@op("ConvInteger")
def conv_integer(
    x: Tensor,
    weight: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window = _window(x, weight, kernel_shape, strides, dilations, pads, auto_pad)
    # float64 holds every sum of products of bytes exactly, and torch convolves no integers.
    a, b = _centred(x, x_zero, torch.float64), _centred(weight, w_zero, torch.float64, 0)
    return _conv(a, b, window, group).to(torch.int32)


def _window(
    x: Tensor,
    weight: Tensor,
    kernel_shape: Sequence[int] | None,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> Window:
    kernel = kernel_shape or [int(size or 0) for size in weight.dims[2:]]
    window = Window.read(kernel, strides, dilations, pads, auto_pad)
    begin, end = window.resolve(x)
    return Window(window.kernel, window.strides, window.dilations, tuple(begin), tuple(end))


@op("QLinearConv")
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Any:
    window = _window(x, weight, kernel_shape, strides, dilations, pads, auto_pad)
    y = _conv(_centred(x, x_zero, torch.float64), _centred(weight, w_zero, torch.float64, 0), window, group)
    shape = [1, -1] + [1] * (x.rank - 2)
    if bias is not None:
        y = y + torch.reshape(bias, shape).to(torch.float64)
    per_channel = torch.reshape(w_scale, shape if w_scale.rank == 1 and w_scale.dims != (1,) else [])
    scale = x_scale.to(torch.float64) * per_channel.to(torch.float64) / y_scale.to(torch.float64)
    return _quantize(y, 1 / scale, y_zero, _type_of(y_zero))
