"""Reductions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op

REDUCTIONS = {"Mean": "ReduceMean", "Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin", "Prod": "ReduceProd"}


@op(*REDUCTIONS, static=(1,))
def reduction(g: Context, x: ir.Value, axes: np.ndarray) -> ir.Value:
    return _reduce(g, REDUCTIONS[g.op.type], x, axes)


def _reduce(g: Context, op_type: str, x: ir.Value, axes: np.ndarray) -> ir.Value:
    if axes.size == 0:
        return x
    return g(op_type, x, [int(n) for n in axes.ravel()], keepdims=int(g.attr("keep_dims")))


@op("All", static=(1,))
def all_(g: Context, x: ir.Value, axes: np.ndarray) -> ir.Value:
    return _logical(g, "ReduceMin", x, axes)


@op("Any", static=(1,))
def any_(g: Context, x: ir.Value, axes: np.ndarray) -> ir.Value:
    return _logical(g, "ReduceMax", x, axes)


def _logical(g: Context, op_type: str, x: ir.Value, axes: np.ndarray) -> ir.Value:
    return g.cast(_reduce(g, op_type, g.cast(x, ir.DataType.INT32), axes), ir.DataType.BOOL)


@op("EuclideanNorm", static=(1,))
def euclidean_norm(g: Context, x: ir.Value, axes: np.ndarray) -> ir.Value:
    return _reduce(g, "ReduceL2", x, axes)


@op("ArgMax", "ArgMin", static=(1,))
def arg(g: Context, x: ir.Value, axis: np.ndarray) -> ir.Value:
    return g.cast(g(g.op.type, x, axis=int(axis), keepdims=0), g.result_dtype())


@op("TopKV2")
def top_k(g: Context, x: ir.Value, k: ir.Value) -> tuple[ir.Value, ir.Value]:
    number = g.static(1)
    count = [int(number)] if number is not None else g("Reshape", g.int64(k), [1])
    values, indices = g.many("TopK", [x, count], 2, axis=-1, sorted=int(g.attr("sorted")))
    return values, g.cast(indices, g.result_dtype(1))
