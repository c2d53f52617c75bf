"""Elements picked by numbers: gathers, scatters, what is not zero, what is unique."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.properties.drawing import ANY, BOOL, F32, F64, FLOATS, I32, I64, Dim, Scope, Unfit, Value
from tests.properties.operators.registry import operator
from tests.properties.operators.shape import least


def indices(
    s: Scope, dims: Sequence[Dim], size: Dim, dtypes: Sequence[np.dtype] = (I64, I32), low: int | None = None
) -> Value:
    """Numbers below a size; below zero they count from the end, which is so since opset 11."""
    count = least(size)
    if not count:
        raise Unfit
    if low is None:
        low = -count if s.opset >= 11 and s.chance(40) else 0
    return s.leaf(dims, s.choose(dtypes), low, count - 1)


@operator(1, weight=3)
def gather(s: Scope) -> None:
    x = s.value(ANY, range(1, 6))
    axis = s.axis(x)
    # Rows of a matrix of weights are an embedding, which in no framework counts from the end.
    low = 0 if x.name.startswith("w") and x.rank == 2 and x.dtype in FLOATS and axis % 2 == 0 else None
    index = indices(s, s.dims(s.integer(0, 2)), x.dims[axis], low=low)
    s.op("Gather", x, index, axis=s.maybe(axis) if axis == 0 else axis)


def _below(s: Scope, dims: Sequence[Dim], but: int) -> list[Dim]:
    """Sizes that are no larger, except on one axis, which may have any."""
    found: list[Dim] = []
    for axis, dim in enumerate(dims):
        if axis == but:
            found.append(s.choose([1, 2, 3]))
        else:
            found.append(s.integer(1, max(dim, 1)) if isinstance(dim, int) and s.chance(30) else dim)
    return found


@operator(11, weight=2)
def gather_elements(s: Scope) -> None:
    x = s.value(ANY, range(1, 5))
    axis = s.axis(x)
    dims = _below(s, x.dims, axis % x.rank)
    s.op("GatherElements", x, indices(s, dims, x.dims[axis]), axis=axis)


@operator(11)
def gather_nd(s: Scope) -> None:
    x = s.value((F32, I64, BOOL), range(1, 5))
    batch = s.integer(0, min(1, x.rank - 1)) if s.opset >= 12 else 0
    depth = s.integer(1, x.rank - batch)
    smallest = min(least(dim) for dim in x.dims[batch : batch + depth])
    dims = (*x.dims[:batch], *s.dims(s.integer(0, 1)), depth)
    s.op("GatherND", x, indices(s, dims, smallest, (I64,)), batch_dims=batch or s.maybe(0))


def _distinct(s: Scope, x: Value, axis: int) -> Value:
    """Indices along an axis, none twice in a row."""
    size = x.dims[axis]
    if not isinstance(size, int) or not x.is_static() or not size:
        raise Unfit
    dims = [1 + s.integer(0, size - 1) if place == axis else dim for place, dim in enumerate(x.dims)]
    rows = np.argsort(
        s.source.rng.random([size if place == axis else dim for place, dim in enumerate(dims)]), axis=axis
    )
    return s.ints(np.take(rows, range(dims[axis]), axis))


@operator(11, weight=2)
def scatter_elements(s: Scope) -> None:
    x = s.value((F32, I64, F64, I32), range(1, 5))
    reduction = (
        s.choose([None, "none", "add", "mul"] + (["max", "min"] if s.opset >= 18 else [])) if s.opset >= 16 else None
    )
    axis = s.integer(0, x.rank - 1)
    distinct = reduction in (None, "none")
    index = _distinct(s, x, axis) if distinct else indices(s, _below(s, x.dims, axis), x.dims[axis])
    s.op("ScatterElements", x, index, s.leaf(index.dims, x.dtype), axis=axis, reduction=reduction)


@operator(9, until=10)
def scatter(s: Scope) -> None:
    x = s.value((F32, I64), range(1, 5))
    axis = s.integer(0, x.rank - 1)
    index = _distinct(s, x, axis)
    s.op("Scatter", x, index, s.leaf(index.dims, x.dtype), axis=axis)


@operator(11, weight=2)
def scatter_nd(s: Scope) -> None:
    x = s.value((F32, I64, F64), range(1, 5))
    reduction = (
        s.choose([None, "none", "add", "mul"] + (["max", "min"] if s.opset >= 18 else [])) if s.opset >= 16 else None
    )
    depth = s.integer(1, x.rank)
    count = s.integer(1, 3)
    smallest = [least(dim) for dim in x.dims[:depth]]
    if reduction in (None, "none"):
        count = min(count, int(np.prod(smallest)))
        flat = s.source.rng.permutation(int(np.prod(smallest)))[:count]
        index = s.ints(np.stack(np.unravel_index(flat, smallest), axis=-1))
    else:
        index = indices(s, (count, depth), min(smallest), (I64,))
    s.op("ScatterND", x, index, s.leaf((count, *x.dims[depth:]), x.dtype), reduction=reduction)


@operator(9)
def one_hot(s: Scope) -> None:
    depth = s.integer(2, 5)
    dims = s.dims(s.integer(0, 3))
    index = s.leaf(dims, s.choose([I64, I32, F32]), -depth - 1 if s.opset >= 11 else 0, depth)
    if index.dtype == F32:
        index = s.op("Floor", index)
    axis = s.integer(-index.rank - 1, index.rank) if s.opset >= 11 else s.integer(-1, index.rank)
    values = s.given(s.array((2,), s.choose([F32, I64, F64])))
    s.op(
        "OneHot",
        index,
        s.given(np.asarray(depth if s.chance(50) else [depth], s.choose([I64, F32, I32]))),
        values,
        axis=s.maybe(axis),
    )


@operator(9)
def non_zero(s: Scope) -> None:
    s.op("NonZero", s.value((F32, BOOL, I64), range(1, 4)))


def _is_apart(x: Value) -> bool:
    """Whether no two elements differ by so little that another rounding makes them one."""
    if not x.grain:
        return True
    gaps = (np.diff(np.sort(array, None)) for array in x.worlds)
    return not any(((gap > 0) & (gap < 20 * x.grain)).any() for gap in gaps)


@operator(11)
def unique(s: Scope) -> None:
    x = s.value((F32, I64), range(1, 4), _is_apart)
    axis = s.axis(x) if s.chance(40) else None
    outputs = [True, *(s.chance(40) for _ in range(3))]
    s.ops("Unique", [x], outputs, axis=axis, sorted=s.choose([None, 1, 0]))


@operator(9)
def compress(s: Scope) -> None:
    x = s.value(ANY, range(1, 5))
    axis = s.integer(0, x.rank - 1) if s.chance(60) else None
    length = s.integer(1, max(least(x.dims[axis]), 1) if axis is not None else 4)
    s.op("Compress", x, s.leaf((length,), BOOL), axis=axis)


@operator(24)
def cache_update(s: Scope) -> None:
    batch, heads, room, width = s.choose([1, 2]), s.integer(1, 2), s.integer(3, 5), s.integer(1, 3)
    count = s.integer(1, 2)
    cache, update = s.leaf((batch, heads, room, width)), s.leaf((batch, heads, count, width))
    at = s.leaf((batch,), I64, 0, room - count) if s.chance(60) else None
    s.op("TensorScatter", cache, update, at, axis=s.choose([None, -2, 2]), mode=s.choose([None, "linear", "circular"]))


@operator(10)
def suppress_boxes(s: Scope) -> None:
    batch, classes, boxes = s.integer(1, 2), s.integer(1, 2), s.integer(2, 6)
    corners = s.array((batch, boxes, 2), F32, 0, 3)
    extent = s.array((batch, boxes, 2), F32, 0.5, 3)
    center = s.choose([None, 0, 1])
    where = s.given(np.concatenate([corners, extent if center else corners + extent], -1), "w")
    scores = s.leaf((batch, classes, boxes), F32, 0, 1)
    limits = [s.ints([s.integer(1, 4)]), s.given(np.asarray([s.real(0.1, 0.9)], F32))]
    floor = [s.given(np.asarray([s.real(0.0, 0.5)], F32))] if s.chance(50) else []
    s.op("NonMaxSuppression", where, scores, *limits, *floor, center_point_box=center)
