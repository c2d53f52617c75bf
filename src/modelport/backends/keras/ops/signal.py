"""Fourier transforms and windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.index import counting, length
from modelport.backends.keras.ops.registry import Ints, op
from modelport.backends.keras.ops.shape import padded
from modelport.backends.keras.ops.tensors import cast, dtype, keras_dtype, part, plus, positive, rank, size, sizes


def _fourier(count: int, into: int, inverse: bool, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The cosine and sine matrices (count, into) of a discrete Fourier transform."""
    angles = 2 * np.pi * np.outer(np.arange(count), np.arange(into)) / count
    scale = 1 / count if inverse else 1.0
    sine = np.sin(angles) if inverse else -np.sin(angles)
    return (np.cos(angles) * scale).astype(name), (sine * scale).astype(name)


def _fourier_of(x: Any, axis: int, inverse: bool) -> tuple[Any, Any]:
    """The same matrices for an axis of which only the run tells the size."""
    count, steps = length(x, axis), ops.reshape(counting(x, axis), (-1,))
    # Whole turns are taken off while the numbers are whole: large angles would lose digits.
    turns = ops.mod(ops.multiply(ops.expand_dims(steps, 1), ops.expand_dims(steps, 0)), count)
    size_ = cast(count, dtype(x))
    angles = ops.divide(ops.multiply(cast(turns, dtype(x)), 2 * np.pi), size_)
    cosine, sine = ops.cos(angles), ops.sin(angles)
    return (ops.divide(cosine, size_), ops.divide(sine, size_)) if inverse else (cosine, ops.negative(sine))


def transformed(x: Any, cosine: Any, sine: Any) -> Any:
    """The transform over the last but one axis of (..., time, 1 or 2), as a product with the Fourier matrices."""
    real = x[..., 0]
    parts = ops.matmul(real, cosine), ops.matmul(real, sine)
    if size(x, -1) == 2:
        imaginary = x[..., 1]
        parts = (
            ops.subtract(parts[0], ops.matmul(imaginary, sine)),
            plus(parts[1], ops.matmul(imaginary, cosine)),
        )
    return ops.stack(parts, axis=-1)


@op("DFT")
def dft(x: Any, count: Ints | None = None, axis: Ints | None = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    along = positive(axis[0] if axis else -2, rank(x))
    if onesided and inverse:
        whole = count[0] if count else 2 * (size(x, along) - 1)
        return _along(_of_size(x, along, whole // 2 + 1), along, lambda turned: _real_again(turned, whole))
    if sizes(x)[along] is None and not count and not onesided:
        matrices = _fourier_of(x, along, bool(inverse))
    else:
        whole = count[0] if count else size(x, along)
        x = _of_size(x, along, whole)
        matrices = _fourier(whole, whole // 2 + 1 if onesided else whole, bool(inverse), dtype(x))
    return _along(x, along, lambda turned: transformed(turned, *matrices))


def _of_size(x: Any, axis: int, count: int) -> Any:
    """An axis cut, or filled up with zeros."""
    own = size(x, axis)
    return padded(part(x, axis, 0, min(count, own)), [
        (0, max(count - own, 0) if i == axis else 0) for i in range(rank(x))
    ])  # fmt: skip


def _along(x: Any, axis: int, transform: Callable[[Any], Any]) -> Any:
    """What a transform makes of an axis, which it takes as the last but one."""
    perm = (*(i for i in range(rank(x) - 1) if i != axis), axis, rank(x) - 1)
    return ops.transpose(transform(ops.transpose(x, perm)), tuple(int(i) for i in np.argsort(perm)))


def _real_again(x: Any, count: int) -> Any:
    """The real signal of `count` steps that a one-sided transform is of: what stands twice in it counts twice."""
    frequencies = np.arange(count // 2 + 1)
    angles = 2 * np.pi * np.outer(frequencies, np.arange(count)) / count
    twice = np.where((frequencies == 0) | (2 * frequencies == count), 1, 2)[:, None] / count
    cosine, sine = ((twice * wave(angles)).astype(dtype(x)) for wave in (np.cos, np.sin))
    return ops.expand_dims(ops.subtract(ops.matmul(x[..., 0], cosine), ops.matmul(x[..., 1], sine)), -1)


@op("STFT")
def stft(x: Any, step: Ints, window: Any = None, length: Ints | None = None, *, onesided: int = 1) -> Any:
    count = length[0] if length else size(window, 0)
    steps = (size(x, 1) - count) // step[0] + 1
    if rank(x) == 2:
        x = ops.expand_dims(x, -1)
    places = np.arange(steps)[:, None] * step[0] + np.arange(count)[None, :]
    frames = ops.take(x, places, axis=1)
    if window is not None:
        frames = ops.multiply(frames, ops.reshape(window, (1, 1, count, 1)))
    return transformed(frames, *_fourier(count, count // 2 + 1 if onesided else count, False, dtype(frames)))


def _window(name: str, rule: Callable[[np.ndarray], np.ndarray]) -> None:
    def function(length: Ints, *, output_datatype: int = 1, periodic: int = 1) -> Any:
        count = length[0]
        return rule(2 * np.pi * np.arange(count) / (count if periodic else count - 1)).astype(
            keras_dtype(output_datatype)
        )

    op(name)(function)


_window("HannWindow", lambda a: 0.5 - 0.5 * np.cos(a))
_window("HammingWindow", lambda a: 25 / 46 - 21 / 46 * np.cos(a))
_window("BlackmanWindow", lambda a: 0.42 - 0.5 * np.cos(a) + 0.08 * np.cos(2 * a))


@op("MelWeightMatrix")
def mel_weight_matrix(bins: Ints, length: Ints, rate: Ints, low: Any, high: Any, *, output_datatype: int = 1) -> Any:
    if not isinstance(low, np.ndarray) or not isinstance(high, np.ndarray):
        low, high = np.asarray(low), np.asarray(high)
    spectrum = length[0] // 2 + 1
    first, last = (2595 * np.log10(1 + float(edge) / 700) for edge in (low, high))
    mels = np.arange(bins[0] + 2) * ((last - first) / (bins[0] + 2)) + first
    edges = np.floor((length[0] + 1) * (700 * (10 ** (mels / 2595) - 1)) / rate[0]).astype(int)
    result = np.zeros((spectrum, bins[0]))
    for i in range(bins[0]):
        low_edge, centre, high_edge = edges[i : i + 3]
        if low_edge == centre:
            result[centre, i] = 1
        else:
            result[low_edge : centre + 1, i] = np.arange(centre - low_edge + 1) / (centre - low_edge)
        if high_edge > centre:
            result[centre:high_edge, i] = (high_edge - np.arange(centre, high_edge)) / (high_edge - centre)
    return result.astype(keras_dtype(output_datatype))
