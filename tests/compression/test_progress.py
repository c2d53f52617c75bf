"""Bars where they are asked for, and only there."""

from __future__ import annotations

import numpy as np
import pytest

import modelport as mp
from modelport.core.model import Model
from modelport.core.progress import showing, tracked
from modelport.verbs.subject import subject
from tests.nets import in_torch

pytestmark = pytest.mark.xdist_group("compress")

IMAGES = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype("float32")


@pytest.fixture(scope="module")
def model() -> Model:
    return mp.transfer(subject(in_torch.net("cnn"), example=in_torch.example("cnn")), to="onnx")


def test_every_long_part_of_compress_has_a_bar(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    taylor = mp.Prune(0.5, structured=True, importance="taylor", data=(IMAGES, np.arange(40) % 10))
    mp.compress(model, taylor, mp.Quantize(calibration=IMAGES), evaluate=lambda _: 1.0, progress=True)
    shown = capsys.readouterr().err
    for bar in ("compress:", "gradients:", "calibration:", "evaluate:"):
        assert bar in shown
    assert "2/2" in shown
    assert "Quantize(calibration=…)" in shown


def test_without_progress_nothing_is_said(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    mp.compress(model, mp.Quantize(calibration=IMAGES, method="entropy"))
    mp.compress(model, mp.Quantize())
    mp.sweep(model, {"half": mp.Prune(0.5)}, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_sweep_shows_which_recipe_it_is_at(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    mp.sweep(model, {"a half": mp.Prune(0.5), "a third": mp.Prune(0.33)})
    shown = capsys.readouterr().err
    assert "sweep:" in shown
    assert "a third" in shown
    assert "compress:" in shown


def test_what_is_tracked_passes_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(True):
        assert list(tracked(iter("abc"), "letters", 3, told=str.upper)) == ["a", "b", "c"]
        with showing(False):
            assert list(tracked("ab", "silent")) == ["a", "b"]
    assert list(tracked("ab", "silent")) == ["a", "b"]
    shown = capsys.readouterr().err
    assert "letters: 100%" in shown
    assert "silent" not in shown
