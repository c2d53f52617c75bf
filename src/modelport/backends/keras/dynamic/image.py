"""Images whose size, or the scale they are brought to, only the run tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic, dynamic_spatial, lengths, rank, shape


@dataclass(frozen=True)
class Resampling:
    """The attributes of Resize that say how one axis is resampled, by the names of the standard."""

    coordinate_transformation_mode: str = "half_pixel"
    mode: str = "nearest"
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: int = 0
    antialias: int = 0

    def places(self, length: Any, scale: Any, target: Any, start: Any, end: Any) -> Any:
        """The place in an axis of every element of the resized one, as float64."""
        x, n = tf.range(tf.cast(target, tf.float64)), tf.cast(length, tf.float64)
        out = scale * n
        span = tf.maximum(out - 1, 1)
        single = out == 1
        match self.coordinate_transformation_mode:
            case "align_corners":
                return tf.where(single, x * 0, x * (n - 1) / span)
            case "asymmetric":
                return x / scale
            case "tf_crop_and_resize":
                part = (end - start) * (n - 1)
                return start * (n - 1) + tf.where(single, part / 2 + x * 0, x * part / span)
            case "pytorch_half_pixel":
                return tf.where(single, x * 0 - 0.5, (x + 0.5) / scale - 0.5)
            case "half_pixel_symmetric":
                return n / 2 * (1 - tf.cast(target, tf.float64) / out) + (x + 0.5) / scale - 0.5
        return (x + 0.5) / scale - 0.5

    def taps(self, place: Any, length: Any, scale: Any) -> tuple[Any, Any]:
        """The indices and the weights of what every new element is made of, both (target, taps)."""
        base = tf.math.ceil(place) - 1
        ratio = place - base  # in (0, 1]: the element on the left of a place that is whole counts as its neighbour
        last = tf.cast(length, tf.float64) - 1
        if self.mode == "nearest":
            index = tf.clip_by_value(base + self._step(ratio), 0, last)
            return tf.cast(index, tf.int64)[:, None], tf.ones_like(place)[:, None]
        reach = 1 if self.mode == "linear" else 2
        scale = tf.minimum(scale, 1) if self.antialias else tf.ones_like(scale)
        first = tf.math.floor(-reach / scale) + 1
        offsets = tf.range(first, 2 - first)
        distance = tf.abs(offsets[None, :] - ratio[:, None]) * scale
        weights = tf.clip_by_value(1 - distance, 0, 1) if self.mode == "linear" else self._cubic(distance)
        indices = base[:, None] + offsets[None, :]
        if self.antialias:
            weights /= tf.reduce_sum(weights, 1, keepdims=True)
        if self.exclude_outside:
            weights = tf.where((indices < 0) | (indices > last), tf.zeros_like(weights), weights)
            weights /= tf.reduce_sum(weights, 1, keepdims=True)
        return tf.cast(tf.clip_by_value(indices, 0, last), tf.int64), weights

    def _step(self, ratio: Any) -> Any:
        """0 for the left neighbour, 1 for the right one."""
        match self.nearest_mode:
            case "floor":
                right = ratio == 1
            case "ceil":
                right = ratio >= 0
            case "round_prefer_ceil":
                right = ratio >= 0.5
            case _:
                right = ratio > 0.5
        return tf.cast(right, tf.float64)

    def _cubic(self, distance: Any) -> Any:
        """The cubic convolution kernel (Keys, 1981)."""
        a = self.cubic_coeff_a
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        return tf.where(distance <= 1, near, tf.where(distance < 2, far, tf.zeros_like(far)))


@dynamic_spatial("Resize", "Upsample")
def resize(
    x: Any,
    roi: Any = None,
    scales: Any = None,
    targets: Any = None,
    *,
    axes: Sequence[int] | None = None,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    **attributes: Any,
) -> Any:
    rule = Resampling(**attributes)
    chosen = [axis % rank(x) for axis in (range(rank(x)) if axes is None else axes)]
    own = tf.cast(tf.gather(shape(x), chosen), tf.float64)
    scales, targets = _scales(own, scales, targets, keep_aspect_ratio_policy)
    count = len(chosen)
    crops = rule.coordinate_transformation_mode == "tf_crop_and_resize"
    window = tf.constant([0.0] * count + [1.0] * count, tf.float64)
    window = tf.cast(roi, tf.float64) if crops and roi is not None else window
    data = x if x.dtype.is_floating else tf.cast(x, tf.float32)
    outside = tf.constant(False)
    for i, axis in enumerate(chosen):
        place = rule.places(own[i], scales[i], targets[i], window[i], window[count + i])
        indices, weights = rule.taps(place, own[i], scales[i])
        data = _weighted(data, axis, indices, weights)
        beyond = [-1 if i == axis else 1 for i in range(rank(x))]
        outside |= tf.reshape((place < 0) | (place > own[i] - 1), beyond)
    if crops:
        data = tf.where(outside, tf.cast(extrapolation_value, data.dtype), data)
    return data if x.dtype.is_floating else tf.cast(tf.round(data), x.dtype)


def _scales(own: Any, scales: Any, targets: Any, policy: str) -> tuple[Any, Any]:
    """The scale and the new length of every axis, as float64."""
    if targets is None or targets.shape == (0,):
        # As the standard's float: 0.6 of 10 is 6 in single precision.
        return tf.cast(scales, tf.float64), tf.math.floor(own * tf.cast(scales, tf.float64))
    targets = tf.cast(targets, tf.float64)
    scales = targets / own
    if policy == "stretch":
        return scales, targets
    scale = tf.reduce_min(scales) if policy == "not_larger" else tf.reduce_max(scales)
    return tf.ones_like(own) * scale, tf.math.floor(own * scale + 0.5)


def _weighted(x: Any, axis: int, indices: Any, weights: Any) -> Any:
    """A weighted sum of elements along an axis."""
    around = [1] * rank(x)
    around[axis] = -1
    share = tf.reshape(tf.cast(weights, x.dtype), (*around[: axis + 1], tf.shape(weights)[1], *around[axis + 1 :]))
    return tf.reduce_sum(tf.gather(x, indices, axis=axis) * share, axis + 1)


@dynamic("AffineGrid")
def affine_grid(theta: Any, target: Any, *, align_corners: int = 0) -> Any:
    count = theta.shape[1] or rank(theta) - 1
    axes = []
    for n in (tf.cast(target[2 + i], tf.float64) for i in range(count)):
        steps = tf.range(n)
        axes.append(steps * 2 / tf.maximum(n - 1, 1) - 1 if align_corners else (steps * 2 + 1) / n - 1)
    mesh = list(reversed(tf.meshgrid(*axes, indexing="ij")))
    points = tf.cast(tf.stack([*mesh, tf.ones_like(mesh[0])], -1), theta.dtype)
    moved = tf.matmul(tf.reshape(points, (-1, count + 1)), theta, transpose_b=True)
    return tf.reshape(moved, tf.concat([[lengths(theta)[0]], tf.cast(target[2:], tf.int64), [count]], 0))


@dynamic("RoiAlign")
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
    half = coordinate_transformation_mode == "half_pixel"
    images = tf.transpose(x, (0, 2, 3, 1))
    height, width = lengths(x)[2:]

    def pooled(given: tuple[Any, Any]) -> Any:
        region, place = given
        corners = region * spatial_scale - 0.5 * half
        # The regions have x before y.
        rows, tall = _samples(corners[1], corners[3], output_height, height, sampling_ratio, half)
        columns, broad = _samples(corners[0], corners[2], output_width, width, sampling_ratio, half)
        pixels = tf.gather(tf.gather(images[place], rows), columns, axis=3)
        shares = tall[..., None, None, None] * broad
        # (rows, samples, beside, columns, samples, beside, channels)
        terms = pixels * shares[..., None]
        if mode == "max":
            return tf.reduce_max(terms, (1, 2, 4, 5))
        return tf.reduce_mean(tf.reduce_sum(terms, (2, 5)), (1, 3))

    shape_ = tf.TensorSpec((output_height, output_width, x.shape[1]), x.dtype)
    return tf.transpose(tf.map_fn(pooled, (rois, batch), fn_output_signature=shape_), (0, 3, 1, 2))


def _samples(first: Any, last: Any, count: int, length: Any, ratio: int, half: bool) -> tuple[Any, Any]:
    """The pixels beside each sample of an axis of a region, and their weights, both (cells, samples, 2)."""
    span = last - first if half else tf.maximum(last - first, 1)
    each = tf.cast(ratio, span.dtype) if ratio else tf.maximum(tf.math.ceil(span / count), 1)
    steps = (tf.range(each) + 0.5) / each
    place = first + (tf.range(count, dtype=span.dtype)[:, None] + steps) * span / count
    near = (place >= -1) & (place <= tf.cast(length, place.dtype))
    last_place = tf.cast(length, place.dtype) - 1
    place = tf.clip_by_value(place, 0, last_place)
    low = tf.floor(place)
    ratios = tf.stack([1 - (place - low), place - low], -1) * tf.cast(near, place.dtype)[..., None]
    return tf.cast(tf.stack([low, tf.minimum(low + 1, last_place)], -1), tf.int64), ratios
