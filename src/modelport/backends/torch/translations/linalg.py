"""Small matrices: inverted, solved and factored as `graph.elimination` writes it out."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import emit, ints
from modelport.core.errors import UnsupportedOpError
from modelport.core.report import Note
from modelport.graph import elimination
from modelport.graph.elimination import LARGEST, transposed


def inverse(a: Any, check_errors: bool = False) -> tuple[Any, Any]:
    """The inverse of each matrix, and torch's sign that it has one."""
    return elimination.inverse(emit, a, _order(a, "inverse"), a.dtype.numpy()), _no_error(a)


def solution(a: Any, b: Any, left: bool = True, check_errors: bool = False) -> tuple[Any, Any, Any, Any]:
    """`x` of `a x = b`, for vectors `b` where it has an axis less, and what torch keeps for its gradient.

    Where not `left`, of `x a = b`.
    """
    op, rows, rank, dtype = onnxscript.opset21, _order(a, "solve"), len(a.shape), a.dtype.numpy()
    is_vector = len(b.shape) == rank - 1
    column = op.Unsqueeze(b, ints(-1)) if is_vector else b
    if left:
        found = elimination.solution(emit, a, column, rows, dtype)
    else:
        sides = transposed(emit, a, rank), transposed(emit, column, rank)
        found = transposed(emit, elimination.solution(emit, *sides, rows, dtype), rank)
    return op.Squeeze(found, ints(-1)) if is_vector else found, op.Identity(a), _no_error(a), _no_error(a)


def log_determinant(a: Any) -> tuple[Any, Any, Any, Any]:
    """The sign of each determinant and the logarithm of its size, and what torch keeps for its gradient."""
    op = onnxscript.opset21
    found = op.Det(a)
    return op.Sign(found), op.Log(op.Abs(found)), op.Identity(a), _no_error(a)


def cholesky(a: Any, upper: bool = False, check_errors: bool = False) -> tuple[Any, Any]:
    """The triangular factor of each symmetric positive definite matrix, and torch's sign that it has one."""
    factor = elimination.cholesky(emit, a, _order(a, "cholesky"), a.dtype.numpy())
    return transposed(emit, factor, len(a.shape)) if upper else factor, _no_error(a)


def triangular_solution(a: Any, b: Any, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """`x` of `a x = b` for triangular matrices; where not `left`, of `x a = b`."""
    rows, rank = _order(a, "solve_triangular"), len(a.shape)
    if left:
        return elimination.triangular_solution(emit, a, b, rows, upper=upper, unit=unitriangular)
    sides = transposed(emit, a, rank), transposed(emit, b, rank)
    found = elimination.triangular_solution(emit, *sides, rows, upper=not upper, unit=unitriangular)
    return transposed(emit, found, rank)


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
    return Note("changed", node.name, "a singular matrix is an error in torch, and gives no finite numbers in a graph")


def _no_error(a: Any) -> Any:
    """torch's sign that all went well, one per matrix."""
    op = onnxscript.opset21
    zero = ir.serde.serialize_tensor(ir.tensor(np.zeros(1, np.int32)))
    return op.ConstantOfShape(op.Shape(a, end=len(a.shape) - 2), value=zero)


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
