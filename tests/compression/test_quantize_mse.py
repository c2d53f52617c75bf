"""`Quantize(method="mse")`: ranges of least squared error."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import modelport as mp
from modelport.compression.quantize.mse import least_error_range
from tests.compression.test_quantize import IMAGES, _convolutions, _torch

pytestmark = pytest.mark.xdist_group("compress")


def _error(x: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    return float(np.square(np.clip(np.round(x / step) * step, low, high) - x).sum())


@pytest.mark.parametrize("kind", ["normal", "tails", "positive"])
def test_no_other_range_has_a_smaller_squared_error(kind: str) -> None:
    rng = np.random.default_rng(0)
    normal, tails, positive = rng.normal(1, 2, 20000), rng.laplace(0, 1, 20000), rng.exponential(1, 20000)
    x = {"normal": normal, "tails": tails, "positive": positive}[kind]
    limit = np.abs(x).max()
    counts, edges = np.histogram(x, 2048, (-limit, limit))
    low, high = least_error_range(counts, edges, x.min(), x.max())
    assert min(x.min(), 0) <= low <= 0 < high <= x.max()
    found = _error(x, low, high)
    for share in np.linspace(0.05, 1, 40):
        assert found <= 1.03 * _error(x, min(share * x.min(), 0.0), share * x.max())


def test_nothing_observed_and_one_number_have_a_range() -> None:
    assert least_error_range(np.zeros(8), np.linspace(-1, 1, 9), 0.0, 0.0)[1] >= 0
    counts, edges = np.histogram([3.0], 8, (-3, 3))
    assert least_error_range(counts, edges, 3.0, 3.0)[1] > 2


def test_activations_are_clipped_where_that_is_nearer() -> None:
    steps = {}
    for method in ("minmax", "mse"):
        net = mp.transfer(_convolutions(), to="onnx", example=_torch(IMAGES))
        small = mp.compress(net, mp.Quantize(calibration=IMAGES, method=method))
        assert small.report.agreement[0].snr_db > 25
        scales = [each for each in small.native.graph.initializer if each.name.endswith("_scale")]
        steps[method] = {each.name: onnx.numpy_helper.to_array(each) for each in scales}
    scalars = [name for name, array in steps["mse"].items() if array.ndim == 0]
    assert all(steps["mse"][name] <= 1.001 * steps["minmax"][name] for name in scalars)
    assert any(steps["mse"][name] < 0.95 * steps["minmax"][name] for name in scalars)
