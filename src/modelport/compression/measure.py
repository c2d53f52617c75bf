"""How two models compare: the time of a call, and what they say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from modelport.core.compressed import Agreement
from modelport.core.signature import Arrays

_SECONDS = 1.0
_CALLS = (7, 200)
"""The fewest and the most calls of each model."""


def latencies(before: Callable[[], object], after: Callable[[], object]) -> tuple[np.ndarray, np.ndarray]:
    """The times of calls of two models, in seconds, one after the other so that a busy machine slows down both."""
    for call in (before, after):
        call()
    pairs: list[tuple[float, float]] = []
    started = time.perf_counter()
    least, most = _CALLS
    while len(pairs) < least or (time.perf_counter() - started < _SECONDS and len(pairs) < most):
        pairs.append((_timed(before), _timed(after)))
    first, second = np.asarray(pairs).T
    return first, second


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def agreement(before: Arrays, after: Arrays) -> tuple[Agreement, ...]:
    """One row per output of floating numbers."""
    found = []
    for name, wanted in before.items():
        if not isinstance(wanted, np.ndarray) or wanted.dtype.kind != "f" or name not in after:
            continue
        signal, noise = (
            np.square(wanted, dtype=np.float64).sum(),
            np.square(wanted - after[name], dtype=np.float64).sum(),
        )
        found.append(Agreement(name, _decibels(signal, noise), _top1(wanted, after[name])))
    return tuple(found)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    # What is infinite or no number is all noise.
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf


def _top1(before: np.ndarray, after: np.ndarray) -> float | None:
    if before.ndim < 2 or before.shape[-1] < 2 or before.size == 0:
        return None
    return float(np.mean(before.argmax(-1) == after.argmax(-1)))
