"""Order statistics and sorted places as TopK and comparisons: most have no translation in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints


def stable_sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """ONNX's TopK of everything: it too gives equal values in the order of their indices."""
    op = onnxscript.opset21
    return op.TopK(x, _length(x, dim), axis=dim, largest=int(descending), sorted=1)


def _length(x: Any, dim: int) -> Any:
    """How long an axis is, as a vector of one."""
    return onnxscript.opset21.Gather(onnxscript.opset21.Shape(x), ints(dim))


def kth_value(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    """The k-th smallest elements along an axis, counted from 1, and where they are."""
    return _ranked(x, ints(k), dim, keepdim)


def median_along(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """The lower of the middle elements along an axis, and where they are."""
    op = onnxscript.opset21
    return _ranked(x, op.Div(op.Add(_length(x, dim), ints(1)), ints(2)), dim, keepdim)


def median(x: Any) -> Any:
    """The lower of the middle elements of all."""
    op = onnxscript.opset21
    flat = op.Reshape(x, ints(-1))
    found = op.TopK(flat, op.Div(op.Add(op.Shape(flat), ints(1)), ints(2)), axis=0, largest=0, sorted=1)
    return op.Squeeze(op.Gather(found[0], ints(-1), axis=0), ints(0))


def _ranked(x: Any, k: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
    op = onnxscript.opset21
    if not len(x.shape):
        return op.Identity(x), constant(0, ir.DataType.INT64)
    found = op.TopK(x, k, axis=dim, largest=0, sorted=1)
    last = [op.Gather(each, ints(-1), axis=dim) for each in found]
    return (last[0], last[1]) if keepdim else (op.Squeeze(last[0], ints(dim)), op.Squeeze(last[1], ints(dim)))


def search_sorted(
    sequence: Any, values: Any, out_int32: bool = False, right: bool = False, side: str | None = None,
    sorter: Any = None,
) -> Any:  # fmt: skip
    """How many elements of a sorted sequence are before each value.

    Args:
        sequence: (..., length), sorted along the last axis.
        values: any shape for one sequence, else (..., count).
        right: whether equal elements are before a value.
        side: `"right"` says the same.
        sorter: the order of a sequence that is not sorted.
    """
    op = onnxscript.opset21
    rank = len(sequence.shape)
    if sorter is not None:
        sequence = op.GatherElements(sequence, sorter, axis=-1)
    if rank > 1:
        sequence = op.Unsqueeze(sequence, ints(-2))
    after = op.Unsqueeze(op.CastLike(values, sequence), ints(-1))
    before = (op.LessOrEqual if right or side == "right" else op.Less)(sequence, after)
    dtype = ir.DataType.INT32 if out_int32 else ir.DataType.INT64
    return op.ReduceSum(op.Cast(before, to=dtype.value), ints(-1), keepdims=0)


def search_sorted_number(sequence: Any, value: float, **options: Any) -> Any:
    """The place of one number."""
    return search_sorted(sequence, constant(value, sequence.dtype), **options)


def extremes(x: Any, dim: int | None = None, keepdim: bool = False) -> tuple[Any, Any]:
    """The smallest and the largest element, of all or along an axis."""
    op, axes = onnxscript.opset21, None if dim is None else ints(dim)
    return op.ReduceMin(x, axes, keepdims=int(keepdim)), op.ReduceMax(x, axes, keepdims=int(keepdim))


aten = torch.ops.aten
TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    aten.sort.stable: stable_sort,
    aten.kthvalue.default: kth_value,
    aten.median.dim: median_along,
    aten.median.default: median,
    aten.aminmax.default: extremes,
    aten.searchsorted.Tensor: search_sorted,
    aten.searchsorted.Scalar: search_sorted_number,
}
"""What `torch.onnx.export` needs to know."""
