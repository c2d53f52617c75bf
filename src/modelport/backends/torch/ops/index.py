"""Selection, scattering, sorting and search."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Constant, Operand, Scalar, Size, Tensor, Weight

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _positive(indices: Any, size: Any) -> Any:
    """Indices of which the negative ones count from the end, all counted from the start."""
    return torch.where(indices < 0, indices + size, indices)


def _index(operand: Operand, size: Any, operands: Operands) -> Any:
    """An index as int64 that counts from the start; known ones are checked while building."""
    indices = operands.tensor(operand)
    if isinstance(operand, Constant):
        safe = bool((operand.array >= 0).all())
        indices = indices if operand.array.dtype == "int64" else indices.to(torch.int64)
        return indices if safe else _positive(indices, size)
    return _positive(indices.to(torch.int64), size)


@op("Gather")
def gather(x: Tensor, indices: Weight, *, axis: int = 0, operands: Operands) -> Any:
    axis %= x.rank
    known = operands.ints(indices)
    if known is not None and known.rank == 0:
        return torch.select(x, axis, known.items[0])
    index = operands.tensor(indices)
    if index.value is not None and index.element not in (torch.int64, torch.int32):
        index = index.to(torch.int64)
    return x[(slice(None),) * axis + (index,)]


@op("GatherElements")
def gather_elements(x: Tensor, indices: Weight, *, axis: int = 0, operands: Operands) -> Any:
    return torch.gather(x, axis, _index(indices, x.size_of(axis), operands))


@op("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Any:
    depth = indices.dims[-1]
    if depth is None:
        raise CannotBuild("the last size of its indices is not known; make it static")
    parts = [
        _positive(part, x.size_of(batch_dims + i)) for i, part in enumerate(_unbound(indices.to(torch.int64), depth))
    ]
    batch = []
    for axis in range(batch_dims):
        shape = [1] * (indices.rank - 1)
        shape[axis] = -1
        batch.append(torch.reshape(torch.arange(x.size_of(axis), device=x.device), shape))
    return x[(*batch, *parts)]


def _unbound(indices: Any, depth: int) -> list[Any]:
    return [torch.select(indices, -1, position) for position in range(depth)]


@op("Scatter", "ScatterElements")
def scatter_elements(
    x: Tensor, indices: Weight, updates: Tensor, *, axis: int = 0, reduction: str = "none", operands: Operands
) -> Any:
    index = _index(indices, x.size_of(axis), operands)
    if reduction == "none":
        return torch.scatter(x, axis, index, updates)
    return torch.scatter_reduce(x, axis, index, updates, _REDUCTIONS[reduction], include_self=True)


@op("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Any:
    depth = indices.dims[-1]
    if depth is None:
        raise CannotBuild("the last size of its indices is not known; make it static")
    parts = _unbound(indices.to(torch.int64), depth)
    if reduction in ("none", "add"):
        return torch.index_put(x, tuple(parts), updates, accumulate=reduction == "add")
    sizes = [x.size_of(axis) for axis in range(x.rank)]
    flat: Any = 0
    for axis, part in enumerate(parts):
        flat = flat * sizes[axis] + _positive(part, sizes[axis])
    rows = torch.flatten(x, 0, depth - 1)
    inner = [1] * (x.rank - depth)
    many = indices.rank - 1
    values = torch.flatten(updates, 0, many - 1) if many else torch.unsqueeze(updates, 0)
    index = torch.reshape(flat, [-1, *inner]).expand_as(values)
    y = torch.scatter_reduce(rows, 0, index, values, _REDUCTIONS[reduction], include_self=True)
    return torch.reshape(y, sizes)


@op("TensorScatter")
def tensor_scatter(
    cache: Tensor, update: Tensor, write_indices: Tensor | None = None, *, axis: int = -2, mode: str = "linear"
) -> Any:
    axis %= cache.rank
    steps = torch.arange(update.size_of(axis), device=cache.device)
    steps = steps.unsqueeze(0) if write_indices is None else write_indices.unsqueeze(1) + steps
    if mode == "circular":
        steps = torch.remainder(steps, cache.size_of(axis))
    shape = [1] * cache.rank
    shape[0], shape[axis] = -1, update.size_of(axis)
    return torch.scatter(cache, axis, torch.reshape(steps, shape).expand_as(update), update)


@op("OneHot")
def one_hot(indices: Tensor, depth: Size, values: Tensor, *, axis: int = -1) -> Any:
    axis = axis % (indices.rank + 1)
    shape = [1] * (indices.rank + 1)
    shape[axis] = -1
    classes = torch.reshape(torch.arange(depth, device=indices.device), shape)
    hot = torch.remainder(indices.to(torch.int64), depth).unsqueeze(axis) == classes
    valid = torch.logical_and(indices >= -depth, indices < depth).unsqueeze(axis)
    return torch.where(torch.logical_and(hot, valid), torch.select(values, 0, 1), torch.select(values, 0, 0))


@op("TopK")
def topk(x: Tensor, k: Size, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    # torch.topk gives equal values in any order; ONNX asks for the lower index first.
    result = torch.sort(x, stable=True, dim=axis, descending=bool(largest))
    return torch.narrow(result[0], axis, 0, k), torch.narrow(result[1], axis, 0, k)


@op("NonZero")
def nonzero(x: Tensor) -> Any:
    return torch.nonzero(x).transpose(0, 1)


@op("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Any:
    chosen = torch.nonzero(condition).squeeze(1)
    return torch.index_select(torch.flatten(x) if axis is None else x, axis or 0, chosen)


@op("Unique")
def unique(x: Tensor, *, axis: int | None = None, sorted: int = 1, node: ir.Node) -> Any:
    found = torch.unique(x, True, True, True, axis)
    values, inverse, counts = found[0], torch.flatten(found[1]), found[2]
    positions = torch.arange(inverse.size(0), device=x.device)
    first = torch.scatter_reduce(torch.full_like(counts, 2**62), 0, inverse, positions, "amin", include_self=True)
    if sorted:
        return values, first, inverse, counts
    order = torch.argsort(first)
    rank = torch.argsort(order)
    chosen = torch.index_select(values, axis or 0, order)
    return chosen, torch.index_select(first, 0, order), rank[inverse], torch.index_select(counts, 0, order)


@op("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(x: Tensor, indices: Tensor) -> Any:
    return torch.index_select(x, -1, torch.flatten(indices))


@op("Binarizer", domain="ai.onnx.ml")
def binarizer(x: Tensor, *, threshold: float = 0.0) -> Any:
    return torch.gt(x, threshold).to(x.element)


@op("NonMaxSuppression")
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Size = 0,
    iou_threshold: Scalar = 0.0,
    score_threshold: Scalar = None,
    *,
    center_point_box: int = 0,
) -> Any:
    """The kept boxes by class: each one suppresses the boxes of lower score that overlap it too much."""
    if boxes.dims[1] is None or scores.dims[0] is None or scores.dims[1] is None:
        raise CannotBuild("its number of boxes and classes is not known; make it static")
    overlap = _intersection_over_union(boxes, center_point_box) > iou_threshold
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)
    kept = torch.ones_like(scores, dtype=torch.bool) if score_threshold is None else scores > score_threshold
    count = boxes.dims[1]
    kept = torch.gather(kept, -1, order)
    rows = order.unsqueeze(-1).expand(-1, -1, -1, count)
    wide = overlap.unsqueeze(1).expand(-1, scores.dims[1], -1, -1)
    ranked = torch.gather(torch.gather(wide, 2, rows), 3, order.unsqueeze(-2).expand(-1, -1, count, -1))
    later = torch.triu(torch.ones_like(ranked, dtype=torch.uint8), 1).to(torch.bool)
    ranked = torch.logical_and(ranked, later)
    for position in range(count):
        alive = torch.select(kept, -1, position).unsqueeze(-1)
        kept = torch.logical_and(kept, torch.logical_not(torch.logical_and(alive, torch.select(ranked, -2, position))))
    kept = torch.logical_and(kept, torch.cumsum(kept.to(torch.int64), -1) <= max_output_boxes_per_class)
    places = torch.nonzero(kept)
    chosen = order[places[:, 0], places[:, 1], places[:, 2]]
    return torch.cat([places[:, :2], chosen.unsqueeze(1)], 1)


def _intersection_over_union(boxes: Tensor, center_point_box: int) -> Any:
    a, b, c, d = (torch.select(boxes, -1, position) for position in range(4))
    if center_point_box:
        top, bottom, left, right = b - d / 2, b + d / 2, a - c / 2, a + c / 2
    else:
        top, bottom = torch.minimum(a, c), torch.maximum(a, c)
        left, right = torch.minimum(b, d), torch.maximum(b, d)
    area = (bottom - top) * (right - left)
    height = torch.minimum(bottom.unsqueeze(-1), bottom.unsqueeze(-2)) - torch.maximum(
        top.unsqueeze(-1), top.unsqueeze(-2)
    )
    width = torch.minimum(right.unsqueeze(-1), right.unsqueeze(-2)) - torch.maximum(
        left.unsqueeze(-1), left.unsqueeze(-2)
    )
    inside = torch.clamp_min(height, 0) * torch.clamp_min(width, 0)
    return inside / (area.unsqueeze(-1) + area.unsqueeze(-2) - inside)
