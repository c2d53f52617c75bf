"""`FineTune`: one recipe gives one result on every backend, and the model that is given stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.errors import DataError, StepError
from tests.training.small import BACKENDS, CASES, form, losses

pytestmark = pytest.mark.xdist_group("training")

RATE = 1e-2


def _recipe(name: str, **settings: Any) -> mp.FineTune:
    case = CASES[name]
    return mp.FineTune((case.x, case.y), **{"epochs": 2, "learning_rate": RATE, "batch_size": 16, **settings})


def _summed(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keras keeps the sum of a recurrent layer's two biases."""
    sums = {name.replace("_hh", ""): array for name, array in parameters.items() if "bias_hh" in name}
    found = {name.replace("bias_ih", "bias"): array for name, array in parameters.items() if "bias_hh" not in name}
    return {name: array + sums.get(name, 0) for name, array in found.items()}


def _state(model: mp.Model) -> tuple[dict[str, bytes], list[bool]]:
    modes = [part.training for part in model.native.modules()] if model.backend == "torch" else []
    return {name: array.tobytes() for name, array in model.parameters().items()}, modes


@pytest.mark.parametrize("name", CASES)
def test_one_recipe_gives_one_result_on_every_backend(name: str) -> None:
    case = CASES[name]
    recipe = _recipe(name, validation=(case.x, case.y), weight_decay=0.1, schedule="cosine")
    told, weights, outputs = [], [], []
    for backend in BACKENDS:
        model = form(name, backend)
        before = _state(model)
        made = mp.compress(model, recipe)
        assert _state(model) == before
        assert made.backend == backend
        told.append([(epoch.loss, epoch.validation) for epoch in made.report.epochs[0][1]])
        weights.append(_summed(made.parameters()))
        outputs.append(made(case.x))
    np.testing.assert_allclose(told[1:], [told[0]] * 2, rtol=1e-3)
    assert told[0][-1][1] < told[0][0][1]
    scale = np.abs(outputs[0]).max()
    np.testing.assert_allclose(outputs[1:], [outputs[0]] * 2, rtol=0, atol=1e-2 * scale)
    for other in weights[1:]:
        assert set(other) == set(weights[0])
        for key, array in other.items():
            np.testing.assert_allclose(array, weights[0][key], rtol=1e-4, atol=0.01 * RATE, err_msg=key)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt])
def test_what_ends_training_leaves_the_model_as_it_was(backend: str, error: type[BaseException]) -> None:
    case, model = CASES["images"], form("images", backend)
    epochs = []

    def batches() -> Iterator[Any]:
        epochs.append(0)
        yield case.x[:16], case.y[:16]
        if len(epochs) == 2:
            raise error("enough")

    if backend == "torch":
        model.native.train()
        model.native.get_submodule("1").eval()
    before = _state(model)
    with pytest.raises(error, match="enough"):
        mp.compress(model, mp.FineTune(batches, epochs=3))
    assert len(epochs) == 2
    assert _state(model) == before
    if backend == "torch":
        model.native.eval()


def test_what_a_caller_draws_is_not_touched() -> None:
    import torch

    torch.manual_seed(3)
    before, drawn = torch.get_rng_state(), np.random.get_state()[1]
    for backend in BACKENDS:
        mp.compress(form("perceptron", backend), _recipe("perceptron"))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], drawn)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["images", "recurrent"])
