"""A long call that is interrupted leaves the model, the disk and the screen as they were."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core import progress
from modelport.core.model import Model
from modelport.verbs.subject import subject
from tests.nets import in_torch

pytestmark = pytest.mark.xdist_group("compress")

IMAGES = np.random.default_rng(0).standard_normal((64, 3, 16, 16)).astype("float32")
CLASSES = np.arange(64) % 10
STEPS = (
    mp.Prune(0.5, structured=True, importance="taylor", data=(IMAGES, CLASSES)),
    mp.Quantize(calibration=IMAGES, method="entropy"),
)
SOURCE = str(Path(mp.__file__).parent)


@pytest.fixture(scope="module", params=["torch", "keras", "onnx"])
def model(request: pytest.FixtureRequest) -> Model:
    net = subject(in_torch.net("cnn"), example=in_torch.example("cnn"))
    if request.param == "torch":
        net.native.train()
    else:
        net = mp.transfer(net, to=request.param)
    # What is imported and cached on the way the first time (torch has a folder of its own) is there from here on.
    mp.compress(net, *STEPS)
    return net


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is measured in as many calls every time."""
    monkeypatch.setattr("modelport.compression.measure._SECONDS", 0)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places where files could be left; they are empty."""
    found = [tmp_path / "temporary", tmp_path / "working"]
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found[0]))
    monkeypatch.chdir(found[1])
    return found


def _state(model: Model) -> tuple[dict[str, bytes], bytes, list[bool]]:
    """Every bit of the weights and of an output, and what trains."""
    modes = [part.training for part in model.native.modules()] if model.backend == "torch" else []
    weights = {name: array.tobytes() for name, array in model.parameters().items()}
    return weights, model(IMAGES[:4]).tobytes(), modes


@pytest.mark.parametrize("loop", ["calibration", "gradients"])
def test_an_interruption_amid_the_data_leaves_the_model_as_it_was(
    loop: str, model: Model, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(bar: Any, told: Any) -> Iterator[Any]:
        for number, item in enumerate(passed(bar, told)):
            if number and bar.desc.startswith(loop):
                raise KeyboardInterrupt
            yield item

    before = _state(model)
    passed = progress._told
    monkeypatch.setattr(progress, "_told", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mp.compress(model, *STEPS, progress=True)
    assert _state(model) == before
    assert not [file for folder in folders for file in folder.iterdir()]


def test_an_interruption_amid_the_scores_leaves_the_model_as_it_was(model: Model, folders: list[Path]) -> None:
    def score(candidate: Model) -> float:
        if candidate.native is not model.native:
            raise KeyboardInterrupt
        return 1.0

    before = _state(model)
    with pytest.raises(KeyboardInterrupt):
        mp.compress(model, *STEPS, evaluate=score)
    assert _state(model) == before
    assert not [file for folder in folders for file in folder.iterdir()]


class _Interruption:
    """Interrupts at a call of a function of modelport's, by its number."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.calls = at, 0

    def __enter__(self) -> _Interruption:
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt


def test_an_interruption_at_any_moment_leaves_the_model_as_it_was(
    model: Model, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many calls in every run, however fast the machine is.
    monkeypatch.setattr("modelport.compression.measure._CALLS", (3, 3))
    before = _state(model)
    with _Interruption() as whole:
        expected = mp.compress(model, *STEPS)
    for part in range(4):
        with pytest.raises(KeyboardInterrupt), _Interruption(at=1 + part * whole.calls // 4):
            mp.compress(model, *STEPS)
        assert _state(model) == before
        assert not [file for folder in folders for file in folder.iterdir()]
    np.testing.assert_array_equal(mp.compress(model, *STEPS)(IMAGES), expected(IMAGES))


def test_an_interrupted_sweep_has_what_is_done(model: Model) -> None:
    scored = 0

    def score(_: Model) -> float:
        nonlocal scored
        scored += 1
        if scored == 3:
            raise KeyboardInterrupt
        return 0.5

    before = _state(model)
    recipes = {name: mp.Prune(share) for name, share in {"a third": 0.33, "half": 0.5, "most": 0.9}.items()}
    result = mp.sweep(model, recipes, evaluate=score, progress=False)
    assert list(result) == ["a third"]
    assert result.unfinished == ("half", "most")
    assert "interrupted: not done: half, most" in str(result)
    assert result["a third"](IMAGES).shape == (64, 10)
    assert _state(model) == before


@pytest.mark.parametrize("at", [1, 2])
def test_a_sweep_that_has_nothing_yet_is_interrupted(at: int, model: Model) -> None:
    scored = 0

    def score(_: Model) -> float:
        nonlocal scored
        scored += 1
        if scored == at:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        mp.sweep(model, [mp.Prune(0.5), mp.Prune(0.6)], evaluate=score, progress=False)


def test_a_bar_is_closed_by_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm.auto import tqdm

    from modelport.core.progress import showing, tracked

    def count() -> None:
        for item in tracked([1, 2, 3], "counting"):
            if item == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), showing(True):
        count()
    assert not getattr(tqdm, "_instances", ())
    assert "counting:" in capsys.readouterr().err
