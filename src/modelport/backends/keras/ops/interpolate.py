"""Which elements of an axis every element of the resized axis is made of, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One axis of a Resize node: the attributes of the operator, by the names of the standard.

    Attributes:
        length: of the axis.
        scale: what it is multiplied by.
        target: the new length.
        roi: the part of the axis that is resized, as fractions.
    """

    length: int
    scale: float
    target: int
    transformation: str
    mode: str
    nearest_mode: str
    cubic_coeff_a: float
    exclude_outside: bool
    antialias: bool
    roi: tuple[float, float]

    def coordinates(self) -> np.ndarray:
        """The place in the axis of every new element."""
        x, n, out = np.arange(self.target, dtype=np.float64), self.length, self.scale * self.length
        start, end = self.roi
        match self.transformation:
            case "align_corners":
                return x * (n - 1) / (out - 1) if out != 1 else x * 0
            case "asymmetric":
                return x / self.scale
            case "tf_crop_and_resize":
                span = (end - start) * (n - 1)
                return start * (n - 1) + (x * span / (out - 1) if out != 1 else span / 2 + x * 0)
            case "pytorch_half_pixel" if out == 1:
                return x * 0 - 0.5
            case "half_pixel_symmetric":
                return n / 2 * (1 - self.target / out) + (x + 0.5) / self.scale - 0.5
        return (x + 0.5) / self.scale - 0.5

    def outside(self) -> np.ndarray:
        """Which new elements lie beyond the axis, where the transformation extrapolates."""
        if self.transformation != "tf_crop_and_resize":
            return np.zeros(self.target, bool)
        place = self.coordinates()
        return (place < 0) | (place > self.length - 1)


def taps(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """The indices and the weights, both (new length, taps)."""
    place = axis.coordinates()
    base = np.ceil(place) - 1
    ratio = place - base  # in (0, 1]: the element on the left of a place that is whole counts as its neighbour
    if axis.mode == "nearest":
        return np.clip(base + _steps(ratio, axis.nearest_mode), 0, axis.length - 1).astype(np.int64)[:, None], np.ones(
            (axis.target, 1)
        )
    reach = 1 if axis.mode == "linear" else 2
    scale = min(axis.scale, 1.0) if axis.antialias else 1.0
    first = int(np.floor(-reach / scale)) + 1
    offsets = np.arange(first, 2 - first)
    distance = np.abs(offsets[None, :] - ratio[:, None]) * scale
    weights = np.clip(1 - distance, 0, 1) if axis.mode == "linear" else _keys(distance, axis.cubic_coeff_a)
    indices = base[:, None] + offsets[None, :]
    if axis.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    if axis.exclude_outside:
        weights = np.where((indices < 0) | (indices >= axis.length), 0.0, weights)
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(indices, 0, axis.length - 1).astype(np.int64), weights


def _steps(ratio: np.ndarray, nearest_mode: str) -> np.ndarray:
    """0 for the left neighbour, 1 for the right one."""
    whole = ratio == 1
    match nearest_mode:
        case "floor":
            return whole.astype(float)
        case "ceil":
            return np.ones_like(ratio)
        case "round_prefer_ceil":
            return (ratio >= 0.5).astype(float)
    return (ratio > 0.5).astype(float)


def _keys(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys, 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
