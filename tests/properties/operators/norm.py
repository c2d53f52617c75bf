"""Normalisations, matrix products and what has weights besides."""

from __future__ import annotations

import numpy as np

from tests.properties.drawing import F32, F64, FLOATS, I8, I32, I64, U8, Dim, Scope, Unfit, Value
from tests.properties.operators.image import image
from tests.properties.operators.registry import operator
from tests.properties.operators.shape import least

EPSILON = (1e-3, 1e-2)


@operator(7, weight=2)
def batch_norm(s: Scope) -> None:
    x = s.value((F32, F64), (2, 3, 4, 5), lambda v: v.is_static(1)) if s.chance(50) else image(s)
    channels = x.dims[1]
    if not isinstance(channels, int):
        raise Unfit
    around = [s.weight((channels,), x.dtype) for _ in range(3)]
    s.op("BatchNormalization", x, *around, s.weight((channels,), x.dtype, 0.3, 2), epsilon=s.maybe(s.real(*EPSILON)))


def _spread(v: Value, *axes: int) -> bool:
    """Whether there is more than one element to normalise."""
    return all(least(v.dims[axis]) > 1 for axis in axes)


@operator(6)
def instance_norm(s: Scope) -> None:
    x = image(s, least_size=2)
    channels = x.dims[1]
    s.op(
        "InstanceNormalization",
        x,
        s.weight((channels,), x.dtype),
        s.weight((channels,), x.dtype),
        epsilon=s.maybe(s.real(*EPSILON)),
    )


@operator(17, weight=2)
def layer_norm(s: Scope) -> None:
    name = "RMSNormalization" if s.opset >= 23 and s.chance(40) else "LayerNormalization"
    x = s.value(FLOATS, (2, 3, 4), lambda v: _spread(v, -1))
    axis = s.choose([-1, x.rank - 1, -2])
    if not x.is_static(*range(axis % x.rank, x.rank)):
        raise Unfit
    dims = x.dims[axis % x.rank :]
    scale = s.weight(dims, x.dtype)
    bias = [s.weight(dims, x.dtype)] if name == "LayerNormalization" and s.chance(60) else []
    s.op(name, x, scale, *bias, axis=s.maybe(axis) if axis == -1 else axis, epsilon=s.maybe(s.real(*EPSILON)))


@operator(18)
def group_norm(s: Scope) -> None:
    groups = s.integer(1, 2)
    channels = groups * s.integer(1, 3)
    x = image(s, channels=channels, least_size=2)
    count = channels if s.opset >= 21 else groups
    s.op(
        "GroupNormalization",
        x,
        s.weight((count,), x.dtype),
        s.weight((count,), x.dtype),
        num_groups=groups,
        epsilon=s.maybe(s.real(*EPSILON)),
    )


@operator(9)
def mean_variance(s: Scope) -> None:
    x = image(s, (4,), least_size=2)
    s.op("MeanVarianceNormalization", x, axes=s.choose([None, [0, 2, 3], [2, 3], [1, 2, 3]]))


@operator(1)
def lp_norm(s: Scope) -> None:
    x = s.bounded(0.1, 3, (F32, F64))
    s.op("LpNormalization", x, axis=s.maybe(s.axis(x)), p=s.choose([None, 1, 2]))


# Matrices.


@operator(1, weight=4)
def matmul(s: Scope) -> None:
    x = s.value((F32, F64, I32, I64) if s.opset >= 9 else (F32, F64), range(1, 5))
    if x.dtype == I64 and any((np.abs(array.astype(float)) > 2**31).any() for array in x.worlds):
        # Keras has no products of matrices of integers: those of float64 are exact up to 2**53.
        raise Unfit
    inner = x.dims[-1]
    if isinstance(inner, int) and s.chance(50):
        y = s.weight((inner, s.integer(1, 4)), x.dtype)
    else:
        kinds: list[tuple[Dim, ...]] = [(inner, s.dim()), (*x.dims[:-2], inner, s.dim()), (inner,)]
        y = s.leaf(s.choose(kinds), x.dtype)
    s.op("MatMul", x, y)


@operator(7, weight=3)
def gemm(s: Scope) -> None:
    x = s.value((F32, F64), 2)
    turned = s.choose([None, 0, 1])
    inner, rows = x.dims[0 if turned else 1], x.dims[1 if turned else 0]
    out, other = s.integer(1, 4), s.choose([None, 0, 1])
    dims = (out, inner) if other else (inner, out)
    y = s.weight(dims, x.dtype) if isinstance(inner, int) else s.leaf(dims, x.dtype)
    shapes: list[tuple[Dim, ...]] = [(out,), (1, out), (rows, out), (1,), (), (rows, 1)]
    bias = s.leaf(s.choose(shapes), x.dtype) if s.opset < 11 or s.chance(70) else None
    s.op("Gemm", x, y, bias, transA=turned, transB=other, alpha=s.maybe(s.real(0.5, 2)), beta=s.maybe(s.real(0.5, 2)))