def test_zeros_of_pruned_weights_stay(backend: str, name: str) -> None:
    model = form(name, backend)
    pruned = mp.compress(model, mp.Prune(0.5)).parameters()
    made = mp.compress(model, mp.Prune(0.5), _recipe(name, weight_decay=0.1)).parameters()
    weights = [key for key, array in pruned.items() if array.ndim > 1 and (array == 0).any()]
    assert len(weights) >= 3
    for key in weights:
        assert np.array_equal(made[key] == 0, pruned[key] == 0), key
        assert not np.array_equal(made[key], pruned[key])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_smaller_net_learns_and_learns_again(backend: str) -> None:
    recipe = _recipe("images")
    made = mp.compress(form("images", backend), mp.Prune(0.5, structured=True), recipe)
    assert made.parameters()["0.weight"].shape == (4, 2, 3, 3)
    again = mp.compress(made, recipe)
    assert losses(again)[-1] < losses(made)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_frozen_layers_stay_bit_for_bit(backend: str) -> None:
    model = form("images", backend)
    before = model.parameters()
    for freeze, still in ((("0", "1"), ("0.", "1.")), ("3.weight", ("3.weight",))):
        after = mp.compress(model, _recipe("images", freeze=freeze, weight_decay=0.1)).parameters()
        for key, array in before.items():
            assert np.array_equal(array, after[key]) == key.startswith(still), (freeze, key)


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    case = CASES["perceptron"]
    wild = {"epochs": 4, "learning_rate": 0.3, "validation": (case.x, case.y)}
    made = mp.compress(form("perceptron", "torch"), _recipe("perceptron", **wild))
    told = [epoch.validation for epoch in made.report.epochs[0][1]]
    best = int(np.argmin(told))
    assert best < len(told) - 1, "the recipe is too tame for this test"
    stopped = mp.compress(form("perceptron", "torch"), _recipe("perceptron", **{**wild, "epochs": best + 1}))
    np.testing.assert_array_equal(made(case.x), stopped(case.x))


def test_weight_decay_draws_weights_to_zero() -> None:
    model = form("perceptron", "torch")
    free, held = (mp.compress(model, _recipe("perceptron", weight_decay=decay)) for decay in (0.0, 10.0))
    sizes = [sum(float(np.square(array).sum()) for array in each.parameters().values()) for each in (free, held)]
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_precisions_learn_and_stay_what_they_are(backend: str, dtype: str) -> None:
    import torch

    case = CASES["perceptron"]
    torch.manual_seed(0)
    net = case.net().eval().to(getattr(torch, dtype))
    model = mp.transfer(net, to=backend, example=torch.from_numpy(case.x[:4].astype(dtype)), tolerance=1e-2)
    step = mp.FineTune((case.x.astype(dtype), case.y), epochs=3, learning_rate=RATE)
    made = mp.compress(model, step)
    assert {array.dtype for array in made.parameters().values()} == {np.dtype(dtype)}
    single = mp.compress(form("perceptron", "torch"), mp.FineTune((case.x, case.y), epochs=3, learning_rate=RATE))
    np.testing.assert_allclose(losses(made), losses(single), rtol=1e-3 if dtype == "float64" else 1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lone_row_is_refused_where_a_normalization_measures(backend: str) -> None:
    import torch
    from torch import nn

    case = CASES["perceptron"]
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    model = mp.transfer(net, to=backend, example=torch.from_numpy(case.x[:4]))
    with pytest.raises(DataError, match=r"BatchNormalization '1'.*more rows"):
        mp.compress(model, mp.FineTune((case.x[:1], case.y[:1])))
    with pytest.raises(DataError, match="BatchNormalization '1'"):
        mp.compress(model, mp.FineTune((case.x, case.y), batch_size=1))
    assert losses(mp.compress(model, mp.FineTune((case.x[:1], case.y[:1]), freeze="1")))
    # The last batch of 33 rows would have one.
    assert losses(mp.compress(model, mp.FineTune((case.x[:33], case.y[:33]))))


def test_bad_settings_are_refused() -> None:
    case, model = CASES["perceptron"], form("perceptron", "torch")
    data = (case.x, case.y)
    for settings, told in (
        ({"loss": "mae"}, "no loss 'mae'"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"schedule": "linear"}, "schedule"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(StepError, match=told):
            mp.FineTune(data, **settings)  # type: ignore[arg-type]
    for settings, told in (
        ({"freeze": ("nope",)}, "freeze names 'nope'"),
        ({"freeze": ("0", "3")}, "no parameter is left"),
        ({"loss": {"nope": "mse"}}, "'nope'"),
        ({"loss": {}}, "nothing"),
    ):
        with pytest.raises(StepError, match=told):
            mp.compress(model, mp.FineTune(data, **settings))  # type: ignore[arg-type]
    huge = np.full((48, 3), 1e30, np.float32)
    with pytest.raises(StepError, match=r"loss is .* in epoch 1: lower the learning rate"):
        mp.compress(model, mp.FineTune((case.x, huge), loss="mse"))
