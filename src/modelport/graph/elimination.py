"""Small matrices: inverted, solved and factored by elimination that is written out row by row.

Golub and Van Loan, Matrix Computations, 4th edition: algorithms 3.4.1 (partial pivoting), 3.1.1 and 4.2.2.

Every function takes `emit(op_type, *inputs, **attributes)`, which writes a node and returns its output; among the
inputs, arrays and lists of integers are constants. Matrices are the last two axes, `rows` their number of rows, `dtype`
theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Emit = Callable[..., Any]

LARGEST = 32
"""Of more rows than that no elimination is written out."""


def inverse(emit: Emit, a: Any, rows: int, dtype: np.dtype) -> Any:
    """The inverse of each matrix."""
    return solution(emit, a, emit("Expand", np.eye(rows, dtype=dtype), emit("Shape", a)), rows, dtype)


def solution(emit: Emit, a: Any, b: Any, rows: int, dtype: np.dtype) -> Any:
    """`x` of `a x = b`: both side by side, and one column after another is made that of the identity."""
    wide = emit("Concat", a, b, axis=-1)
    numbers = np.arange(rows)[:, None]
    for k in range(rows):
        size = emit("Abs", _column(emit, wide, k))
        pivot = emit("ArgMax", emit("Where", numbers >= k, size, np.asarray(-1, dtype)), axis=-2, keepdims=1)
        taken = emit("Where", emit("Equal", numbers, pivot), np.asarray(k), numbers)
        order = emit("Where", numbers == k, pivot, taken)
        wide = emit("GatherElements", wide, emit("Expand", order, emit("Shape", wide)), axis=-2)
        row = emit("Div", _row(emit, wide, k), _column(emit, _row(emit, wide, k), k))
        cleared = emit("Sub", wide, emit("Mul", _column(emit, wide, k), row))
        wide = emit("Where", numbers == k, row, cleared)
    return emit("Slice", wide, [rows], [2**31], [-1])


def cholesky(emit: Emit, a: Any, rows: int, dtype: np.dtype) -> Any:
    """The lower triangular factor of each symmetric positive definite matrix."""
    columns: list[Any] = []
    for j in range(rows):
        column = _column(emit, a, j)
        for known in columns:
            column = emit("Sub", column, emit("Mul", known, _row(emit, known, j)))
        below = (np.arange(rows) >= j)[:, None].astype(dtype)
        columns.append(emit("Mul", emit("Div", column, emit("Sqrt", _row(emit, column, j))), below))
    return emit("Concat", *columns, axis=-1)


def triangular_solution(emit: Emit, a: Any, b: Any, rows: int, *, upper: bool, unit: bool = False) -> Any:
    """`x` of `a x = b` for triangular matrices, whose diagonal counts as ones where `unit`."""
    solved: dict[int, Any] = {}
    for i in reversed(range(rows)) if upper else range(rows):
        row, value = _row(emit, a, i), _row(emit, b, i)
        for j, known in solved.items():
            value = emit("Sub", value, emit("Mul", _column(emit, row, j), known))
        solved[i] = value if unit else emit("Div", value, _column(emit, row, i))
    return emit("Concat", *(solved[i] for i in range(rows)), axis=-2)


def transposed(emit: Emit, x: Any, rank: int) -> Any:
    """The matrices with rows and columns exchanged."""
    return emit("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _row(emit: Emit, x: Any, i: int) -> Any:
    return emit("Slice", x, [i], [i + 1], [-2])


def _column(emit: Emit, x: Any, j: int) -> Any:
    return emit("Slice", x, [j], [j + 1], [-1])
