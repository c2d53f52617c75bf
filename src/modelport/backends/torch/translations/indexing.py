"""Indexing by tensors as Gather: torch's own translation transposes the tensor and gathers in all axes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import onnxscript
import torch
from onnxscript.function_libs.torch_lib.ops import core

from modelport.backends.torch.translations.constants import constant, ints


def index(x: Any, indices: Sequence[Any]) -> Any:
    """`x[..., i, j, ...]` for integer tensors in neighbouring axes; torch's own translation for any other.

    Args:
        x: the tensor.
        indices: one index or `None` per leading axis.
    """
    axes = [axis for axis, each in enumerate(indices) if each is not None]
    places = [each for each in indices if each is not None]
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    if not together or any(each.dtype == ir.DataType.BOOL for each in places):
        return core.aten_index(x, indices)
    if len(axes) == 1:
        return onnxscript.opset21.Gather(x, places[0], axis=axes[0])
    if _is_grid(places):
        for axis, each in zip(axes, places, strict=True):
            x = onnxscript.opset21.Gather(x, _flat(each), axis=axis)
        return x
    return _gathered_at_once(x, indices, axes, places)


def _is_grid(places: Sequence[Any]) -> bool:
    """Whether the indices are a column, a row ...: each runs along an axis of the result of its own, in their order."""
    rank = max(len(each.shape) for each in places)
    if rank != len(places):
        return False
    for own, each in enumerate(places):
        sizes = [1] * (rank - len(each.shape)) + list(each.shape)
        if any(size != 1 for axis, size in enumerate(sizes) if axis != own):
            return False
    return True


def _flat(places: Any) -> Any:
    if len(places.shape) == 1:
        return places
    return onnxscript.opset21.Reshape(places, ints(-1))


def _gathered_at_once(x: Any, indices: Sequence[Any], axes: Sequence[int], places: Sequence[Any]) -> Any:
    """The indexed axes as one, of which elements are taken by their number."""
    op, sizes = onnxscript.opset21, list(x.shape)
    behind = [size if isinstance(size, int) else -1 for size in sizes[axes[-1] + 1 :]]
    if not all(isinstance(sizes[axis], int) for axis in axes) or behind.count(-1) > 1:
        return core.aten_index(x, indices)
    number, count = None, 1
    for axis, each in zip(axes, places, strict=True):
        size = op.Constant(value_int=sizes[axis])
        each = op.Cast(each, to=ir.DataType.INT64.value)
        # Negative ones count from the end of their own axis.
        each = op.Mod(each, size)
        number = each if number is None else op.Add(op.Mul(number, size), each)
        count *= sizes[axis]
    merged = op.Reshape(x, ints(*[0] * axes[0], count, *behind))
    return op.Gather(merged, number, axis=axes[0])


def slice_scatter(
    x: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """`x` with `x[start:end:step]` along one axis replaced: what becomes of writing into a part of a tensor.

    One stretch is put between what is before it and behind it; all of an axis is the new values themselves.
    """
    op, size = onnxscript.opset21, x.shape[dim]
    first, last = start or 0, LAST if end is None else end
    if step != 1 or not (isinstance(first, int) and isinstance(last, int)):
        return core.aten_slice_scatter(x, src, dim, start, end, step)
    if first == 0 and last >= (size if isinstance(size, int) else LAST):
        return op.Identity(src)
    if not isinstance(size, int):
        return core.aten_slice_scatter(x, src, dim, start, end, step)
    first, last, _ = slice(first, last).indices(size)
    parts = [_part(x, dim, 0, first), src, _part(x, dim, last, size)]
    return op.Concat(*(part for part in parts if part is not None), axis=dim)


def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """`x` with elements replaced or added to; torch's own translation leaves int32 places as they are."""
    return core.aten_index_put(x, [_wide(each) for each in indices], values, accumulate)


def _wide(places: Any) -> Any:
    if places is None or places.dtype != ir.DataType.INT32:
        return places
    wide = onnxscript.opset21.Cast(places, to=ir.DataType.INT64.value)
    wide.dtype, wide.shape = ir.DataType.INT64, places.shape
    return wide


def masked_select(x: Any, mask: Any) -> Any:
    """The elements for which a mask of the same shape, or one that stretches to it, is true."""
    op = onnxscript.opset21
    sizes = op.Shape(op.Where(mask, x, x))
    return op.Compress(op.Reshape(op.Expand(x, sizes), ints(-1)), op.Reshape(op.Expand(mask, sizes), ints(-1)), axis=0)


def scatter_reduce(x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True) -> Any:
    """Elements put into `x` along an axis, joined with what is there and with one another.

    torch's own translation does it for all but means.
    """
    if reduce != "mean":
        return core.aten_scatter_reduce(x, dim, index, src, reduce, include_self)
    op, dtype = onnxscript.opset21, x.dtype
    none, one = constant(0, dtype), constant(1, dtype)
    ones = op.Expand(one, op.Shape(index))
    taken = op.Slice(src, ints(*[0] * len(index.shape)), op.Shape(index))
    hit = op.ScatterElements(op.Expand(none, op.Shape(x)), index, ones, axis=dim, reduction="add")
    old = x if include_self else op.Where(op.Greater(hit, none), none, x)
    total = op.ScatterElements(old, index, taken, axis=dim, reduction="add")
    counts = op.Add(hit, one) if include_self else op.Max(hit, one)
    return op.Div(total, counts)


LAST = 2**63 - 1
"""What torch calls the end of an axis."""


def _part(x: Any, dim: int, start: int, end: int) -> Any:
    op = onnxscript.opset21
    if start >= end:
        return None
    return op.Slice(x, *(ints(number) for number in (start, end, dim)))


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.slice_scatter.default: slice_scatter,
    torch.ops.aten.index_put.default: index_put,
    torch.ops.aten._unsafe_index_put.default: index_put,
    torch.ops.aten.masked_select.default: masked_select,
    torch.ops.aten.scatter_reduce.two: scatter_reduce,
    torch.ops.aten.index.Tensor: index,
    torch.ops.aten._unsafe_index.Tensor: index,
}
"""What `torch.onnx.export` needs to know."""
