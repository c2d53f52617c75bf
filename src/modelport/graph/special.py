"""Functions that no operator of ONNX is, as graphs of those that are.

Every function takes `emit(op_type, *inputs, **attributes)` as those of `graph.elimination` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelport.graph.elimination import Emit

_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
"""Over `w - 2.5` for `w = -log(1 - x^2)` below 5; the highest power first."""

_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip
"""Over `sqrt(w) - 3`, from 5 on."""


def inverse_error_function(emit: Emit, x: Any, dtype: np.dtype) -> Any:
    """The number whose error function is `x`, of a floating dtype, to single precision.

    Giles, Approximating the erfinv function, GPU Computing Gems, Jade edition (2012).
    """

    def number(value: float) -> np.ndarray:
        return np.asarray(value, dtype)

    def polynomial(w: Any, factors: Sequence[float]) -> Any:
        total: Any = number(factors[0])
        for factor in factors[1:]:
            total = emit("Add", emit("Mul", w, total), number(factor))
        return total

    w = emit("Neg", emit("Log", emit("Mul", emit("Sub", number(1), x), emit("Add", x, number(1)))))
    near = polynomial(emit("Sub", w, number(2.5)), _NEAR)
    far = polynomial(emit("Sub", emit("Sqrt", w), number(3)), _FAR)
    inside = emit("Mul", x, emit("Where", emit("Less", w, number(5)), near, far))
    edge = emit("Mul", x, number(np.inf))
    return emit("Where", emit("Equal", emit("Abs", x), number(1)), edge, inside)


def running_product(emit: Emit, x: Any, axis: int, size: int, dtype: np.dtype, *, reverse: bool = False) -> Any:
    """The product of everything up to each element of an axis of `size`; from each element on where `reverse`.

    Each round takes in twice as many elements as the one before.
    """
    step = 1
    while step < size:
        x = emit("Mul", x, shifted_ones(emit, x, axis, step, size, dtype, reverse=reverse))
        step *= 2
    return x


def shifted_ones(emit: Emit, x: Any, axis: int, step: int, size: int, dtype: np.dtype, *, reverse: bool = False) -> Any:
    """For every element the one so many places before it, behind it where `reverse`; a one where there is none."""
    ends = (size - step, size) if reverse else (0, step)
    edge = emit("Slice", x, [ends[0]], [ends[1]], [axis])
    ones = emit("Expand", np.asarray(1, dtype), emit("Shape", edge))
    rest = emit("Slice", x, [step], [size], [axis]) if reverse else emit("Slice", x, [0], [size - step], [axis])
    return emit("Concat", *((rest, ones) if reverse else (ones, rest)), axis=axis)
