"""Casts, to types of less than a byte too, which a wider dtype carries."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Tensor

FLOAT8_MAX = {
    ir.DataType.FLOAT8E4M3FN: 448.0,
    ir.DataType.FLOAT8E4M3FNUZ: 240.0,
    ir.DataType.FLOAT8E5M2: 57344.0,
    ir.DataType.FLOAT8E5M2FNUZ: 57344.0,
}

_NARROW_INTEGERS = frozenset({ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2})

_BEYOND_E4M3FN = 464.0
"""Halfway between the largest number of float8e4m3fn and the one that would follow it."""


@op("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return cast_to(x, ir.DataType(to), bool(saturate), round_mode)


@op("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Any:
    if like.value is None or like.value.dtype is None:
        raise CannotBuild(f"the dtype of {like.node.name!r} is not known")
    return cast_to(x, like.value.dtype, bool(saturate), round_mode)


def limits(dtype: ir.DataType) -> tuple[int, int]:
    """The smallest and the largest number of an integer type."""
    signed = dtype.name.startswith("INT")
    bits = dtype.bitwidth - signed
    return (-(2**bits) if signed else 0), 2**bits - 1


def cast_to(x: Any, dtype: ir.DataType, saturate: bool = True, round_mode: str = "up") -> Any:
    """A cast as ONNX says it, in the dtype that carries the type.

    Args:
        x: a tensor.
        dtype: the type to cast to.
        saturate: whether a number beyond what an 8-bit float holds becomes the largest one that it does.
        round_mode: `"up"`, `"down"` or `"nearest"`, for the powers of two of float8e8m0.
    """
    if dtype in _NARROW_INTEGERS:
        # What does not fit wraps around, as it does from one integer type to a shorter one.
        low, high = limits(dtype)
        return (torch.bitwise_and(x.to(torch.int64) - low, high - low) + low).to(torch_dtype(dtype))
    if dtype == ir.DataType.FLOAT4E2M1:
        return _to_float4(x.to(torch.float32))
    if dtype == ir.DataType.FLOAT8E8M0:
        return _to_power_of_two(x.to(torch.float32), saturate, round_mode)
    if dtype == ir.DataType.FLOAT8E4M3FN and not saturate:
        wide = x.to(torch.float32)
        return torch.where(torch.abs(wide) > _BEYOND_E4M3FN, float("nan"), wide).to(torch_dtype(dtype))
    if dtype in FLOAT8_MAX and saturate:
        largest = FLOAT8_MAX[dtype]
        return torch.clamp(x.to(torch.float32), -largest, largest).to(torch_dtype(dtype))
    return x.to(torch_dtype(dtype))


def _to_float4(x: Any) -> Any:
    """The nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6, of two that are as near the one with an even last bit."""
    size = torch.clamp(torch.abs(x), max=6.0)
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.copysign(torch.round(size / step) * step, x)


def _to_power_of_two(x: Any, saturate: bool, round_mode: str) -> Any:
    """The exponents of float32 numbers, which have the same bias in float8e8m0; signs are dropped."""
    bits = x.contiguous().view(torch.int32)
    exponent, fraction = torch.bitwise_and(torch.bitwise_right_shift(bits, 23), 255), torch.bitwise_and(bits, 0x7FFFFF)
    if round_mode == "up":
        up = fraction > 0
    elif round_mode == "nearest":
        # Halfway goes up, except from a subnormal number.
        up = torch.where(exponent > 0, fraction >= 0x400000, fraction > 0x400000)
    else:
        up = torch.zeros_like(fraction, dtype=torch.bool)
    ceiling = 254 if saturate else 255
    raised = torch.clamp(exponent + up.to(torch.int32), max=ceiling)
    return torch.where(exponent == 255, 255, raised).to(torch.uint8).view(torch.float8_e8m0fnu)


@op("BitCast")
def bit_cast(x: Tensor, *, to: int) -> Any:
    source = None if x.value is None else x.value.dtype
    if any(dtype is not None and dtype.bitwidth < 8 for dtype in (source, ir.DataType(to))):
        raise CannotBuild("it takes the bits of a type of less than a byte, which torch has no tensors of")
    return x.view(torch_dtype(to))
