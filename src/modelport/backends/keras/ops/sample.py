"""Sampling between the pixels: regions of interest, and convolutions whose kernel points are moved."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.registry import NeedsValues, op
from modelport.backends.keras.ops.tensors import cast, dtype, plus, rank, size

Corner = tuple[Any, Any]
"""A whole coordinate and its weight."""


@op("RoiAlign")
def roi_align(
    x: Any,
    rois: Any,
    batch: Any,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    if not sampling_ratio:
        raise NeedsValues("how many samples a region takes depends on its size")
    half = coordinate_transformation_mode == "half_pixel"
    axes = []
    for i, count in enumerate((output_height, output_width)):
        length = size(x, 2 + i)
        # The regions have x before y.
        first, last = (ops.subtract(ops.multiply(rois[:, j - i], spatial_scale), 0.5 * half) for j in (1, 3))
        span = ops.subtract(last, first) if half else ops.maximum(ops.subtract(last, first), 1.0)
        steps = (np.arange(count * sampling_ratio) + 0.5) / (count * sampling_ratio)
        place = plus(ops.expand_dims(first, 1), ops.multiply(ops.expand_dims(span, 1), steps.astype(dtype(x))))
        axes.append(beside(place, length))
    pixels = ops.reshape(ops.transpose(x, (0, 2, 3, 1)), (-1, size(x, 1)))
    frame = ops.multiply(cast(batch, "int64"), size(x, 2) * size(x, 3))
    terms = []
    for (row, tall), (column, broad) in product(*axes):
        flat = plus(ops.expand_dims(ops.multiply(row, size(x, 3)), 2), ops.expand_dims(column, 1))
        share = ops.multiply(ops.expand_dims(tall, 2), ops.expand_dims(broad, 1))
        found = ops.take(pixels, plus(flat, ops.reshape(frame, (-1, 1, 1))), axis=0)
        terms.append(ops.multiply(found, ops.expand_dims(share, -1)))
    pooled, together = (ops.max, ops.maximum) if mode == "max" else (ops.mean, plus)
    total = terms[0]
    for term in terms[1:]:
        total = together(total, term)
    shape = (-1, output_height, sampling_ratio, output_width, sampling_ratio, size(x, 1))
    return ops.transpose(pooled(ops.reshape(total, shape), axis=(2, 4)), (0, 3, 1, 2))


def beside(place: Any, length: int) -> list[Corner]:
    """The pixels beside each place along an axis; a place more than one pixel outside has none."""
    kind = dtype(place)
    near = ops.logical_and(ops.greater_equal(place, -1.0), ops.less_equal(place, float(length)))
    place = ops.clip(place, 0.0, length - 1.0)
    low = ops.floor(place)
    ratio = ops.subtract(place, low)
    weights = [ops.multiply(each, cast(near, kind)) for each in (ops.subtract(1.0, ratio), ratio)]
    corners = (low, ops.minimum(plus(low, 1.0), length - 1.0))
    return [(cast(corner, "int64"), weight) for corner, weight in zip(corners, weights, strict=True)]


@op("DeformConv")
def deform_conv(
    x: Any,
    weight: Any,
    offset: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    dilations: tuple[int, ...] = (1, 1),
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    offset_group: int = 1,
    pads: tuple[int, ...] = (0, 0, 0, 0),
    strides: tuple[int, ...] = (1, 1),
) -> Any:
    lengths, kernel, targets = ([size(each, axis) for axis in (2, 3)] for each in (x, weight, offset))
    channels, taps = size(x, 1), math.prod(kernel)
    moved = ops.reshape(offset, (-1, offset_group, *kernel, 2, *targets))
    axes = []
    for i in range(2):
        fixed = np.arange(kernel[i]) * dilations[i] - pads[i]
        grid = fixed.reshape((-1, 1, 1, 1) if i == 0 else (1, -1, 1, 1)) + (np.arange(targets[i]) * strides[i]).reshape(
            (1, 1, -1, 1) if i == 0 else (1, 1, 1, -1)
        )
        axes.append(_between(plus(moved[:, :, :, :, i], grid.astype(dtype(x))), lengths[i]))
    # (batch * offset groups, pixels, channels of one group)
    pixels = ops.reshape(x, (-1, channels // offset_group, math.prod(lengths)))
    pixels = ops.transpose(pixels, (0, 2, 1))
    columns: Any = None
    for (row, tall), (column, broad) in product(*axes):
        flat = ops.reshape(plus(ops.multiply(row, lengths[1]), column), (-1, taps * math.prod(targets), 1))
        share = ops.reshape(ops.multiply(tall, broad), (-1, taps * math.prod(targets), 1))
        term = ops.multiply(ops.take_along_axis(pixels, flat, axis=1), share)
        columns = term if columns is None else plus(columns, term)
    if mask is not None:
        columns = ops.multiply(columns, ops.reshape(mask, (-1, taps * math.prod(targets), 1)))
    columns = ops.transpose(
        ops.reshape(columns, (-1, taps, math.prod(targets), channels // offset_group)), (0, 3, 1, 2)
    )
    columns = ops.reshape(columns, (-1, group, channels // group * taps, math.prod(targets)))
    filters = ops.reshape(weight, (group, size(weight, 0) // group, channels // group * taps))
    result = ops.reshape(ops.matmul(filters, columns), (-1, size(weight, 0), *targets))
    return result if bias is None else plus(result, ops.reshape(bias, (1, -1, *[1] * (rank(x) - 2))))


def _between(place: Any, length: int) -> list[Corner]:
    """The pixels beside each place along an axis, of which those outside weigh nothing."""
    low = ops.floor(place)
    ratio = ops.subtract(place, low)
    corners = []
    for corner, weight in ((low, ops.subtract(1.0, ratio)), (plus(low, 1.0), ratio)):
        inside = ops.clip(corner, 0.0, length - 1.0)
        hit = cast(ops.equal(inside, corner), dtype(place))
        corners.append((cast(inside, "int64"), ops.multiply(weight, hit)))
    return corners
