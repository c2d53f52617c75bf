"""Quantised tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from keras import ops

from modelport.backends.keras.ops.conv import conv
from modelport.backends.keras.ops.narrow import MINIFLOATS, bounds, to_narrow
from modelport.backends.keras.ops.registry import op
from modelport.backends.keras.ops.tensors import (
    along,
    cast,
    channels_first,
    channels_last,
    dtype,
    keras_dtype,
    plus,
    positive,
    rank,
    size,
    sizes,
    static,
)


def _spread(parameter: Any, x: Any, axis: int, block_size: int) -> Any:
    """A scale or zero point so that it broadcasts: one for all, one per slice, or one per block along an axis."""
    if parameter is None or rank(parameter) == 0:
        return parameter
    if rank(parameter) == 1 and not block_size:
        return parameter if size(parameter, 0) == 1 else along(parameter, axis, rank(x))
    return ops.take(parameter, np.arange(size(x, axis)) // block_size, axis=axis)


@op("QuantizeLinear")
def quantize_linear(
    x: Any,
    scale: Any,
    zero_point: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    kinds: tuple[int, ...] = (),
) -> Any:
    target = kinds[2] if zero_point is not None else output_dtype or ir.DataType.UINT8
    working = keras_dtype(precision) if precision else "float32"
    data = ops.divide(cast(x, working), cast(_spread(scale, x, axis, block_size), working))
    data = cast(data, "float32")
    zero = None if zero_point is None else cast(_spread(zero_point, x, axis, block_size), "float32")
    if target in MINIFLOATS:
        return to_narrow(data if zero is None else plus(data, zero), target, bool(saturate))
    rounded = ops.round(data)
    return saturated(rounded if zero is None else plus(rounded, zero), keras_dtype(target), bounds(target))


def saturated(x: Any, to: str, limits: tuple[float, float] | None = None) -> Any:
    """Whole floats as integers, clipped to a range; to that of their dtype where no other is given."""
    low, high = limits or (np.iinfo(to).min, np.iinfo(to).max)
    return cast(cast(ops.clip(x, float(low), float(high)), "int32"), to)


@op("DequantizeLinear")
def dequantize_linear(
    x: Any, scale: Any, zero_point: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Any:
    result = keras_dtype(output_dtype) if output_dtype else dtype(scale)
    data = cast(x, "float32")
    axis = positive(axis, rank(x)) if rank(x) else 0
    if block_size and None not in sizes(x) and size(x, axis) == size(scale, axis) * block_size:
        # The blocks get an axis of their own, so that no scale is repeated in memory.
        shape = static(x)
        data = ops.reshape(data, (*shape[:axis], size(scale, axis), block_size, *shape[axis + 1 :]))
        if zero_point is not None:
            data = ops.subtract(data, cast(ops.expand_dims(zero_point, axis + 1), "float32"))
        data = ops.multiply(data, cast(ops.expand_dims(scale, axis + 1), "float32"))
        return cast(ops.reshape(data, shape), result)
    if zero_point is not None:
        data = ops.subtract(data, cast(_spread(zero_point, x, axis, block_size), "float32"))
    return cast(ops.multiply(data, cast(_spread(scale, x, axis, block_size), "float32")), result)


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Any) -> Any:
    low, high = ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0)
    # A range of nothing has the scale of a range of 1.
    scale = ops.divide(ops.where(ops.equal(high, low), 1.0, ops.subtract(high, low)), 255.0)
    zero = ops.clip(ops.round(ops.divide(ops.negative(low), scale)), 0.0, 255.0)
    quantised = plus(ops.round(ops.divide(x, scale)), zero)
    return saturated(quantised, "uint8"), scale, cast(cast(zero, "int32"), "uint8")


@op("QLinearMatMul")
def qlinear_matmul(
    a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Any:
    left = ops.subtract(cast(a, "float32"), cast(_rows(a_zero, a), "float32"))
    right = ops.subtract(cast(b, "float32"), cast(b_zero, "float32"))
    scale = ops.divide(
        ops.multiply(cast(_rows(a_scale, a), "float32"), cast(b_scale, "float32")), cast(y_scale, "float32")
    )
    product = ops.multiply(ops.matmul(left, right), scale)
    return saturated(plus(ops.round(product), cast(y_zero, "float32")), dtype(y_zero))


def _rows(parameter: Any, x: Any) -> Any:
    """A parameter of the left operand: one for all, or one per row."""
    return (
        ops.expand_dims(parameter, -1) if rank(parameter) == 1 and rank(x) > 1 and size(parameter, 0) > 1 else parameter
    )


@op("QLinearConv")
def qlinear_conv(
    x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any, bias: Any = None,
    **attributes: Any,
) -> Any:  # fmt: skip
    def per_filter(parameter: Any) -> Any:
        return ops.reshape(parameter, (-1, *[1] * (rank(w) - 1))) if rank(parameter) else parameter

    data = ops.subtract(cast(x, "float32"), cast(x_zero, "float32"))
    kernel = ops.subtract(cast(w, "float32"), cast(per_filter(w_zero), "float32"))
    total = conv(channels_last(data), kernel, None if bias is None else cast(bias, "float32"), **attributes)
    scale = ops.divide(ops.multiply(x_scale, w_scale), y_scale)
    rounded = plus(ops.round(ops.multiply(total, scale)), cast(y_zero, "float32"))
    return channels_first(saturated(rounded, dtype(y_zero)))
