"""Distances between the rows of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints
from modelport.core.errors import UnsupportedOpError

_MANY = 25
"""With more rows than that, torch computes Euclidean distances by a product of matrices, unless it is told not to."""
_BY_PRODUCT, _BY_DIFFERENCE = 1, 2


def between_all(x: Any, y: Any, p: float, compute_mode: int | None) -> Any:
    """(..., rows of x, rows of y): the distance of every two rows, the p-norm of their difference."""
    op = onnxscript.opset21
    rows = (x.shape[-2], y.shape[-2])
    many = any(isinstance(count, int) and count > _MANY for count in rows)
    if p == 2 and (compute_mode == _BY_PRODUCT or (many and compute_mode != _BY_DIFFERENCE)):
        return _by_product(x, y)
    return _norm(op.Sub(op.Unsqueeze(x, ints(-2)), op.Unsqueeze(y, ints(-3))), p, x.dtype)


def _by_product(x: Any, y: Any) -> Any:
    """The root of `|x|^2 - 2 x y + |y|^2`, whose rounding may be below zero."""
    op, axes = onnxscript.opset21, list(range(len(y.shape)))
    turned = op.Transpose(y, perm=[*axes[:-2], axes[-1], axes[-2]])
    squares = op.ReduceSumSquare(x, ints(-1)), op.ReduceSumSquare(turned, ints(-2))
    product = op.Mul(op.MatMul(x, turned), constant(-2.0, x.dtype))
    return op.Sqrt(op.Relu(op.Add(op.Add(product, squares[0]), squares[1])))


def _norm(difference: Any, p: float, dtype: ir.DataType) -> Any:
    """The p-norm over the last axis."""
    op, last = onnxscript.opset21, ints(-1)
    if p == 2:
        return op.ReduceL2(difference, last, keepdims=0)
    if p == 1:
        return op.ReduceL1(difference, last, keepdims=0)
    size = op.Abs(difference)
    if math.isinf(p):
        return op.ReduceMax(size, last, keepdims=0)
    if p == 0:
        return op.ReduceSum(op.Sign(size), last, keepdims=0)
    powers = op.ReduceSum(op.Pow(size, constant(p, dtype)), last, keepdims=0)
    return op.Pow(powers, constant(1 / p, dtype))


def within(x: Any, p: float = 2.0) -> Any:
    """The distances of every two rows of a matrix, the pairs in the order of the upper triangle."""
    op, count = onnxscript.opset21, x.shape[0]
    if not isinstance(count, int):
        raise UnsupportedOpError(
            f"pdist over {count} rows has no ONNX form, since its pairs are counted when the graph is written: fix "
            "the number of rows, or use cdist.",
            op_type="aten._pdist_forward",
            node="",
        )
    first, second = np.triu_indices(count, 1)
    return _norm(op.Sub(op.Gather(x, ints(*first)), op.Gather(x, ints(*second))), p, x.dtype)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten._cdist_forward.default: between_all,
    torch.ops.aten._pdist_forward.default: within,
}
"""What `torch.onnx.export` needs to know."""
