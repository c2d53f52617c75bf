"""Simulated quantization as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints

DOMAIN = "modelport"

_LIBRARY = torch.library.Library(DOMAIN, "FRAGMENT")
_LIBRARY.define(
    "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int? axis, int quant_min, int quant_max) -> Tensor"
)
torch.library.register_fake(
    f"{DOMAIN}::fake_quantize",
    lambda x, scale, zero_point, axis, quant_min, quant_max: torch.empty_like(x),
    lib=_LIBRARY,
)


def _simulated_per_tensor(x: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Any:
    """torch's own cannot be traced with a batch of any size."""
    scales, zeros = torch.as_tensor(scale, dtype=x.dtype), torch.as_tensor(zero_point, dtype=torch.int32)
    return torch.ops.modelport.fake_quantize(x, scales.reshape(()), zeros.reshape(()), None, quant_min, quant_max)


def _simulated_per_channel(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
    return torch.ops.modelport.fake_quantize(x, scale, zero_point, axis, quant_min, quant_max)


SIMULATED: dict[Any, Callable[..., Any]] = {
    torch.fake_quantize_per_tensor_affine: _simulated_per_tensor,
    torch.fake_quantize_per_channel_affine: _simulated_per_channel,
}
"""What a traced model calls instead of torch's functions."""


_DTYPES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
_LIMITS = {
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.UINT16: (0, 2**16 - 1),
}


def per_tensor(x: Any, scale: float, zero_point: int, quant_min: int, quant_max: int) -> tuple[Any, Any]:
    """One scale for all elements; the rounded tensor, and which elements were within the limits."""
    scales, zeros = constant(scale, x.dtype), constant(zero_point, ir.DataType.INT32)
    return _quantized(x, scales, zeros, quant_min, quant_max, None)


def per_tensor_computed(
    x: Any, scale: Any, zero_point: Any, fake_quant_enabled: Any, quant_min: int, quant_max: int
) -> tuple[Any, Any]:
    """The same with a scale that is a tensor of one element, where another one says that it is on."""
    op = onnxscript.opset21
    scalar = ints()
    scale, zero_point, on = (op.Reshape(each, scalar) for each in (scale, zero_point, fake_quant_enabled))
    found, mask = _quantized(x, op.CastLike(scale, x), zero_point, quant_min, quant_max, None)
    return op.Where(op.Cast(on, to=ir.DataType.BOOL.value), found, x), mask


def per_channel(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> tuple[Any, Any]:
    """A scale for each element of an axis."""
    return _quantized(x, scale, zero_point, quant_min, quant_max, axis)


def _quantized(x: Any, scale: Any, zero: Any, low: int, high: int, axis: int | None) -> tuple[Any, Any]:
    op, dtype = onnxscript.opset21, x.dtype
    kept = next(kind for kind in _DTYPES if _LIMITS[kind][0] <= low and high <= _LIMITS[kind][1])
    shape = None if axis is None else ints(*(-1 if each == axis else 1 for each in range(len(x.shape))))
    wide_scale, wide_zero = (each if shape is None else op.Reshape(each, shape) for each in (scale, zero))
    wide_zero = op.CastLike(wide_zero, x)
    limits = [op.Mul(op.Sub(constant(limit, dtype), wide_zero), wide_scale) for limit in (low, high)]
    if (low, high) != _LIMITS[kept]:
        x = op.Min(op.Max(x, limits[0]), limits[1])
    settings = {} if axis is None else {"axis": axis}
    zero = op.Cast(zero, to=kept.value)
    found = op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, **settings), scale, zero, **settings)
    return found, op.And(op.GreaterOrEqual(x, limits[0]), op.LessOrEqual(x, limits[1]))


def simulated(x: Any, scale: Any, zero_point: Any, axis: int | None, quant_min: int, quant_max: int) -> Any:
    """What a traced call became."""
    return _quantized(x, scale, zero_point, quant_min, quant_max, axis)[0]


aten = torch.ops.aten
TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.modelport.fake_quantize.default: simulated,
    aten.fake_quantize_per_tensor_affine_cachemask.default: per_tensor,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: per_tensor_computed,
    aten.fake_quantize_per_channel_affine_cachemask.default: per_channel,
}
"""What `torch.onnx.export` needs to know."""
