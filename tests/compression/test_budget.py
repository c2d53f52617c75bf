"""`compress(..., evaluate=f, budget=b)`: sensitive layers stay in float until the score is met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.verbs.subject import subject

pytestmark = pytest.mark.xdist_group("compress")

DATA = np.random.default_rng(0).standard_normal((64, 32)).astype("float32")
STEP = mp.Quantize("int8", calibration=DATA, per_channel=False)
SENSITIVE, HARMLESS = ("1",), ("0", "2")


def _net() -> Any:
    """Three layers; of the weights of the second, one is so large that the others round to nothing."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 8)).eval()
    with torch.no_grad():
        net[1].weight[0, 0] = 60.0
        net[0].weight[0] = 0.0
        net[0].bias[0] = 0.0
    return net


@pytest.fixture(scope="module")
def net() -> Model:
    import torch

    return mp.transfer(subject(_net(), example=torch.from_numpy(DATA[:4])), to="onnx")


def _scored(model: Model) -> Any:
    """Minus the relative error against a model."""
    expected = model(DATA)

    def score(other: Model) -> float:
        return -float(np.sqrt(np.square(other(DATA) - expected).mean() / np.square(expected).mean()))

    return score


def test_the_most_sensitive_layer_stays_in_float_and_is_named(net: Model) -> None:
    score = _scored(net)
    loose = mp.compress(net, STEP, evaluate=score)
    assert loose.report.after.score < -0.1
    tight = mp.compress(net, STEP, evaluate=score, budget=0.05)
    assert tight.report.after.score >= -0.05
    left = dict(tight.report.alone)
    assert set(left) == set(SENSITIVE)
    assert "stays in float for the budget" in left["1"]
    assert "dB" in left["1"]
    names = set(tight.parameters())
    assert "1.weight" in names
    assert not {f"{name}.weight" for name in HARMLESS} & names


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_the_score_is_that_of_the_backend(net: Model, backend: str) -> None:
    seen = set()
    score = _scored(net)

    def evaluate(model: Model) -> float:
        seen.add(model.backend)
        return score(model)

    small = mp.compress(mp.transfer(net, to=backend), STEP, evaluate=evaluate, budget=0.05)
    assert seen == {backend}
    assert small.report.after.score >= -0.05
    assert len(small.report.alone) == 1


def test_a_budget_that_is_met_leaves_nothing_out(net: Model) -> None:
    small = mp.compress(net, STEP, evaluate=_scored(net), budget=10)
    assert small.report.alone == ()


def test_a_budget_that_cannot_be_met_returns_the_model_and_says_so(net: Model) -> None:
    small = mp.compress(net, STEP, evaluate=_scored(net), budget=0)
    np.testing.assert_allclose(small(DATA), net(DATA), rtol=1e-6, atol=1e-6)
    assert {"0", "1", "2"} <= set(dict(small.report.alone))
    assert any("within the budget" in note.message for note in small.report.notes)
    assert small.report.after.bytes == small.report.before.bytes


def test_what_an_earlier_step_cost_is_not_blamed_on_quantize(net: Model) -> None:
    small = mp.compress(net, mp.Prune(0.9), STEP, evaluate=_scored(net), budget=0.01)
    assert any("not met before" in note.message for note in small.report.notes)


def test_weights_by_blocks_have_a_budget_too(net: Model) -> None:
    step = mp.Quantize("int4", algorithm="gptq", calibration=DATA)
    score = _scored(net)
    reached = mp.compress(net, step, evaluate=score).report.after.score
    small = mp.compress(net, step, evaluate=score, budget=-reached / 2)
    assert small.report.after.score >= reached / 2
    assert 1 <= len(small.report.alone) < 3


@pytest.mark.parametrize(("options", "told"), [
    ({"budget": 0.01}, "evaluate=f"),
    ({"budget": -1, "evaluate": lambda model: 1.0}, "from 0 on"),
    ({"budget": float("nan"), "evaluate": lambda model: 1.0}, "from 0 on"),
    ({"budget": 0.1, "evaluate": lambda model: float("nan")}, "needs a number"),
])  # fmt: skip
def test_a_budget_that_makes_no_sense_is_refused(net: Model, options: dict[str, Any], told: str) -> None:
    with pytest.raises(StepError, match=told):
        mp.compress(net, STEP, **options)


def test_a_budget_without_quantize_is_refused(net: Model) -> None:
    with pytest.raises(StepError, match="no step is one"):
        mp.compress(net, mp.Prune(0.5), evaluate=lambda model: 1.0, budget=0.1)
