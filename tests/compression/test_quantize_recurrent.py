"""Static int8 of nets with recurrent layers: the weights take a byte each, and no framework gets slow of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.model import Model

pytestmark = pytest.mark.xdist_group("recurrent int8")

ROWS = np.random.default_rng(0).standard_normal((16, 10, 24)).astype(np.float32)


def _net(kind: str) -> Any:
    import torch
    from torch import nn

    class Net(nn.Module):
        """A recurrent layer in both directions, and a Linear layer on its mean."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = getattr(nn, kind)(24, 48, batch_first=True, bidirectional=True)
            self.out = nn.Linear(96, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.inner(x)[0].mean(1))

    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module", params=["LSTM", "GRU", "RNN"])
def source(request: pytest.FixtureRequest) -> Model:
    return mp.transfer(_net(request.param), to="onnx", example=ROWS)


@pytest.fixture(scope="module")
def small(source: Model) -> Model:
    return mp.compress(source, mp.Quantize("int8", calibration=ROWS))


def test_matrices_take_a_byte_and_the_report_says_what_computes(source: Model, small: Model) -> None:
    report = small.report
    assert report.after.bytes < 0.3 * report.before.bytes
    assert any("stored in 8 bits" in reason for _, reason in report.alone)
    assert report.agreement[0].snr_db > 30
    weights = small.parameters()
    assert weights["inner.weight_hh_l0_quantized"].dtype == np.int8
    assert weights["inner.weight_hh_l0_scale"].shape == weights["inner.weight_hh_l0_quantized"].shape[:1]


def test_each_weight_is_within_half_a_step_of_what_it_was(source: Model, small: Model) -> None:
    before, after = source.parameters(), small.parameters()
    for name in ("inner.weight_ih_l0", "inner.weight_hh_l0_reverse"):
        scale = after[f"{name}_scale"][:, None]
        assert np.all(np.abs(before[name] - scale * after[f"{name}_quantized"]) <= 0.5001 * scale), name


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_other_frameworks_have_their_own_layer_with_floats_and_say_so(small: Model, backend: str) -> None:
    there = mp.transfer(small, to=backend)
    np.testing.assert_allclose(there(ROWS), small(ROWS), atol=2e-2)
    assert any("held in float32" in note.message for note in there.report.notes)
    assert there.parameters()["inner.weight_ih_l0"].dtype == np.float32
    home = mp.transfer(there, to="onnx")
    operators = Counter(node.op_type for node in home.native.graph.node)
    assert operators["LSTM"] + operators["GRU"] + operators["RNN"] == 1


def test_it_is_saved_and_loaded(small: Model, tmp_path: Path) -> None:
    mp.save(small, tmp_path / "small.onnx")
    np.testing.assert_allclose(mp.load(tmp_path / "small.onnx")(ROWS), small(ROWS), atol=1e-5)


def test_an_excluded_layer_keeps_its_floats(source: Model) -> None:
    kept = mp.compress(source, mp.Quantize("int8", calibration=ROWS, exclude=("inner",)))
    assert kept.parameters()["inner.weight_hh_l0"].dtype == np.float32
