"""`Prune` through `compress`: the same recipe on every framework, and what is left trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp

pytestmark = pytest.mark.xdist_group("compress")

IMAGES = np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype("float32")
CLASSES = np.random.default_rng(1).integers(0, 10, 24)


def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    net.train()(torch.from_numpy(IMAGES))
    return net.eval()


def _example() -> Any:
    import torch

    return torch.from_numpy(IMAGES[:4])


STEPS = {
    "magnitude": mp.Prune(0.5),
    "pattern": mp.Prune(n_m=(2, 4)),
    "structured": mp.Prune(0.5, structured=True),
    "taylor": mp.Prune(0.5, structured=True, importance="taylor", data=(IMAGES, CLASSES)),
    "each layer": mp.Prune(0.25, structured=True, scope="layer"),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_same_weights_go_in_every_framework(name: str) -> None:
    results = {}
    for backend in ("torch", "keras", "onnx"):
        start = mp.transfer(_net(), to=backend, example=_example())
        before = {key: array.copy() for key, array in start.parameters().items()}
        small = mp.compress(start, STEPS[name])
        assert small.backend == backend
        results[backend] = small(IMAGES)
        after = start.parameters()
        assert all(np.array_equal(after[key], array) for key, array in before.items())
    for found in results.values():
        np.testing.assert_allclose(found, results["torch"], rtol=0, atol=1e-4 * np.abs(results["torch"]).max())


def test_half_of_the_weights_are_zero() -> None:
    small = mp.compress(_net(), mp.Prune(0.5), example=_example())
    weights = [array for name, array in small.parameters().items() if array.ndim > 1]
    zeros = sum(int((array == 0).sum()) for array in weights)
    assert zeros == round(0.5 * sum(array.size for array in weights))


def test_whole_channels_go_and_what_is_left_trains(tmp_path: Path) -> None:
    import torch

    small = mp.compress(_net(), mp.Prune(0.5, structured=True), example=_example())
    first, second = (small.parameters()[name].shape for name in ("0.weight", "3.weight"))
    assert first[0] < 16
    assert second[:2] == (second[0], first[0])
    assert small.parameters()["8.weight"].shape == (10, second[0])
    assert small.report.after.bytes < 0.6 * small.report.before.bytes
    native = small.native.train()
    optimizer = torch.optim.SGD(native.parameters(), 0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(native(torch.from_numpy(IMAGES)), torch.from_numpy(CLASSES))
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    small.save(tmp_path / "small.mport")
    native.eval()
    np.testing.assert_allclose(mp.load(tmp_path / "small.mport")(IMAGES), small(IMAGES), rtol=0, atol=1e-4)


def test_steps_follow_one_another() -> None:
    start = mp.transfer(_net(), to="onnx", example=_example())
    small = mp.compress(start, mp.Prune(0.5, structured=True), mp.Quantize(calibration=IMAGES))
    assert small.report.steps == ("Prune(ratio=0.5, structured=True)", "Quantize(calibration=…)")
    assert small.report.after.bytes < 0.2 * small.report.before.bytes
    assert len(small.report.seconds) == len(small.report.steps)


@pytest.mark.parametrize(("settings", "told"), [
    ({"ratio": 0.0}, "inside"),
    ({"ratio": 1.0}, "inside"),
    ({"ratio": -0.5}, "inside"),
    ({}, "one of the two"),
    ({"ratio": 0.5, "n_m": (2, 4)}, "one of the two"),
    ({"n_m": (4, 4)}, "0 < n < m"),
    ({"n_m": (2, 4), "structured": True}, "takes a ratio"),
    ({"ratio": 0.5, "importance": "taylor"}, "needs data"),
    ({"ratio": 0.5, "scope": "some"}, "'global', 'layer'"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(mp.StepError, match=told):
        mp.Prune(**settings)


@pytest.mark.parametrize(("data", "told"), [
    (IMAGES, "a pair"),
    ((IMAGES, CLASSES[:3]), "rows of inputs and targets"),
    ((IMAGES, CLASSES + 10), "classes 0 to 9"),
    ((IMAGES[:, :2], CLASSES), "do not fit the model"),
])  # fmt: skip
def test_data_that_do_not_fit_are_refused(data: Any, told: str) -> None:
    with pytest.raises(mp.DataError, match=told):
        mp.compress(_net(), mp.Prune(0.5, importance="taylor", data=data), example=_example())
