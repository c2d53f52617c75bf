"""Elementwise arithmetic, comparison and logic; matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op
from modelport.graph.special import inverse_error_function, running_product, shifted_ones

UNARY = {
    "Abs": "Abs", "Neg": "Neg", "Sqrt": "Sqrt", "Exp": "Exp", "Log": "Log", "Sin": "Sin", "Cos": "Cos", "Tan": "Tan",
    "Asin": "Asin", "Acos": "Acos", "Atan": "Atan", "Sinh": "Sinh", "Cosh": "Cosh", "Asinh": "Asinh",
    "Acosh": "Acosh", "Atanh": "Atanh", "Tanh": "Tanh", "Sigmoid": "Sigmoid", "Floor": "Floor", "Ceil": "Ceil",
    "Round": "Round", "Rint": "Round", "Sign": "Sign", "Erf": "Erf", "Reciprocal": "Reciprocal",
    "Inv": "Reciprocal", "IsNan": "IsNaN", "IsInf": "IsInf", "Relu": "Relu", "Softplus": "Softplus",
    "Softsign": "Softsign", "LogicalNot": "Not", "Invert": "BitwiseNot",
}  # fmt: skip
"""Ops of one input that ONNX has too."""

BINARY = {
    "Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div", "Div": "Div", "TruncateDiv": "Div",
    "Pow": "Pow", "Maximum": "Max", "Minimum": "Min", "Equal": "Equal", "Less": "Less", "LessEqual": "LessOrEqual",
    "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "LogicalAnd": "And", "LogicalOr": "Or",
    "BitwiseAnd": "BitwiseAnd", "BitwiseOr": "BitwiseOr", "BitwiseXor": "BitwiseXor",
}  # fmt: skip
"""Ops of two broadcasting inputs that ONNX has too."""

_NEUTRAL = {"Mul": 1, "RealDiv": 1, "Add": 0, "AddV2": 0, "Sub": 0}


@op(*UNARY)
def unary(g: Context, x: ir.Value) -> ir.Value:
    return g(UNARY[g.op.type], x)


@op(*BINARY)
def binary(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    if g.op.inputs[0].dtype.is_complex:
        return _complex(g, a, b)
    neutral = _NEUTRAL.get(g.op.type)
    if neutral is not None and _is_scalar(g, 1, neutral):
        return a
    if neutral is not None and g.op.type not in ("Sub", "RealDiv") and _is_scalar(g, 0, neutral):
        return b
    return g(BINARY[g.op.type], a, b)


def _complex(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    """Sums, differences and products of pairs."""
    if g.op.type != "Mul":
        if g.op.type not in ("Add", "AddV2", "Sub"):
            raise g.fail(f"{g.op.type} of complex numbers has no portable form")
        return g(BINARY[g.op.type], a, b)
    (real, imaginary), (other, turn) = ([g("Slice", x, [i], [i + 1], [-1]) for i in range(2)] for x in (a, b))
    return g(
        "Concat",
        g("Sub", g("Mul", real, other), g("Mul", imaginary, turn)),
        g("Add", g("Mul", real, turn), g("Mul", imaginary, other)),
        axis=-1,
    )


def _is_scalar(g: Context, index: int, number: int) -> bool:
    constant = g.static(index)
    return constant is not None and constant.ndim == 0 and constant.dtype.kind in "fiu" and constant == number


@op("NotEqual")
def not_equal(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    return g("Not", g("Equal", a, b))


@op("LogicalXor")
def logical_xor(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    return g("Xor", a, b)


@op("LeftShift", "RightShift")
def shift(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    dtype = g.dtype(0)
    if not dtype.is_signed():
        return g("BitShift", a, b, direction=g.op.type.removesuffix("Shift").upper())
    wide, powers = g.int64(a), g("Pow", np.asarray(2, np.int64), g.int64(b))
    if g.op.type == "LeftShift":
        return g.cast(g("Mul", wide, powers), dtype)
    return g.cast(g("Div", g("Sub", wide, g("Mod", wide, powers)), powers), dtype)


@op("Rsqrt")
def rsqrt(g: Context, x: ir.Value) -> ir.Value:
    return g("Reciprocal", g("Sqrt", x))


@op("Square")
def square(g: Context, x: ir.Value) -> ir.Value:
    return g("Mul", x, x)


@op("SquaredDifference")
def squared_difference(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    difference = g("Sub", a, b)
    return g("Mul", difference, difference)


@op("Log1p")
def log1p(g: Context, x: ir.Value) -> ir.Value:
    return g("Log", g("Add", x, 1))


@op("Expm1")
def expm1(g: Context, x: ir.Value) -> ir.Value:
    return g("Sub", g("Exp", x), 1)


@op("Erfc")
def erfc(g: Context, x: ir.Value) -> ir.Value:
    return g("Sub", 1, g("Erf", x))


@op("Erfinv")
def erfinv(g: Context, x: ir.Value) -> ir.Value:
    return inverse_error_function(g, x, g.dtype(0).numpy())


@op("IsFinite")
def is_finite(g: Context, x: ir.Value) -> ir.Value:
    return g("Not", g("Or", g("IsNaN", x), g("IsInf", x)))


@op("DivNoNan")
def div_no_nan(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    zero = g("Equal", b, 0)
    # The divisor is replaced too: the branch that is not taken must not make NaN gradients.
    return g("Where", zero, g.operand(0, (a,)), g("Div", a, g("Where", zero, g.operand(1, (a,)), b)))


@op("MulNoNan")
def mul_no_nan(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    return g("Where", g("Equal", b, 0), g.operand(0, (a,)), g("Mul", a, b))


@op("Xlogy")
def xlogy(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    zero = g("Equal", a, 0)
    return g("Where", zero, g.operand(0, (a,)), g("Mul", a, g("Log", g("Where", zero, g.operand(1, (a,)), b))))


@op("FloorDiv")
def floor_div(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    if g.dtype(0).is_floating_point():
        return g("Floor", g("Div", a, b))
    # ONNX's integer Div truncates; less the floored remainder it is exact.
    return g("Div", g("Sub", a, g("Mod", a, b)), b)


@op("FloorMod")
def floor_mod(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    if g.dtype(0).is_floating_point():
        return g("Sub", a, g("Mul", g("Floor", g("Div", a, b)), b))
    return g("Mod", a, b)


@op("TruncateMod", "Mod")
def truncate_mod(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    return g("Mod", a, b, fmod=1)


@op("Atan2")
def atan2(g: Context, y: ir.Value, x: ir.Value) -> ir.Value:
    zero, pi = g.operand(0, (x,)), g.operand(np.pi, (x,))
    upright = g("Equal", x, 0)
    angle = g("Atan", g("Div", y, g("Where", upright, g.operand(1, (x,)), x)))
    half_turn = g("Where", g("Less", y, 0), g("Neg", pi), pi)
    turned = g("Add", angle, g("Where", g("Less", x, 0), half_turn, zero))
    return g("Where", upright, g("Mul", g("Sign", y), np.pi / 2), turned)


@op("AddN")
def add_n(g: Context, *inputs: ir.Value) -> ir.Value:
    return inputs[0] if len(inputs) == 1 else g("Sum", *inputs)


@op("ClipByValue")
def clip_by_value(g: Context, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    return g("Min", g("Max", x, low), high)


@op("Cast", complex_=True)
def cast(g: Context, x: ir.Value) -> ir.Value:
    source, target = g.op.inputs[0].dtype, g.op.outputs[0].dtype
    dtype = ir.DataType.from_numpy(np.dtype(target.real_dtype.as_numpy_dtype))
    if source.is_complex == target.is_complex:
        return g("Cast", x, to=dtype.value) if source.is_complex else g.cast(x, dtype)
    if source.is_complex:
        return g("Cast", g("Gather", x, np.asarray(0, np.int64), axis=-1), to=dtype.value)
    real = g("Unsqueeze", g.cast(x, dtype), [-1])
    return g("Concat", real, g("Sub", real, real), axis=-1)


@op("Bitcast")
def bitcast(g: Context, x: ir.Value) -> ir.Value:
    """Signed bytes that a layer carries are signed in the graph; other bits are not read as numbers of another type."""
    wanted = g.result_dtype()
    if x.dtype != wanted:
        raise g.fail(f"the bits of {x.dtype.name if x.dtype else '?'} are read as {wanted.name}")
    return g("Identity", x)


@op("SelectV2")
def select(g: Context, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    return g("Where", condition, a, b)


@op("Select")
def select_rows(g: Context, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    missing = g.rank(1) - g.rank(0)
    if g.rank(0) == 1 and missing:
        condition = g("Unsqueeze", condition, list(range(1, 1 + missing)))
    return g("Where", condition, a, b)


@op("MatMul")
def matmul(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    return _product(g, a, b, g.attr("transpose_a"), g.attr("transpose_b"))


@op("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_matmul(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    return _product(g, a, b, g.attr("adj_x"), g.attr("adj_y"))


def _product(g: Context, a: ir.Value, b: ir.Value, turn_a: bool, turn_b: bool) -> ir.Value:
    return g("MatMul", _turned(g, a, g.rank(0)) if turn_a else a, _turned(g, b, g.rank(1)) if turn_b else b)


def _turned(g: Context, x: ir.Value, rank: int) -> ir.Value:
    return g.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


@op("Einsum")
def einsum(g: Context, *inputs: ir.Value) -> ir.Value:
    equation = g.attr("equation").replace(" ", "")
    terms, _, output = equation.partition("->")
    labels = terms.split(",")
    plan = _matmul_plan(labels[0], labels[1], output) if len(labels) == 2 and "." not in equation else None
    if plan is None:
        return g("Einsum", *inputs, equation=equation)
    left, right, between = plan
    product = g(
        "MatMul",
        g.transpose(inputs[0], [labels[0].index(c) for c in left]),
        g.transpose(inputs[1], [labels[1].index(c) for c in right]),
    )
    return g.transpose(product, [between.index(c) for c in output])


def _matmul_plan(a: str, b: str, output: str) -> tuple[str, str, str] | None:
    """The orders of axes in which an einsum of two is one MatMul; `None` where it is not."""
    if any(len(set(labels)) != len(labels) for labels in (a, b, output)) or set(output) - set(a + b):
        return None
    batch = [c for c in output if c in a and c in b]
    rows = [c for c in a if c not in b]
    columns = [c for c in b if c not in a]
    summed = [c for c in a if c in b and c not in output]
    if [len(rows), len(columns), len(summed)] != [1, 1, 1] or set(output) != {*batch, *rows, *columns}:
        return None
    head = "".join(batch)
    return head + rows[0] + summed[0], head + summed[0] + columns[0], head + rows[0] + columns[0]


def _running_product(g: Context, x: ir.Value, axis: int) -> ir.Value:
    shape = g.shape(0)
    size = None if shape is None else shape[axis]
    if size is None:
        raise g.fail("the size of the axis along which products run is not known")
    dtype, reverse = g.dtype(0).numpy(), bool(g.attr("reverse"))
    if g.attr("exclusive"):
        x = shifted_ones(g, x, axis, min(1, size), size, dtype, reverse=reverse)
    return running_product(g, x, axis, size, dtype, reverse=reverse)


@op("Cumsum", "Cumprod", static=(1,))
def cumulative(g: Context, x: ir.Value, axis: np.ndarray) -> ir.Value:
    if g.op.type == "Cumprod":
        return _running_product(g, x, int(axis.item()))
    flags: dict[str, Any] = {"exclusive": int(g.attr("exclusive")), "reverse": int(g.attr("reverse"))}
    return g("CumSum", x, axis.astype(np.int64), **flags)
