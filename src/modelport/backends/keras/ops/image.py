"""Images: resizing, and sampling at places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.interpolate import Axis, taps
from modelport.backends.keras.ops.registry import Array, Ints, NeedsValues, Sizes, op, spatial
from modelport.backends.keras.ops.tensors import along, cast, dtype, inner_sizes, is_float, plus, rank, size, sizes


def _place(axis: int, count: int) -> int:
    """Where an axis of the channels-first tensor stands in the channels-last one."""
    if count < 3 or axis == 0:
        return axis
    return count - 1 if axis == 1 else axis - 1


@spatial("Resize", "Upsample")
def resize(
    x: Any,
    roi: Array | None = None,
    scales: Array | None = None,
    lengths: Sizes | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    site: Any = None,
) -> Any:
    count = rank(x)
    chosen = [axis % count for axis in (range(count) if axes is None else axes)]
    places = [_place(axis, count) for axis in chosen]
    own = [sizes(x)[place] for place in places]
    pairs = zip(lengths or (), places, strict=False)
    kept = [site is not None and site.has_size(length, place) for length, place in pairs]
    factors, targets = _targets(own, scales, lengths, kept, keep_aspect_ratio_policy)
    data = x if is_float(x) else cast(x, "float32")
    outside: Any = None
    for i, (place, factor, target) in enumerate(zip(places, factors, targets, strict=True)):
        length = own[i]
        if factor == 1.0 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        if length is None:
            centred = (coordinate_transformation_mode, nearest_mode) in _CENTRED
            data = _repeated(data, place, factor, mode, centred=centred)
            continue
        bounds = (0.0, 1.0) if roi is None or not roi.size else (float(roi[i]), float(roi[len(roi) // 2 + i]))
        axis = Axis(
            length, factor, target, coordinate_transformation_mode, mode, nearest_mode, cubic_coeff_a,
            bool(exclude_outside), bool(antialias), bounds,
        )  # fmt: skip
        data = _weighted(data, place, *taps(axis))
        beyond = along(axis.outside(), place, count)
        outside = beyond if outside is None else outside | beyond
    if coordinate_transformation_mode == "tf_crop_and_resize" and outside is not None and outside.any():
        data = ops.where(outside, np.asarray(extrapolation_value, dtype(data)), data)
    return data if is_float(x) else cast(ops.round(data), dtype(x))


def _targets(
    own: Sequence[int | None], scales: Array | None, lengths: Sizes | None, kept: Sequence[bool], policy: str
) -> tuple[list[float], list[int]]:
    """The scale and the new length of every axis; 1 and 0 for one that keeps a length that is not static."""
    if scales is not None and scales.size:
        factors = [float(factor) for factor in scales]
        return factors, [0 if n is None else math.floor(n * f) for n, f in zip(own, factors, strict=True)]
    factors = []
    for n, target, same in zip(own, lengths or (), kept, strict=True):
        if not same and (n is None or not isinstance(target, int)):
            raise NeedsValues("the scale depends on a size that is not static")
        factors.append(1.0 if same else target / (n or 1))
    if policy == "stretch":
        return factors, [0 if same else n for n, same in zip(lengths or (), kept, strict=True)]
    free = [factor for factor, same in zip(factors, kept, strict=True) if not same]
    factor = min(free) if policy == "not_larger" else max(free)
    targets = [math.floor((n or 0) * factor + 0.5) for n in own]
    return [1.0 if same else factor for same in kept], targets


_CENTRED = frozenset(
    (mode, nearest)
    for mode in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
    for nearest in ("round_prefer_floor", "round_prefer_ceil")
) | {("asymmetric", "floor")}
"""The modes by which, at a whole scale, every element is nearest to as many new ones."""


def _repeated(x: Any, place: int, factor: float, mode: str, *, centred: bool) -> Any:
    """Nearest neighbours at a whole scale, for a length that is not static."""
    if mode != "nearest" or factor != int(factor) or not centred:
        raise NeedsValues("the interpolation depends on a size that is not static")
    return ops.repeat(x, int(factor), axis=place)


def _weighted(x: Any, place: int, which: np.ndarray, weights: np.ndarray) -> Any:
    """A weighted sum of elements along an axis: both arrays are (new length, taps)."""
    if which.shape[1] == 1:
        return ops.take(x, which[:, 0], axis=place)
    if which.shape[1] > 8:
        matrix = np.zeros((size(x, place), len(which)))
        for row, (indices, values) in enumerate(zip(which, weights, strict=True)):
            np.add.at(matrix[:, row], indices, values)
        product_ = ops.matmul(ops.moveaxis(x, place, -1), matrix.astype(dtype(x)))
        return ops.moveaxis(product_, -1, place)
    total: Any = None
    for tap in range(which.shape[1]):
        share = along(weights[:, tap].astype(dtype(x)), place, rank(x))
        term = ops.multiply(ops.take(x, which[:, tap], axis=place), share)
        total = term if total is None else plus(total, term)
    return total


def _reflected(x: Any, low: float, high: float) -> Any:
    """Coordinates folded into a range."""
    span = high - low
    if span == 0:
        return ops.zeros_like(x)
    distance = ops.mod(ops.subtract(x, low), 2 * span)
    return plus(ops.minimum(distance, ops.subtract(2 * span, distance)), low)


def _cubic(ratio: Any, a: float = -0.75) -> list[Any]:
    """The four weights of a cubic convolution (Keys, 1981)."""

    def near(t: Any) -> Any:
        return plus(ops.multiply(ops.multiply(ops.subtract(ops.multiply(t, a + 2), a + 3), t), t), 1.0)

    def far(t: Any) -> Any:
        inner = plus(ops.multiply(ops.subtract(ops.multiply(t, a), 5 * a), t), 8 * a)
        return ops.subtract(ops.multiply(inner, t), 4 * a)

    rest = ops.subtract(1.0, ratio)
    return [far(plus(ratio, 1.0)), near(ratio), near(rest), far(plus(rest, 1.0))]


@spatial("GridSample")
def grid_sample(x: Any, grid: Any, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> Any:
    count = rank(x) - 2
    lengths = [size(x, 1 + i) for i in range(count)]
    edges = [(0.0, n - 1.0) if align_corners else (-0.5, n - 0.5) for n in lengths]
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    choices = []
    for i, n in enumerate(lengths):
        # The last coordinate of the grid is the first spatial axis.
        place = grid[..., count - 1 - i]
        half = (n - 1) / 2 if align_corners else n / 2
        place = plus(ops.multiply(plus(place, 1.0), half), 0.0 if align_corners else -0.5)
        if kind != "cubic" and padding_mode == "border":
            place = ops.clip(place, 0.0, n - 1.0)
        elif kind != "cubic" and padding_mode == "reflection":
            place = _reflected(place, *edges[i])
        choices.append(_neighbours(place, kind))
    rows = ops.reshape(x, (-1, math.prod(lengths), size(x, -1)))
    total: Any = None
    for corner in product(*choices):
        term = _at(rows, corner, lengths, edges, padding_mode)
        total = term if total is None else plus(total, term)
    return ops.reshape(total, (-1, *inner_sizes(grid)[:-1], size(x, -1)))


def _neighbours(place: Any, kind: str) -> list[tuple[Any, Any]]:
    """The whole coordinates beside a place, with their weights."""
    if kind == "nearest":
        return [(ops.round(place), None)]
    first = ops.floor(place)
    ratio = ops.subtract(place, first)
    if kind == "linear":
        return [(first, ops.subtract(1.0, ratio)), (plus(first, 1.0), ratio)]
    return [(plus(first, i - 1.0), weight) for i, weight in enumerate(_cubic(ratio))]


def _at(rows: Any, corner: Any, lengths: list[int], edges: Any, padding_mode: str) -> Any:
    """(batch, places, channels): what stands at one corner of every place, times its weight."""
    flat: Any = None
    share: Any = None
    for (coordinate, weight), n, edge in zip(corner, lengths, edges, strict=True):
        if padding_mode == "reflection":
            coordinate = _reflected(coordinate, *edge)
        inside = ops.clip(coordinate, 0.0, n - 1.0)
        if padding_mode == "zeros":
            hit = ops.cast(ops.equal(inside, coordinate), dtype(coordinate))
            weight = hit if weight is None else ops.multiply(weight, hit)
        index = cast(ops.round(inside), "int64")
        flat = index if flat is None else plus(ops.multiply(flat, n), index)
        if weight is not None:
            share = weight if share is None else ops.multiply(share, weight)
    places = math.prod(inner_sizes(flat))
    found = ops.take_along_axis(rows, ops.reshape(flat, (-1, places, 1)), axis=1)
    return found if share is None else ops.multiply(found, cast(ops.reshape(share, (-1, places, 1)), dtype(rows)))


@op("AffineGrid")
def affine_grid(theta: Any, shape: Ints, *, align_corners: int = 0) -> Any:
    lengths = shape[2:]
    axes = []
    for n in lengths:
        steps = np.arange(n) * 2 / max(n - 1, 1) - 1 if align_corners else (np.arange(n) * 2 + 1) / n - 1
        axes.append(steps.astype(dtype(theta)))
    mesh = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(lengths, dtype(theta))], axis=-1)
    points = ops.matmul(mesh.reshape(-1, len(lengths) + 1), ops.transpose(theta, (0, 2, 1)))
    return ops.reshape(points, (-1, *lengths, len(lengths)))
