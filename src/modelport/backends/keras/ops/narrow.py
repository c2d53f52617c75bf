"""Element types that Keras lacks: carried in a wider dtype that holds every value, rounded by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from keras import ops

from modelport.backends.keras.ops.registry import CannotBuild
from modelport.backends.keras.ops.tensors import cast, dtype, is_float, plus, wide


@dataclass(frozen=True)
class Minifloat:
    """A floating type of at most 8 bits.

    Attributes:
        bits: of the fraction.
        least: the exponent of the smallest normal number.
        most: the largest number.
        beyond: what an overflow becomes where it is not saturated.
        has_nan: whether the type has a NaN.
        has_minus_zero: whether its zero has a sign.
    """

    bits: int
    least: int
    most: float
    beyond: float = np.nan
    has_nan: bool = True
    has_minus_zero: bool = True


MINIFLOATS = {
    ir.DataType.FLOAT8E4M3FN: Minifloat(3, -6, 448.0),
    ir.DataType.FLOAT8E4M3FNUZ: Minifloat(3, -7, 240.0, has_minus_zero=False),
    ir.DataType.FLOAT8E5M2: Minifloat(2, -14, 57344.0, beyond=np.inf),
    ir.DataType.FLOAT8E5M2FNUZ: Minifloat(2, -15, 57344.0, has_minus_zero=False),
    ir.DataType.FLOAT4E2M1: Minifloat(1, 0, 6.0, has_nan=False),
}

INTEGERS = {
    ir.DataType.INT4: (4, True),
    ir.DataType.UINT4: (4, False),
    ir.DataType.INT2: (2, True),
    ir.DataType.UINT2: (2, False),
}
"""The width of the small integers, and whether they have a sign."""

SCALE = ir.DataType.FLOAT8E8M0

NARROW_TYPES = frozenset({*MINIFLOATS, *INTEGERS, SCALE})


def bounds(kind: int) -> tuple[float, float]:
    """The least and the largest number of an element type of integers."""
    found = ir.DataType(kind)
    if found in INTEGERS:
        bits, signed = INTEGERS[found]
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    info = np.iinfo(found.numpy())
    return info.min, info.max


def to_narrow(x: Any, kind: int, saturate: bool = True, round_mode: str = "up") -> Any:
    """A tensor as numbers of a narrow type, in the dtype that carries them, as ONNX's Cast defines it."""
    target = ir.DataType(kind)
    if target in INTEGERS:
        return _wrapped(x, *INTEGERS[target])
    data = x if dtype(x) in ("float32", "float64") else cast(wide(x) if dtype(x) != "bool" else x, "float32")
    rounded = _scale(data, round_mode) if target == SCALE else rounded_to(data, MINIFLOATS[target], saturate)
    return cast(rounded, "float32")


def _wrapped(x: Any, bits: int, signed: bool) -> Any:
    whole = cast(ops.trunc(x) if is_float(x) else x, "int64")
    low = ops.mod(whole, 2**bits)
    if signed:
        low = ops.where(ops.greater_equal(low, 2 ** (bits - 1)), ops.subtract(low, 2**bits), low)
    return cast(low, "int8" if signed else "uint8")


def _power_of_two(exponent: Any, name: str) -> Any:
    """2 to a whole exponent, exactly, also where the result is subnormal."""
    half = ops.floor_divide(exponent, 2)
    first, second = (_normal_power(each, name) for each in (half, ops.subtract(exponent, half)))
    return ops.multiply(first, second)


def _normal_power(exponent: Any, name: str) -> Any:
    whole, bits, bias = _layout(name)
    return ops.view(ops.multiply(plus(exponent, bias), np.array(2**bits, whole)), name)


def _layout(name: str) -> tuple[str, int, int]:
    """The integer of a float's width, the bits of its fraction, and the bias of its exponent."""
    return ("int64", 52, 1023) if name == "float64" else ("int32", 23, 127)


def _exponent(x: Any) -> Any:
    """The exponent of a float's magnitude, as its bits have it."""
    whole, bits, bias = _layout(dtype(x))
    field = ops.floor_divide(ops.view(ops.abs(x), whole), np.array(2**bits, whole))
    return ops.subtract(field, np.array(bias, whole))


def rounded_to(x: Any, kind: Minifloat, saturate: bool) -> Any:
    """The nearest numbers of a type, ties to even."""
    name = dtype(x)
    finite = ops.where(ops.isfinite(x), x, ops.zeros_like(x))
    quantum = _power_of_two(ops.subtract(ops.maximum(_exponent(finite), kind.least), kind.bits), name)
    rounded = ops.multiply(ops.round(ops.divide(finite, quantum)), quantum)
    sign = ops.where(ops.less(x, 0), -1.0, 1.0)
    over = ops.logical_or(ops.greater(ops.abs(rounded), kind.most), ops.isinf(x))
    beyond = kind.most if saturate or not kind.has_nan else kind.beyond
    result = ops.where(over, ops.multiply(cast(sign, name), beyond), rounded)
    if not kind.has_minus_zero:
        result = ops.where(ops.equal(result, 0), ops.zeros_like(result), result)
    nan = np.nan if kind.has_nan else -0.0
    return ops.where(ops.isnan(x), np.array(nan, name), result)


def _scale(x: Any, round_mode: str) -> Any:
    """Powers of two: magnitudes rounded up, down or to the nearest."""
    if round_mode not in ("up", "down", "nearest"):
        raise CannotBuild(f"its round_mode {round_mode!r} is not one of up, down and nearest")
    magnitude = ops.abs(cast(x, "float64"))
    exponent = ops.maximum(_exponent(magnitude), -128)
    ratio = ops.divide(magnitude, _power_of_two(exponent, "float64"))
    up = {"up": ops.greater(ratio, 1), "down": ops.less(ratio, 0), "nearest": ops.greater_equal(ratio, 1.5)}[round_mode]
    power = cast(ops.clip(ops.where(up, plus(exponent, 1), exponent), -127, 127), "int32")
    # From the bits: arithmetic may take the least one, which is subnormal in single precision, for 0.
    bits = ops.where(ops.less(power, -126), np.int32(1 << 22), ops.multiply(plus(power, 127), np.int32(1 << 23)))
    return ops.where(ops.isfinite(x), ops.view(bits, "float32"), np.float32(np.nan))
