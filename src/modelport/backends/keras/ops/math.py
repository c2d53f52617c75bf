"""Arithmetic, elementary functions and products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from string import ascii_lowercase
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.narrow import NARROW_TYPES, to_narrow
from modelport.backends.keras.ops.registry import CannotBuild, Ints, op
from modelport.backends.keras.ops.tensors import (
    cast,
    dtype,
    is_float,
    keras_dtype,
    part,
    plus,
    positive,
    precise,
    rank,
    sizes,
    wide,
)
from modelport.graph.quantized import EXACT_PRODUCTS


def in_wide(function: Callable[..., Any], *inputs: Any) -> Any:
    """A function of tensors of one dtype, computed where all kernels are, in that dtype again."""
    return cast(function(*map(wide, inputs)), dtype(inputs[0]))


def truncated_divide(a: Any, b: Any) -> Any:
    """Division of integers towards zero."""
    quotient = ops.floor_divide(ops.abs(a), ops.abs(b))
    return ops.where(ops.logical_xor(ops.less(a, 0), ops.less(b, 0)), ops.negative(quotient), quotient)


@op("Add")
def add(a: Any, b: Any) -> Any:
    return in_wide(plus, a, b)


@op("Sub")
def sub(a: Any, b: Any) -> Any:
    return in_wide(ops.subtract, a, b)


@op("Mul")
def mul(a: Any, b: Any) -> Any:
    return in_wide(ops.multiply, a, b)


@op("Div")
def div(a: Any, b: Any) -> Any:
    return ops.divide(a, b) if is_float(a) or "complex" in dtype(a) else in_wide(truncated_divide, a, b)


@op("Pow")
def power(a: Any, b: Any) -> Any:
    if is_float(a) or not is_float(b):
        return in_wide(ops.power, a, cast(b, dtype(a)))
    return cast(ops.power(cast(a, dtype(b)), b), dtype(a))


@op("Mod")
def mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    if not fmod:
        return in_wide(ops.mod, a, b)
    if is_float(a):
        return ops.fmod(a, b)
    return in_wide(lambda x, y: ops.subtract(x, ops.multiply(truncated_divide(x, y), y)), a, b)


@op("Neg")
def negative(x: Any) -> Any:
    return in_wide(ops.negative, x)


@op("Abs")
def absolute(x: Any) -> Any:
    return in_wide(ops.abs, x)


@op("Sign")
def sign(x: Any) -> Any:
    return in_wide(ops.sign, x)


@op("Reciprocal")
def reciprocal(x: Any) -> Any:
    return ops.divide(1.0, x)


def _elementary(name: str, function: Callable[[Any], Any]) -> None:
    op(name)(lambda x: function(x))


for _name, _function in {
    "Acos": ops.arccos,
    "Acosh": ops.arccosh,
    "Asin": ops.arcsin,
    "Asinh": ops.arcsinh,
    "Atan": ops.arctan,
    "Atanh": ops.arctanh,
    "Ceil": ops.ceil,
    "Cos": ops.cos,
    "Cosh": ops.cosh,
    "Erf": ops.erf,
    "Exp": ops.exp,
    "Floor": ops.floor,
    "Log": ops.log,
    "Round": ops.round,
    "Sin": ops.sin,
    "Sinh": ops.sinh,
    "Sqrt": ops.sqrt,
    "Tan": ops.tan,
    "Tanh": ops.tanh,
}.items():
    _elementary(_name, _function)


@op("Identity")
def identity(x: Any) -> Any:
    return x


@op("Cast")
def cast_(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return to_narrow(x, to, bool(saturate), round_mode) if to in NARROW_TYPES else to_dtype(x, keras_dtype(to))


@op("BitCast")
def bit_cast(x: Any, *, to: int, kinds: tuple[int, ...] = ()) -> Any:
    if NARROW_TYPES & {to, *kinds}:
        raise CannotBuild("the bits of a type that Keras lacks are not at hand")
    target = keras_dtype(to)
    if target == "bool":
        return ops.not_equal(ops.view(x, "uint8"), 0)
    return ops.view(cast(x, "uint8") if dtype(x) == "bool" else x, target)


@op("CastLike")
def cast_like(x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up", kinds: tuple[int, ...] = ()) -> Any:
    if len(kinds) > 1 and kinds[1] in NARROW_TYPES:
        return to_narrow(x, kinds[1], bool(saturate), round_mode)
    return to_dtype(x, dtype(like))


def to_dtype(x: Any, to: str) -> Any:
    """A cast as ONNX defines it: floats are truncated towards zero, and anything but 0 is true."""
    if dtype(x) == to:
        return x
    if to == "bool":
        return ops.not_equal(wide(x), 0)
    if "int" in to and is_float(x):
        # The result of an overflow is undefined; through int64 it wraps around as NumPy's does.
        return cast(cast(ops.trunc(x), "int64"), to)
    return cast(x, to)


@op("Max")
def maximum(*xs: Any) -> Any:
    return in_wide(lambda *values: reduce(ops.maximum, values), *xs)


@op("Min")
def minimum(*xs: Any) -> Any:
    return in_wide(lambda *values: reduce(ops.minimum, values), *xs)


@op("Sum")
def sum_(*xs: Any) -> Any:
    return in_wide(lambda *values: reduce(plus, values), *xs)


@op("Mean")
def mean(*xs: Any) -> Any:
    return ops.divide(reduce(plus, xs), float(len(xs)))


def _is_number(x: Any, number: float) -> bool:
    """Whether an operand is a constant of one number."""
    return isinstance(x, np.ndarray) and x.size == 1 and float(x.reshape(())) == number


@op("Clip")
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    if "float" in dtype(x) and _is_number(low, 0) and (high is None or _is_number(high, 6)):
        return ops.relu(x) if high is None else ops.relu6(x)
    result = wide(x)
    if low is not None:
        result = ops.maximum(result, wide(low))
    if high is not None:
        result = ops.minimum(result, wide(high))
    return cast(result, dtype(x))


@op("MatMul")
def matmul(a: Any, b: Any) -> Any:
    return multiplied(ops.matmul, a, b)


def multiplied(function: Callable[..., Any], *inputs: Any) -> Any:
    """Sums of products of tensors of one dtype, in that dtype again.

    Keras multiplies matrices of integers in single precision; in double precision they are exact up to 2**53.
    """
    if is_float(inputs[0]):
        return function(*inputs)
    return cast(cast(function(*(cast(x, "float64") for x in inputs)), "int64"), dtype(inputs[0]))


@op("Gemm")
def gemm(
    a: Any, b: Any, c: Any = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Any:
    product = multiplied(ops.matmul, ops.transpose(a) if transA else a, ops.transpose(b) if transB else b)
    product = scaled(product, alpha)
    return product if c is None else in_wide(plus, product, scaled(c, beta))


def scaled(x: Any, factor: float) -> Any:
    """A tensor times a number, in its dtype; itself for 1."""
    if factor == 1.0:
        return x
    return ops.multiply(x, factor) if is_float(x) else cast(ops.multiply(cast(x, "float64"), factor), dtype(x))


@op("Einsum")
def einsum(*xs: Any, equation: str) -> Any:
    equation = equation.replace(" ", "")
    if "->" not in equation:
        letters = [c for c in equation if c.isalpha()]
        once = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        equation += "->" + ("..." if "..." in equation else "") + once
    equation = _small(equation)
    if len(xs) == 1 and any(equation.split("->")[0].count(c) > 1 for c in set(equation) - {"."}):
        return _with_diagonal(equation, xs[0])
    return multiplied(lambda *values: ops.einsum(equation, *values), *xs)


def _small(equation: str) -> str:
    """An equation in small letters, the only ones for which Keras tells the shape of the result."""
    letters = sorted({c for c in equation if c.isalpha()})
    if len(letters) > len(ascii_lowercase):
        raise CannotBuild(f"Keras has no einsum of {len(letters)} axes")
    return equation.translate(str.maketrans("".join(letters), ascii_lowercase[: len(letters)]))


def _with_diagonal(equation: str, x: Any) -> Any:
    """An equation of one operand in which one letter stands twice, on the last two axes."""
    operand, result = equation.split("->")
    letter = next(c for c in operand if c.isalpha() and operand.count(c) > 1)
    if not operand.endswith(letter * 2) or operand.count(letter) > 2:
        raise CannotBuild(f"Keras has no einsum for {equation!r}; take the diagonal in the source model")
    return ops.einsum(f"{operand[:-1]}->{result}", ops.diagonal(x, axis1=rank(x) - 2, axis2=rank(x) - 1))


@op("Det")
def det(x: Any) -> Any:
    return ops.det(x)


@op("CumSum")
def cumsum(x: Any, axis: Ints, *, exclusive: int = 0, reverse: int = 0) -> Any:
    return _scan(ops.cumsum, 0, x, axis[0], exclusive, reverse)


@op("CumProd")
def cumprod(x: Any, axis: Ints, *, exclusive: int = 0, reverse: int = 0) -> Any:
    return _scan(ops.cumprod, 1, x, axis[0], exclusive, reverse)


def _scan(function: Callable[..., Any], neutral: int, x: Any, axis: int, exclusive: int, reverse: int) -> Any:
    axis = positive(axis, rank(x))
    data = ops.flip(wide(x), axis=axis) if reverse else wide(x)
    if exclusive:
        # The running result of what comes before: a neutral element in front, the last element left out.
        first = ops.full_like(part(data, axis, 0, 1), neutral)
        data = ops.concatenate([first, part(data, axis, 0, -1)], axis=axis)
    data = function(data, axis=axis)
    return cast(ops.flip(data, axis=axis) if reverse else data, dtype(x))


@op("SwiGLU")
def swiglu(a: Any, b: Any, *, alpha: float = 1.0) -> Any:
    return ops.multiply(ops.multiply(a, ops.sigmoid(ops.multiply(a, alpha))), b)


@op("MatMulInteger")
def matmul_integer(a: Any, b: Any, a_zero_point: Any = None, b_zero_point: Any = None) -> Any:
    # Keras multiplies integers as float32, which has every sum of products of bytes exactly up to a length.
    length = sizes(a)[-1]
    kind = "float32" if length is not None and length <= EXACT_PRODUCTS else "float64"
    left, right = cast(a, kind), cast(b, kind)
    if a_zero_point is not None:
        zero = cast(a_zero_point, kind)
        left = ops.subtract(left, ops.expand_dims(zero, -1) if rank(zero) == 1 and rank(a) > 1 else zero)
    if b_zero_point is not None:
        right = ops.subtract(right, cast(b_zero_point, kind))
    return cast(ops.matmul(left, right), "int32")


@op("MeanVarianceNormalization")
def mean_variance_normalization(x: Any, *, axes: tuple[int, ...] = (0, 2, 3)) -> Any:
    data = precise(x)
    centred = ops.subtract(data, ops.mean(data, axis=axes, keepdims=True))
    deviation = ops.sqrt(ops.mean(ops.square(centred), axis=axes, keepdims=True))
    return cast(ops.divide(centred, plus(deviation, 1e-9)), dtype(x))
