"""Comparisons, logic, bits, and choosing by a condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.math import in_wide
from modelport.backends.keras.ops.registry import op
from modelport.backends.keras.ops.tensors import cast, dtype, plus, sizes, wide


@op("And")
def logical_and(a: Any, b: Any) -> Any:
    return ops.logical_and(a, b)


@op("Or")
def logical_or(a: Any, b: Any) -> Any:
    return ops.logical_or(a, b)


@op("Xor")
def logical_xor(a: Any, b: Any) -> Any:
    return ops.logical_xor(a, b)


@op("Not")
def logical_not(x: Any) -> Any:
    return ops.logical_not(x)


@op("Equal")
def equal(a: Any, b: Any) -> Any:
    return ops.equal(wide(a), wide(b))


@op("Less")
def less(a: Any, b: Any) -> Any:
    return ops.less(wide(a), wide(b))


@op("LessOrEqual")
def less_equal(a: Any, b: Any) -> Any:
    return ops.less_equal(wide(a), wide(b))


@op("Greater")
def greater(a: Any, b: Any) -> Any:
    return ops.greater(wide(a), wide(b))


@op("GreaterOrEqual")
def greater_equal(a: Any, b: Any) -> Any:
    return ops.greater_equal(wide(a), wide(b))


@op("IsNaN")
def is_nan(x: Any) -> Any:
    return ops.isnan(x)


@op("IsInf")
def is_inf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    if detect_negative and detect_positive:
        return ops.isinf(x)
    if not detect_negative and not detect_positive:
        return ops.zeros_like(x, dtype="bool")
    return ops.equal(x, float("inf") if detect_positive else -float("inf"))


@op("Where")
def where(condition: Any, a: Any, b: Any) -> Any:
    if dtype(a) == "bool":
        return ops.logical_or(ops.logical_and(condition, a), ops.logical_and(ops.logical_not(condition), b))
    return cast(ops.where(condition, wide(a), wide(b)), dtype(a))


def _of_bits(function: Callable[..., Any], a: Any, b: Any) -> Any:
    """A function of the bits of two tensors; Keras says of its result that it has the shape of the first."""
    if sizes(a) != sizes(b):
        a = in_wide(plus, a, ops.zeros_like(b))
    return in_wide(function, a, b)


@op("BitwiseAnd")
def bitwise_and(a: Any, b: Any) -> Any:
    return _of_bits(ops.bitwise_and, a, b)


@op("BitwiseOr")
def bitwise_or(a: Any, b: Any) -> Any:
    return _of_bits(ops.bitwise_or, a, b)


@op("BitwiseXor")
def bitwise_xor(a: Any, b: Any) -> Any:
    return _of_bits(ops.bitwise_xor, a, b)


@op("BitwiseNot")
def bitwise_not(x: Any) -> Any:
    return in_wide(ops.bitwise_not, x)


@op("BitShift")
def bit_shift(a: Any, b: Any, *, direction: str) -> Any:
    bits = 8 * np.dtype(dtype(a)).itemsize
    beyond = ops.logical_or(ops.less(wide(b), 0), ops.greater_equal(wide(b), bits))
    if direction == "LEFT":
        return cast(ops.where(beyond, 0, _of_bits(ops.left_shift, wide(a), wide(b))), dtype(a))
    # Beyond its width a number is all sign.
    places = ops.where(beyond, bits - 1, wide(b))
    shifted = _of_bits(ops.right_shift, wide(a), cast(places, dtype(wide(a))))
    return cast(shifted if dtype(a).startswith("int") else ops.where(beyond, 0, shifted), dtype(a))
