"""`Quantize("float16")`, `"bfloat16"` and `"float8"`: floating numbers of fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import modelport as mp
from modelport.compression.quantize.run import quantize
from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.graph.normal import normalize
from modelport.verbs.subject import exported, subject

pytestmark = pytest.mark.xdist_group("compress")

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype("float32")
EXPECTED = {"float16": (50, 0.51), "bfloat16": (35, 0.54), "float8": (20, 0.33)}
"""The least SNR in dB, and the largest share of the bytes."""


def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(800, 10),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def net() -> Model:
    import torch

    return subject(_net(), example=torch.from_numpy(IMAGES[:2]))


def _snr(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


@pytest.mark.parametrize("precision", EXPECTED)
def test_the_same_recipe_has_the_same_result_in_every_framework(net: Model, precision: Any, tmp_path: Path) -> None:
    expected = net(IMAGES)
    found = {}
    snr, share = EXPECTED[precision]
    atol = np.ptp(expected) * (2e-3 if precision == "float16" else 1e-5)
    for backend in ("torch", "keras", "onnx"):
        small = mp.compress(mp.transfer(net, to=backend), mp.Quantize(precision))
        found[backend] = small(IMAGES)
        assert found[backend].dtype == np.float32
        assert _snr(expected, found[backend]) > snr
        assert small.report.after.bytes < share * small.report.before.bytes
        assert any(precision in note.message for note in small.report.notes)
        small.save(tmp_path / f"{backend}.mport")
        loaded = mp.load(tmp_path / f"{backend}.mport", backend=backend)
        np.testing.assert_allclose(loaded(IMAGES), found[backend], rtol=0, atol=atol)
    for each in found.values():
        np.testing.assert_allclose(each, found["onnx"], rtol=0, atol=atol)


def test_float16_tells_what_stays_in_float32(net: Model) -> None:
    import torch
    from torch import nn

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.register_buffer("far", torch.full((8,), 1e6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.minimum(self.second(self.first(x)), x + self.far)

    data = torch.randn(4, 8)
    model = Large().eval()
    small = mp.compress(model, mp.Quantize("float16", exclude=("second",)), example=data)
    reasons = list(dict(small.report.alone).values())
    assert "it is excluded" in reasons
    assert any("65504" in reason for reason in reasons)
    assert any("keeps Min in float32" in reason for reason in reasons)
    names = small.parameters()
    assert names["second.weight"].dtype == np.float32
    assert names["first.weight"].dtype == np.float16
    assert _snr(model(data).detach().numpy(), small(data.numpy())) > 50


def test_float8_has_one_scale_per_output_channel(net: Model) -> None:
    graph = normalize(exported(net).graph)
    before = {name: value.const_value.numpy().copy() for name, value in graph.graph.initializers.items()}
    made = quantize(graph, mp.Quantize("float8"), net.signature).graph
    weights = made.graph.initializers
    assert weights["3.weight_quantized"].dtype == ir.DataType.FLOAT8E4M3FN
    assert weights["3.weight_scale"].shape == (32,)
    scale = weights["3.weight_scale"].const_value.numpy()
    np.testing.assert_allclose(scale, np.abs(before["3.weight"]).max((1, 2, 3)) / 448, rtol=1e-6)
    back = weights["3.weight_quantized"].const_value.numpy().astype(np.float32) * scale[:, None, None, None]
    # Four significant bits, and steps of 2^-9 below the smallest normal number.
    allowed = np.abs(before["3.weight"]) / 16 + scale[:, None, None, None] / 512
    assert (np.abs(back - before["3.weight"]) <= allowed).all()
    after = {name: value.const_value.numpy() for name, value in graph.graph.initializers.items()}
    assert all(np.array_equal(after[name], array) for name, array in before.items())


@pytest.mark.parametrize("precision", EXPECTED)
def test_data_and_models_without_weights_are_refused(precision: Any) -> None:
    import torch
    from torch import nn

    with pytest.raises(StepError, match="without data"):
        mp.Quantize(precision, calibration=IMAGES)
    with pytest.raises(StepError, match=r"no .*weight"):
        mp.compress(nn.Sequential(nn.ReLU()), mp.Quantize(precision), example=torch.ones(2, 3))