EQUATIONS = (
    "ij,jk->ik", "bij,bjk->bik", "bij,kj->bik", "ij->ji", "ij->", "ij->i", "bhid,bhjd->bhij", "i,j->ij",
    "...i,...i->...", "ii->i", "bij,bij->b", "...ij,jk->...ik", "ij,jk", "ij , ij -> j", "bi,i,bi->b", "ii",
)  # fmt: skip


@operator(12, weight=2)
def einsum(s: Scope) -> None:
    equation = s.choose(EQUATIONS)
    letters: dict[str, Dim] = {letter: s.dim() for letter in "bhijkd"}
    terms = equation.replace(" ", "").split("->")[0].split(",")
    dtype = s.choose([F32, F64])
    rows = s.dim()
    shapes = [[rows] * term.count("...") + [letters[x] for x in term.replace("...", "")] for term in terms]
    s.op("Einsum", *(s.leaf(shape, dtype) for shape in shapes), equation=equation)


@operator(10)
def integer_products(s: Scope) -> None:
    kinds = (U8, I8)
    if s.chance(50):
        x = s.leaf((s.dim(), s.dim(), 3), s.choose(kinds), -9, 9)
        y = s.weight((3, 2), s.choose(kinds), -9, 9)
        zeros = [s.given(np.asarray(s.integer(0, 3), each.dtype)) if s.chance(50) else None for each in (x, y)]
        s.op("MatMulInteger", x, y, *zeros)
    else:
        x = s.leaf((s.dim(), 2, 5, 4), U8, 0, 9)
        y = s.weight((3, 2, 2, 2), U8, 0, 9)
        zeros = [s.given(np.asarray(s.integer(0, 3), U8)) if s.chance(50) else None for each in (x, y)]
        s.op("ConvInteger", x, y, *zeros, pads=s.maybe([1, 0, 1, 1]), strides=s.maybe([2, 1]))


def _scale(s: Scope, shape: tuple[int, ...], dtype: np.dtype = F32) -> Value:
    return s.given(s.array(shape, dtype, 0.05, 0.5), "w")


@operator(10, weight=3)
def quantize(s: Scope) -> None:
    x = s.value((F32,))
    kind = s.choose([U8, I8])
    axis, shape = None, ()
    if s.opset >= 13 and x.rank and s.chance(50):
        axis = s.axis(x)
        if not x.is_static(axis):
            raise Unfit
        shape = (x.dims[axis],)
    scale = _scale(s, shape)
    zero = s.given(s.array(shape, kind, 0, 20), "w") if axis is not None or kind == I8 or s.chance(60) else None
    found = s.op("QuantizeLinear", x, scale, zero, axis=axis)
    if s.chance(70):
        s.op("DequantizeLinear", found, scale, zero, axis=axis)


@operator(11)
def quantize_dynamically(s: Scope) -> None:
    x = s.leaf(s.dims(s.integer(1, 3)))
    if not all(array.any() for array in x.worlds):
        # The standard does not say what the scale of a range of nothing is.
        raise Unfit
    s.ops("DynamicQuantizeLinear", [x], (True, True, True))


@operator(10)
def quantized_products(s: Scope) -> None:
    def zero() -> Value:
        return s.given(np.asarray(s.integer(0, 5), U8), "w")

    if s.chance(50):
        x, y = s.leaf((s.dim(), 3, 4), U8, 0, 9), s.weight((4, 2), U8, 0, 9)
        s.op("QLinearMatMul", x, _scale(s, ()), zero(), y, _scale(s, ()), zero(), _scale(s, ()), zero())
    else:
        x, y = s.leaf((s.dim(), 2, 5, 4), U8, 0, 9), s.weight((3, 2, 2, 2), U8, 0, 9)
        bias = s.weight((3,), I32) if s.chance(50) else None
        scales = [_scale(s, ()) for _ in range(3)]
        s.op(
            "QLinearConv",
            x,
            scales[0],
            zero(),
            y,
            scales[1],
            zero(),
            scales[2],
            zero(),
            bias,
            pads=s.maybe([1, 1, 0, 0]),
        )
