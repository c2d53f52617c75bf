"""`sweep`: several recipes side by side, and which of them are worth taking."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.compressed import Agreement, CompressReport, Measured
from modelport.core.model import Model
from modelport.verbs.subject import subject
from tests.nets import in_torch

pytestmark = pytest.mark.xdist_group("compress")

IMAGES = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype("float32")
RECIPES = {
    "int8": mp.Quantize(calibration=IMAGES),
    "half": mp.Prune(0.5, structured=True),
    "both": [mp.Prune(0.5, structured=True), mp.Quantize(calibration=IMAGES)],
    "no data": mp.Quantize(calibration=IMAGES[:0]),
    "zeros": mp.Prune(0.5),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return mp.transfer(subject(in_torch.net("cnn"), example=in_torch.example("cnn")), to="onnx")


@pytest.fixture(scope="module")
def swept(model: Model) -> mp.SweepReport:
    expected = model(IMAGES)
    return mp.sweep(model, RECIPES, evaluate=lambda m: -float(np.abs(m(IMAGES) - expected).mean()), progress=False)


def _fake(*rows: tuple[str, int, float, float | None, float], given: float | None = 0.9) -> mp.SweepReport:
    """A report of results that have these bytes, latency ratios, scores and agreements, from a model of 100 bytes."""
    made = []
    for name, size, ratio, score, snr in rows:
        before, after = Measured(100, 1.0, 1.0, given), Measured(size, ratio, ratio, score)
        report = CompressReport("onnx", (name,), before, after, ratio, (Agreement("y", snr), Agreement("z", 90.0)))
        handle = Model(None, None, None, report=report)  # type: ignore[arg-type]
        made.append(mp.SweepRow(name, (name,), handle))
    return mp.SweepReport("onnx", tuple(made))


def test_every_recipe_starts_from_the_model_that_is_given(model: Model, swept: mp.SweepReport) -> None:
    before = model.parameters()
    alone = mp.compress(model, mp.Prune(0.5, structured=True))
    np.testing.assert_array_equal(swept["half"](IMAGES), alone(IMAGES))
    np.testing.assert_array_equal(swept["int8"](IMAGES), mp.compress(model, RECIPES["int8"])(IMAGES))
    assert swept["both"].report.after.bytes < swept["half"].report.after.bytes < swept.before.bytes
    assert list(swept) == ["int8", "half", "both", "zeros"]
    assert {name: array.tobytes() for name, array in before.items()} == {
        name: array.tobytes() for name, array in model.parameters().items()
    }


def test_a_recipe_that_fails_is_a_row_that_says_why(swept: mp.SweepReport) -> None:
    row = swept.rows[3]
    assert row.problem.startswith("DataError: calibration data for input 'image' are empty")
    assert "failed: no data: DataError: calibration data" in str(swept)
    assert "no data" not in swept
    with pytest.raises(mp.StepError, match="'no data' has no result: DataError"):
        swept["no data"]
    with pytest.raises(KeyError, match="int4"):
        swept["int4"]


def test_a_score_that_fails_on_one_result_does_not_lose_the_others(model: Model) -> None:
    def score(candidate: Model) -> float:
        return 1.0 if candidate.parameters()["fc.weight"].all() else 1 / 0

    result = mp.sweep(
        model, {"zeros": mp.Prune(0.5), "half": mp.Prune(0.5, structured=True)}, evaluate=score, progress=False
    )
    assert [row.problem for row in result.rows] == ["ZeroDivisionError: division by zero", ""]


def test_the_given_model_is_scored_once(model: Model) -> None:
    seen = []
    mp.sweep(
        model, {"a": mp.Prune(0.5), "b": mp.Prune(0.6)}, evaluate=lambda m: seen.append(m.native) or 0.0, progress=False
    )
    assert seen[0] is model.native
    assert sum(native is model.native for native in seen) == 1
    assert len(seen) == 3


def test_a_sweep_on_torch_and_of_unnamed_recipes() -> None:
    recipes = [mp.Prune(0.5), (mp.Prune(0.25), mp.Prune(n_m=(2, 4)))]
    result = mp.sweep(in_torch.net("cnn"), recipes, example=in_torch.example("cnn"), progress=False)
    assert list(result) == ["Prune(ratio=0.5)", "Prune(ratio=0.25) -> Prune(n_m=(2, 4))"]
    assert result.backend == "torch"
    assert result.rows[0].snr_db == min(row.snr_db for row in result["Prune(ratio=0.5)"].report.agreement)


def test_the_front_is_what_nothing_beats_in_quality_bytes_and_latency() -> None:
    result = _fake(
        ("small", 25, 0.8, 0.89, 40.0),
        ("worse than small", 25, 0.8, 0.88, 50.0),
        ("fast", 50, 0.5, 0.80, 20.0),
        ("zeros", 100, 1.0, 0.85, 30.0),
        ("better", 110, 1.2, 0.91, 30.0),
        ("same as small", 25, 0.81, 0.89, 40.0),
        ("not a number", 99, 0.99, math.nan, 40.0),
    )
    assert result.front == ("small", "fast", "better", "same as small")


def test_without_a_score_the_front_goes_by_the_least_agreement() -> None:
    result = _fake(("a", 25, 0.8, None, 40.0), ("b", 25, 0.9, None, 50.0), ("c", 25, 0.9, None, 45.0), given=None)
    assert not result.scored
    assert result.front == ("a", "b")
    assert result.best(snr_db=45).name == "b"
    assert "on the Pareto front of agreement" in str(result)


def test_the_best_is_the_smallest_or_fastest_that_is_good_enough() -> None:
    result = _fake(("int8", 27, 0.7, 0.89, 35.0), ("both", 14, 0.4, 0.84, 20.0), ("half", 50, 0.3, 0.88, 25.0))
    assert result.best(loss=0.01).name == "int8"
    assert result.best(loss=0.02, by="latency").name == "half"
    assert result.best(loss=0.1).name == "both"
    assert result.best(loss=0.1, snr_db=30).name == "int8"
    with pytest.raises(mp.StepError, match=r"the closest is 'int8' with a score of 0\.8900 \(-0\.0100\)"):
        result.best(loss=0.001)
    with pytest.raises(mp.StepError, match="needs a bound"):
        result.best()
    with pytest.raises(mp.StepError, match="by='bytes' or by='latency'"):
        result.best(loss=1, by="size")  # type: ignore[arg-type]
    with pytest.raises(mp.StepError, match="there is no score to lose"):
        _fake(("a", 25, 0.8, None, 40.0), given=None).best(loss=0.1)


def test_a_sweep_of_which_all_recipes_fail_says_so(model: Model) -> None:
    result = mp.sweep(model, {"a": mp.Quantize(calibration=IMAGES[:0])}, progress=False)
    assert result.before is None
    assert result.front == ()
    assert "failed: a: DataError" in str(result)
    with pytest.raises(mp.StepError, match="no recipe has a result\n  a: DataError"):
        result.best(snr_db=1)


def test_the_report_prints_and_is_json(swept: mp.SweepReport) -> None:
    lines = str(swept).splitlines()
    marked = {line.split()[1] for line in lines if line.strip().startswith("*") and " x " in line}
    assert marked == set(swept.front)
    assert "both" in marked
    assert any("as given" in line and f"{swept.before.bytes:,}" in line for line in lines)
    told = json.loads(json.dumps(swept.to_json()))
    assert told["front"] == list(swept.front)
    assert [row["name"] for row in told["rows"]] == list(RECIPES)
    assert told["rows"][2]["steps"] == list(swept["both"].report.steps)
    assert told["rows"][3]["problem"].startswith("DataError")
    assert told["rows"][0]["after"]["bytes"] == swept["int8"].report.after.bytes


@pytest.mark.parametrize(("recipes", "told"), [
    ({}, "sweep needs a recipe"),
    ([], "sweep needs a recipe"),
    (mp.Prune(0.5), "sweep takes several recipes"),
    ({"none": []}, "recipe 'none': there is no step in it"),
    ({"int8": "int8"}, "recipe 'int8': 'int8' is no step"),
    ({"int8": 8}, "recipe 'int8': 8 is no step"),
    ([mp.Prune(0.5), ["half"]], "recipe 1: 'half' is no step"),
    ([mp.Quantize(calibration=IMAGES), mp.Quantize(calibration=IMAGES[:4])], "give them names"),
])  # fmt: skip
def test_recipes_that_make_no_sense_are_refused_before_anything_runs(recipes: Any, told: str, model: Model) -> None:
    def score(_: Model) -> float:
        raise AssertionError

    with pytest.raises(mp.StepError, match=told):
        mp.sweep(model, recipes, evaluate=score)


def test_what_is_slower_or_only_simulated_is_said_once() -> None:
    steps = {"a": mp.Quantize(calibration=IMAGES), "b": mp.Quantize(calibration=IMAGES, method="percentile")}
    result = mp.sweep(in_torch.net("cnn"), steps, example=in_torch.example("cnn"), progress=False)
    assert str(result).count("torch simulates int8") == 1
    text = str(_fake(("a", 25, 1.3, 0.9, 40.0), ("b", 25, 1.01, 0.9, 40.0), ("c", 25, 1.5, 0.9, 40.0)))
    assert "slower on this machine than the given model: a, c" in text
