"""Small matrices: inverted, solved and factored by elimination that is written out row by row.

Golub and Van Loan, Matrix Computations, 4th edition: algorithms 3.4.1 (partial pivoting), 3.1.1 and 4.2.2.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints
from modelport.core.errors import UnsupportedOpError
from modelport.core.report import Note

LARGEST = 32
"""Of more rows than that no elimination is written out."""


def inverse(a: Any, check_errors: bool = False) -> tuple[Any, Any]:
    """The inverse of each matrix, and torch's sign that it has one."""
    op, rows = onnxscript.opset21, _order(a, "inverse")
    same = op.Expand(constant(np.eye(rows), a.dtype), op.Shape(a))
    return _eliminated(a, same, rows, a.dtype), _no_error(a)


def solution(a: Any, b: Any, left: bool = True, check_errors: bool = False) -> tuple[Any, Any, Any, Any]:
    """`x` of `a x = b`, for vectors `b` where it has an axis less, and what torch keeps for its gradient.

    Where not `left`, of `x a = b`.
    """
    op, rows = onnxscript.opset21, _order(a, "solve")
    is_vector = len(b.shape) == len(a.shape) - 1
    column = op.Unsqueeze(b, ints(-1)) if is_vector else b
    rank = len(a.shape)
    if left:
        found = _eliminated(a, column, rows, a.dtype)
    else:
        found = _turned(_eliminated(_turned(a, rank), _turned(column, rank), rows, a.dtype), rank)
    return op.Squeeze(found, ints(-1)) if is_vector else found, op.Identity(a), _no_error(a), _no_error(a)


def log_determinant(a: Any) -> tuple[Any, Any, Any, Any]:
    """The sign of each determinant and the logarithm of its size, and what torch keeps for its gradient."""
    op = onnxscript.opset21
    found = op.Det(a)
    return op.Sign(found), op.Log(op.Abs(found)), op.Identity(a), _no_error(a)


def cholesky(a: Any, upper: bool = False, check_errors: bool = False) -> tuple[Any, Any]:
    """The triangular factor of each symmetric positive definite matrix, and torch's sign that it has one."""
    op, rows = onnxscript.opset21, _order(a, "cholesky")
    columns: list[Any] = []
    for j in range(rows):
        column = _column(a, j)
        for known in columns:
            column = op.Sub(column, op.Mul(known, _row(known, j)))
        below = constant((np.arange(rows) >= j)[:, None], a.dtype)
        columns.append(op.Mul(op.Div(column, op.Sqrt(_row(column, j))), below))
    factor = op.Concat(*columns, axis=-1)
    return _turned(factor, len(a.shape)) if upper else factor, _no_error(a)


def triangular_solution(a: Any, b: Any, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """`x` of `a x = b` for triangular matrices; where not `left`, of `x a = b`."""
    rows, rank = _order(a, "solve_triangular"), len(a.shape)
    if left:
        return _substituted(a, b, rows, upper, unitriangular)
    return _turned(_substituted(_turned(a, rank), _turned(b, rank), rows, not upper, unitriangular), rank)


def _substituted(a: Any, b: Any, rows: int, upper: bool, unitriangular: bool) -> Any:
    op, solved = onnxscript.opset21, dict[int, Any]()
    for i in reversed(range(rows)) if upper else range(rows):
        row, value = _row(a, i), _row(b, i)
        for j, known in solved.items():
            value = op.Sub(value, op.Mul(_column(row, j), known))
        solved[i] = value if unitriangular else op.Div(value, _column(row, i))
    return op.Concat(*(solved[i] for i in range(rows)), axis=-2)


def keep_unchecked(node: torch.fx.Node) -> Note | None:
    """Have a call that raises for a matrix without an inverse or a factor go on instead, as a graph does; in place."""
    target = _UNCHECKED.get(node.target)
    if target is None:
        return None
    with node.graph.inserting_before(node):
        found = node.graph.call_function(target, node.args, node.kwargs)
    given = torch.fx.node.map_arg((node.args, node.kwargs), lambda each: each.meta["val"])
    found.meta = {**node.meta, "val": target(*given[0], **given[1])}
    node.target, node.args, node.kwargs = operator.getitem, (found, 0), {}
    return Note(
        "changed", node.name, "a singular matrix is an error in torch; here it gives numbers that are not finite"
    )


def _eliminated(a: Any, b: Any, rows: int, dtype: ir.DataType) -> Any:
    """`x` of `a x = b`: both side by side, and one column after another is made that of the identity."""
    op = onnxscript.opset21
    wide = op.Concat(a, b, axis=-1)
    numbers = np.arange(rows)[:, None]
    for k in range(rows):
        here = constant(numbers == k, ir.DataType.BOOL)
        open_rows = op.Where(constant(numbers >= k, ir.DataType.BOOL), op.Abs(_column(wide, k)), constant(-1.0, dtype))
        pivot = op.ArgMax(open_rows, axis=-2, keepdims=1)
        every = constant(numbers, ir.DataType.INT64)
        taken = op.Where(op.Equal(every, pivot), constant(k, ir.DataType.INT64), every)
        order = op.Where(here, pivot, taken)
        wide = op.GatherElements(wide, op.Expand(order, op.Shape(wide)), axis=-2)
        row = op.Div(_row(wide, k), _column(_row(wide, k), k))
        wide = op.Where(here, row, op.Sub(wide, op.Mul(_column(wide, k), row)))
    return op.Slice(wide, ints(rows), ints(2**31), ints(-1))


def _row(x: Any, i: int) -> Any:
    return onnxscript.opset21.Slice(x, ints(i), ints(i + 1), ints(-2))


def _column(x: Any, j: int) -> Any:
    return onnxscript.opset21.Slice(x, ints(j), ints(j + 1), ints(-1))


def _turned(x: Any, rank: int) -> Any:
    """The matrices transposed."""
    return onnxscript.opset21.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _no_error(a: Any) -> Any:
    """torch's sign that all went well, one per matrix."""
    op = onnxscript.opset21
    return op.ConstantOfShape(op.Shape(a, end=len(a.shape) - 2), value=_zero())


def _zero() -> Any:
    return ir.serde.serialize_tensor(ir.tensor(np.zeros(1, np.int32)))


def _order(a: Any, name: str) -> int:
    rows = a.shape[-1]
    if isinstance(rows, int) and rows <= LARGEST:
        return rows
    raise UnsupportedOpError(
        f"torch.linalg's {name} of a matrix with {rows} rows has no ONNX form: up to {LARGEST} rows can be written "
        "out, and their number has to be fixed. Compute it outside the model.",
        op_type=f"aten.linalg_{name}",
        node="",
    )


aten = torch.ops.aten
_UNCHECKED = {
    aten.linalg_inv.default: aten.linalg_inv_ex.default,
    aten.inverse.default: aten.linalg_inv_ex.default,
    aten.linalg_solve.default: aten.linalg_solve_ex.default,
    aten.linalg_cholesky.default: aten.linalg_cholesky_ex.default,
}

TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    aten.linalg_inv_ex.default: inverse,
    aten._linalg_solve_ex.default: solution,
    aten._linalg_slogdet.default: log_determinant,
    aten.linalg_cholesky_ex.default: cholesky,
    aten.linalg_solve_triangular.default: triangular_solution,
}
"""What `torch.onnx.export` needs to know."""
