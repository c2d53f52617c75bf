"""One element at a time: functions, arithmetic, comparisons, logic, casts."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.properties.drawing import (
    ANY,
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    INTEGERS,
    NUMBERS,
    U8,
    Scope,
    Unfit,
    Value,
)
from tests.properties.operators.registry import operator

ANYWHERE = (-6.0, 6.0)

FUNCTIONS: dict[str, tuple[int, tuple[float, float]]] = {
    "Abs": (6, ANYWHERE), "Acos": (7, (-0.9, 0.9)), "Acosh": (9, (1.1, 6.0)), "Asin": (7, (-0.9, 0.9)),
    "Asinh": (9, ANYWHERE), "Atan": (7, ANYWHERE), "Atanh": (9, (-0.9, 0.9)), "Ceil": (6, ANYWHERE),
    "Cos": (7, ANYWHERE), "Cosh": (9, (-3.0, 3.0)), "Erf": (9, ANYWHERE), "Exp": (6, (-6.0, 3.0)),
    "Floor": (6, ANYWHERE), "HardSwish": (14, ANYWHERE), "Identity": (1, ANYWHERE), "Log": (6, (0.1, 50.0)),
    "Mish": (18, ANYWHERE), "Neg": (6, ANYWHERE), "Reciprocal": (6, (0.2, 50.0)), "Relu": (6, ANYWHERE),
    "Round": (11, ANYWHERE), "Sigmoid": (6, ANYWHERE), "Sign": (9, ANYWHERE), "Sin": (7, ANYWHERE),
    "Sinh": (9, (-3.0, 3.0)), "Softplus": (1, ANYWHERE), "Softsign": (1, ANYWHERE), "Sqrt": (6, (0.05, 50.0)),
    "Tan": (7, (-1.2, 1.2)), "Tanh": (6, ANYWHERE), "IsNaN": (9, ANYWHERE), "IsInf": (10, ANYWHERE),
}  # fmt: skip
"""Functions without attributes: since when, and where they are tame."""

SETTINGS: dict[str, tuple[int, dict[str, tuple[float, float]]]] = {
    "Celu": (12, {"alpha": (0.5, 2.0)}),
    "Elu": (6, {"alpha": (0.5, 2.0)}),
    "HardSigmoid": (6, {"alpha": (0.1, 0.5), "beta": (0.2, 0.8)}),
    "LeakyRelu": (6, {"alpha": (0.01, 0.5)}),
    "Selu": (6, {"alpha": (0.5, 2.0), "gamma": (0.5, 2.0)}),
    "Shrink": (9, {"bias": (0.0, 1.0), "lambd": (0.1, 1.0)}),
    "Swish": (24, {"alpha": (0.5, 2.0)}),
    "ThresholdedRelu": (10, {"alpha": (0.1, 2.0)}),
}


@operator(weight=10)
def function(s: Scope) -> None:
    name = s.choose(sorted(FUNCTIONS))
    since, (low, high) = FUNCTIONS[name]
    if s.opset < since:
        raise Unfit
    dtypes = (*FLOATS, *INTEGERS) if name in ("Abs", "Neg", "Relu", "Sign") else ANY if name == "Identity" else FLOATS
    s.op(name, s.bounded(low, high, dtypes))


@operator(weight=4)
def function_with_settings(s: Scope) -> None:
    name = s.choose(sorted(SETTINGS))
    since, settings = SETTINGS[name]
    if s.opset < since:
        raise Unfit
    attributes = {key: s.maybe(s.real(low, high)) for key, (low, high) in settings.items()}
    s.op(name, s.bounded(*ANYWHERE), **attributes)


@operator(20)
def gelu(s: Scope) -> None:
    s.op("Gelu", s.bounded(*ANYWHERE), approximate=s.choose([None, "tanh", "none"]))


@operator(7)
def dropout(s: Scope) -> None:
    x = s.value()
    if s.opset < 12:
        s.ops("Dropout", [x], (True,), ratio=s.maybe(0.25))
        return
    ratio = s.given(np.asarray(0.25, np.float32)) if s.chance(50) else None
    training = s.given(np.asarray(False)) if s.chance(30) else None
    s.ops("Dropout", [x, ratio, training], (True, s.chance(30)))


@operator(6)
def clip(s: Scope) -> None:
    if s.opset < 11:
        s.op("Clip", s.value(), min=s.maybe(s.real(-2, 0)), max=s.maybe(s.real(0.5, 2)))
        return
    x = s.value(NUMBERS)
    low = s.given(np.asarray(s.integer(0, 1), x.dtype)) if s.chance(60) else None
    high = s.given(np.asarray(s.integer(1, 3), x.dtype)) if s.chance(60) else None
    s.op("Clip", x, low, high)


# Two or more operands that broadcast.


def _pair(s: Scope, x: Value, y: Value) -> tuple[Value, Value]:
    return (x, y) if s.chance(60) else (y, x)


@operator(7, weight=5)
def arithmetic(s: Scope) -> None:
    x = s.value(NUMBERS)
    s.op(s.choose(["Add", "Mul", "Sub"]), *_pair(s, x, s.beside(x, low=-9, high=9)))


@operator(7, weight=2)
def divide(s: Scope) -> None:
    x = s.value((F32, F64, F16, I32, I64))
    if x.dtype in FLOATS:
        s.op("Div", x, s.beside(x, low=0.3, high=9))
    else:
        s.op("Div", x, s.beside(x, low=1, high=9))


@operator(10, weight=2)
def modulo(s: Scope) -> None:
    x = s.value(NUMBERS)
    fmod = 1 if x.dtype in FLOATS else s.choose([None, 0, 1])
    if fmod and x.dtype == I64 and any((np.abs(array) > 2**53).any() for array in x.worlds):
        # ONNX Runtime takes the remainder of float64 numbers.
        raise Unfit
    s.op("Mod", x, s.beside(x, low=1, high=9), fmod=fmod)


@operator(7)
def power(s: Scope) -> None:
    if s.chance(50):
        x = s.bounded(0.1, 4)
        s.op("Pow", x, s.beside(x, (x.dtype, F32, I64) if s.opset >= 12 else None, -2, 2))
    else:
        x = s.value((F32, F64, I32, I64))
        exponent = s.given(
            np.asarray(s.choose([2, 3, 1, 0]), x.dtype if s.opset < 12 else s.choose([F32, I64, x.dtype]))
        )
        s.op("Pow", x, exponent)


@operator(8, weight=2)
def several(s: Scope) -> None:
    name = s.choose(["Max", "Min", "Sum", "Mean"])
    x = s.value(NUMBERS if name in ("Max", "Min") else FLOATS)
    s.op(name, x, *(s.beside(x) for _ in range(s.integer(0, 2))))


@operator(7)
def prelu(s: Scope) -> None:
    x = s.value()
    if x.rank > 2 and s.chance(60):
        s.op("PRelu", x, s.weight((x.dims[1], *[1] * (x.rank - 2)), x.dtype))
        return
    start = s.integer(0, x.rank)
    s.op("PRelu", x, s.leaf([1 if s.chance(30) else dim for dim in x.dims[start:]], x.dtype))


@operator(11)
def shift(s: Scope) -> None:
    x = s.bounded(0, 200, (U8, np.dtype("uint32"), np.dtype("uint64")))
    s.op("BitShift", x, s.beside(x, low=0, high=5), direction=s.choose(["LEFT", "RIGHT"]))


@operator(18)
def bits(s: Scope) -> None:
    name = s.choose(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"])
    x = s.value(INTEGERS)
    s.op(name, x, *([] if name == "BitwiseNot" else [s.beside(x)]))


@operator(7, weight=2)
def logic(s: Scope) -> None:
    name = s.choose(["And", "Or", "Xor", "Not"])
    x = s.value((BOOL,))
    s.op(name, x, *([] if name == "Not" else [s.beside(x)]))


@operator(7, weight=3)
def compare(s: Scope) -> None:
    name = s.choose(["Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual"])
    x = s.value((*NUMBERS, BOOL) if name == "Equal" else NUMBERS)
    s.op(name, *_pair(s, x, s.beside(x)))


@operator(9, weight=2)
def where(s: Scope) -> None:
    x = s.value(ANY)
    s.op("Where", s.beside(x, (BOOL,)), *_pair(s, x, s.beside(x)))


@operator(6, weight=3)
def cast(s: Scope) -> None:
    target = s.choose([F32, F64, I64, I32, F16, BOOL, U8, BF16])
    # Out of an integer's range the result of a cast is not defined.
    x = s.bounded(0, 250, ANY) if target == U8 else s.value(ANY)
    if s.opset >= 15 and s.chance(30):
        s.op("CastLike", x, s.leaf(s.dims(s.integer(0, 2)), target))
    else:
        s.op("Cast", x, to=int(helper.np_dtype_to_tensor_dtype(target)))


@operator(28)
def swiglu(s: Scope) -> None:
    x = s.bounded(*ANYWHERE)
    s.op("SwiGLU", x, same_shape(s, x), alpha=s.maybe(s.real(0.5, 2.0)))


def same_shape(s: Scope, x: Value) -> Value:
    """A value of the same dtype and sizes."""
    return s.value((x.dtype,), x.rank, lambda value: value.dims == x.dims, lambda: s.leaf(x.dims, x.dtype))


@operator(26)
def bit_cast(s: Scope) -> None:
    x = s.value((F32, I32, I64))
    target = {F32: I32, I32: s.choose([I32, np.dtype("uint32")]), I64: np.dtype("uint64")}[x.dtype]
    s.op("BitCast", x, to=int(helper.np_dtype_to_tensor_dtype(target)))
