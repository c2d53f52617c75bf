"""The range of an activation whose rounding and clipping have the least squared error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.signature import Arrays

_BINS = 2048
_STEPS = 255


def least_error_range(counts: np.ndarray, edges: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The range [a, b] around zero that a histogram has the least squared error in.

    With `s = (b - a) / 255`, a number x inside the range is rounded, which costs `s^2 / 12` on average (Bennett 1948),
    and one outside is clipped, which costs `(x - a)^2` or `(x - b)^2`: their sum over all that was observed is least.
    All pairs of edges of bins are tried, and the extremes.

    Args:
        counts: how many numbers are in each bin, (bins,).
        edges: of the bins, ascending, (bins + 1,).
        low: the least number.
        high: the greatest number.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    centers, counts = (edges[:-1] + edges[1:]) / 2, counts.astype(np.float64)
    starts = np.concatenate([[low], edges[(edges > low) & (edges < 0)], [0.0]])
    ends = np.concatenate([[0.0], edges[(edges > 0) & (edges < high)], [high]])
    below = _clipped(-centers[::-1], counts[::-1], -starts)
    above = _clipped(centers, counts, ends)
    inside = _count(centers, counts, ends)[None, :] - _count(centers, counts, starts)[:, None]
    step = (ends[None, :] - starts[:, None]) / _STEPS
    error = below[:, None] + above[None, :] + inside * np.square(step) / 12
    first, last = np.unravel_index(np.argmin(error), error.shape)
    return float(starts[first]), float(ends[last])


def _clipped(centers: np.ndarray, counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The sum of `(x - limit)^2` over what is above a limit, for each one; centers ascend."""
    first = np.searchsorted(centers, limits, side="right")
    sums = [np.concatenate([[0.0], np.cumsum((counts * centers**power)[::-1])])[::-1][first] for power in range(3)]
    return np.maximum(sums[2] - 2 * limits * sums[1] + np.square(limits) * sums[0], 0)


def _count(centers: np.ndarray, counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(counts)])[np.searchsorted(centers, limits, side="right")]


def write_ranges(source: Path, target: Path, batches: Any, op_types: list[str]) -> None:
    """Observe a program with ONNX Runtime's histograms, and write the ranges as its quantizer reads them.

    Args:
        source: the program.
        target: the file of ranges.
        batches: iterates over inputs by name.
        op_types: operators whose inputs and outputs are observed.
    """
    from onnxruntime.quantization.calibrate import (
        CalibrationMethod,
        TensorsData,
        create_calibrator,
        save_tensors_data,
    )

    observed = create_calibrator(
        source,
        op_types,
        augmented_model_path=str(source.with_name("observed.onnx")),
        calibrate_method=CalibrationMethod.Percentile,
        use_external_data_format=True,
        extra_options={"symmetric": False, "num_bins": _BINS},
    )
    for batch in batches:
        observed.collect_data(_Once(batch))
    ranges = {}
    for name, (counts, edges, low, high, *_) in observed.collector.get_histogram_dict().items():
        found = least_error_range(counts, np.asarray(edges, np.float64), float(low), float(high))
        ranges[name] = tuple(np.asarray(each, np.float32) for each in found)
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, ranges), target)


class _Once:
    """One batch, as a calibrator asks for it."""

    def __init__(self, batch: Arrays) -> None:
        self.left: list[Arrays] = [batch]

    def get_next(self) -> Arrays | None:
        return self.left.pop() if self.left else None
