"""Fourier transforms and windows whose length only the run tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic, rank, scalar, shape


def _complex(x: Any) -> Any:
    """(..., 1 or 2) as complex numbers (...) of double precision; the last axis must have a size."""
    data = tf.cast(x, tf.float64)
    imaginary = data[..., 1] if x.shape[-1] == 2 else tf.zeros_like(data[..., 0])
    return tf.complex(data[..., 0], imaginary)


def transformed(signal: Any, inverse: bool, onesided: bool) -> Any:
    """The transform over the last axis of complex numbers, as (..., 2)."""
    result = (tf.signal.ifft if inverse else tf.signal.fft)(signal)
    if onesided:
        result = result[..., : shape(signal)[-1] // 2 + 1]
    return tf.stack([tf.math.real(result), tf.math.imag(result)], -1)


def _resized(signal: Any, length: Any) -> Any:
    """A signal cut, or filled up with zeros, along its last axis."""
    cut = signal[..., :length]
    missing = length - shape(cut)[-1]
    widths = tf.concat([tf.zeros((rank(cut) - 1, 2), tf.int64), [[0, missing]]], 0)
    return tf.pad(cut, widths)


@dynamic("DFT")
def dft(x: Any, length: Any = None, axis: Any = None, *, inverse: int = 0, onesided: int = 0) -> Any:
    count = rank(x) - 1
    along = tf.constant(-2, tf.int64) if axis is None else tf.cast(scalar(axis), tf.int64)
    along = tf.where(along < 0, along + count + 1, along)
    every = tf.range(count, dtype=tf.int64)
    order = tf.concat([tf.boolean_mask(every, every != along), [along]], 0)
    signal = _complex(x)
    result_shape = signal.shape
    signal = tf.transpose(signal, order)
    signal = tf.ensure_shape(signal, [None] * result_shape.rank)
    if inverse and onesided:
        total = 2 * (shape(signal)[-1] - 1) if length is None else tf.cast(scalar(length), tf.int64)
        result = tf.signal.irfft(_resized(signal, total // 2 + 1), tf.cast(total, tf.int32)[None])[..., None]
    else:
        signal = signal if length is None else _resized(signal, tf.cast(scalar(length), tf.int64))
        result = transformed(signal, bool(inverse), bool(onesided))
    back = tf.concat([tf.argsort(order), [count]], 0)
    return tf.cast(tf.transpose(result, back), x.dtype)


@dynamic("STFT")
def stft(x: Any, step: Any, window: Any = None, length: Any = None, *, onesided: int = 1) -> Any:
    count = shape(window)[0] if length is None else tf.cast(scalar(length), tf.int64)
    signal = _complex(x[..., None] if x.shape.rank == 2 else x)
    frames = tf.signal.frame(signal, tf.cast(count, tf.int32), tf.cast(scalar(step), tf.int32))
    if window is not None:
        frames *= tf.cast(window, frames.dtype)
    return tf.cast(transformed(frames, False, bool(onesided)), x.dtype)


def _window(name: str, rule: Callable[[Any], Any]) -> None:
    def function(length: Any, *, output_datatype: int = 1, periodic: int = 1, result: Any = tf.float32) -> Any:
        count = tf.cast(scalar(length), tf.float64)
        return tf.cast(rule(2 * np.pi * tf.range(count) / (count if periodic else count - 1)), result)

    dynamic(name)(function)


_window("HannWindow", lambda angle: 0.5 - 0.5 * tf.cos(angle))
_window("HammingWindow", lambda angle: 25 / 46 - 21 / 46 * tf.cos(angle))
_window("BlackmanWindow", lambda angle: 0.42 - 0.5 * tf.cos(angle) + 0.08 * tf.cos(2 * angle))


@dynamic("MelWeightMatrix")
def mel_weight_matrix(
    bins: Any, length: Any, rate: Any, low: Any, high: Any, *, output_datatype: int = 1, result: Any = tf.float32
) -> Any:
    bins, length, rate, low, high = (tf.cast(scalar(each), tf.float64) for each in (bins, length, rate, low, high))
    tens = tf.constant(np.log(10), tf.float64)
    first, last = (2595 * tf.math.log(1 + edge / 700) / tens for edge in (low, high))
    mels = tf.range(bins + 2) * ((last - first) / (bins + 2)) + first
    edges = tf.floor((length + 1) * (700 * (tf.pow(tf.constant(10.0, tf.float64), mels / 2595) - 1)) / rate)
    below, centre, above = edges[:-2], edges[1:-1], edges[2:]
    place = tf.range(tf.floor(length / 2) + 1)[:, None]
    rising = tf.where(below == centre, tf.ones_like(place), (place - below) / tf.maximum(centre - below, 1))
    falling = (above - place) / tf.maximum(above - centre, 1)
    zero = tf.zeros_like(rising)
    matrix = tf.where((place >= below) & (place <= centre), rising, zero)
    return tf.cast(tf.where((place > centre) & (place < above), falling, matrix), result)
