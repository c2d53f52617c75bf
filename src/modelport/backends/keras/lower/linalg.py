"""Matrices: determinants, and small ones inverted, solved and factored as `graph.elimination` writes it out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op
from modelport.graph import elimination
from modelport.graph.elimination import LARGEST, transposed


def _order(g: Context) -> int:
    shape = g.shape(0)
    rows = None if shape is None else shape[-1]
    if rows is None or rows > LARGEST:
        raise g.fail(f"{g.op.type} is written out for matrices of up to {LARGEST} rows, and this one has {rows}")
    return rows


def _adjoint(g: Context, a: ir.Value) -> ir.Value:
    return transposed(g, a, g.rank(0)) if g.attr("adjoint") else a


@op("MatrixDeterminant")
def determinant(g: Context, a: ir.Value) -> ir.Value:
    return g("Det", a)


@op("LogMatrixDeterminant")
def log_determinant(g: Context, a: ir.Value) -> list[ir.Value]:
    found = g("Det", a)
    return [g("Sign", found), g("Log", g("Abs", found))]


@op("MatrixInverse")
def inverse(g: Context, a: ir.Value) -> Any:
    return elimination.inverse(g, _adjoint(g, a), _order(g), g.dtype(0).numpy())


@op("MatrixSolve")
def solution(g: Context, a: ir.Value, b: ir.Value) -> Any:
    return elimination.solution(g, _adjoint(g, a), b, _order(g), g.dtype(0).numpy())


@op("MatrixTriangularSolve")
def triangular_solution(g: Context, a: ir.Value, b: ir.Value) -> Any:
    upper = bool(g.attr("lower")) == bool(g.attr("adjoint"))
    return elimination.triangular_solution(g, _adjoint(g, a), b, _order(g), upper=upper)


@op("Cholesky")
def cholesky(g: Context, a: ir.Value) -> Any:
    return elimination.cholesky(g, a, _order(g), g.dtype(0).numpy())


@op("MatrixDiagV3", static=(1, 2, 3))
def diagonal_matrix(
    g: Context, x: ir.Value, place: np.ndarray, rows: np.ndarray, columns: np.ndarray, padding: ir.Value
) -> ir.Value:
    shape = g.shape(0)
    size = None if shape is None else shape[-1]
    if size is None or place.size != 1 or rows.item() not in (-1, size) or columns.item() not in (-1, size):
        raise g.fail("a matrix is made of a diagonal of fixed length, as a square around one diagonal")
    offset = int(place.item())
    below, above = max(-offset, 0), max(offset, 0)
    on = np.eye(size + below + above, k=offset, dtype=bool)
    wide = x
    if below or above:
        front = [0] * (g.rank(0) - 1)
        wide = g("Pad", x, [*front, above, *front, below])
    return g("Where", on, g("Unsqueeze", wide, [-2]), padding)


@op("MatrixDiagPartV3", static=(1,))
def diagonal(g: Context, x: ir.Value, place: np.ndarray, padding: ir.Value) -> ir.Value:
    shape = g.shape(0)
    if shape is None or None in shape[-2:] or place.size != 1:
        raise g.fail("one diagonal is taken of matrices of a fixed size")
    rows, columns, offset = int(shape[-2] or 0), int(shape[-1] or 0), int(place.item())
    first = (max(-offset, 0), max(offset, 0))
    count = min(rows - first[0], columns - first[1])
    places = (np.arange(count) + first[0]) * columns + np.arange(count) + first[1]
    flat = g("Reshape", x, [*[0] * (g.rank(0) - 2), rows * columns])
    return g("Gather", flat, places, axis=-1)


@op("MatrixSetDiagV3", static=(2,))
def with_diagonal(g: Context, x: ir.Value, values: ir.Value, place: np.ndarray) -> ir.Value:
    shape = g.shape(0)
    if shape is None or None in shape[-2:] or place.size != 1 or place.item() != 0:
        raise g.fail("the main diagonal is replaced, of matrices of a fixed size")
    rows, columns = int(shape[-2] or 0), int(shape[-1] or 0)
    wide = g("Unsqueeze", values, [-1 if columns > rows else -2])
    return g("Where", np.eye(rows, columns, dtype=bool), wide, x)


@op("Cross")
def cross(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    def turned(x: ir.Value, first: int) -> ir.Value:
        return g("Gather", x, np.asarray([first % 3, (first + 1) % 3, (first + 2) % 3]), axis=-1)

    return g("Sub", g("Mul", turned(a, 1), turned(b, 2)), g("Mul", turned(a, 2), turned(b, 1)))
