"""Bundles and files of PyTorch and Keras models: written by one, opened by the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import modelport as mp

pytestmark = pytest.mark.xdist_group("bundles")

X = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype("float32")


def torch_net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, 5)
    return nn.Sequential(*layers).eval()


def keras_net() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Flatten(name="flat")(keras.layers.ReLU(name="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(5, name="head")(x))


@pytest.fixture(scope="module")
def torch_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("torch") / "net.mport"
    mp.save(torch_net(), path, example=torch.from_numpy(X.transpose(0, 3, 1, 2).copy()))
    return path


@pytest.fixture(scope="module")
def keras_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "net.mport"
    mp.save(keras_net(), path, native=True)
    return path


def test_a_bundle_opens_where_neither_torch_nor_tensorflow_can_be_imported(torch_bundle: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'tensorflow', 'keras'): sys.modules[name] = None\n"
        "import numpy as np, modelport as mp\n"
        f"print(mp.load({str(torch_bundle)!r})(np.zeros((7, 3, 8, 8), 'float32')).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(7, 5)"


def test_safetensors_reads_a_bundles_weights_as_a_state_dict(torch_bundle: Path) -> None:
    state = torch_net().state_dict()
    stored = safetensors.numpy.load_file(torch_bundle / "weights.safetensors")
    assert stored.keys() <= state.keys()
    assert {name.rpartition(".")[2] for name in state.keys() - stored.keys()} <= {"num_batches_tracked"}
    for name, array in stored.items():
        np.testing.assert_array_equal(array, state[name].numpy())


def test_a_torch_bundle_goes_into_the_original_class(torch_bundle: Path) -> None:
    import torch

    fresh = torch_net()
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    loaded = mp.load(torch_bundle, into=fresh)
    expected = torch_net().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in fresh.state_dict().items())
    assert loaded(X.transpose(0, 3, 1, 2)).shape == (3, 5)


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_a_torch_bundle_opens_on_every_backend_and_says_how_well(torch_bundle: Path, backend: str) -> None:
    loaded = mp.load(torch_bundle, backend=backend)
    assert loaded.backend == backend
    assert [event["verb"] for event in loaded.history] == ["save", "load", "transfer"]
    assert loaded.report.parity.ok


def test_a_keras_bundle_opens_on_torch_and_goes_home_by_name(keras_bundle: Path) -> None:
    moved = mp.load(keras_bundle, backend="torch")
    assert {"conv.weight", "norm.running_mean", "head.bias"} <= set(moved.native.state_dict())
    home = keras_net()
    for variable in home.variables:
        variable.assign(variable * 0 + 0.5)
    loaded = mp.load(keras_bundle, into=home)
    assert [spec.name for spec in loaded.signature.inputs] == ["image"]
    np.testing.assert_allclose(loaded(X), keras_net()(X).numpy(), rtol=1e-5, atol=1e-6)


def test_the_frameworks_own_file_is_beside_the_program(keras_bundle: Path) -> None:
    beside = mp.load(keras_bundle / "native" / "model.keras")
    assert beside.backend == "keras"
    np.testing.assert_allclose(beside(X), mp.load(keras_bundle)(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net.onnx", "net.pt2", "net.mport"])
def test_a_keras_model_is_written_in_every_frameworks_format(name: str, tmp_path: Path) -> None:
    mp.save(keras_net(), tmp_path / name)
    report = mp.compare(keras_net(), tmp_path / name, X, gradients=False)
    assert report.ok, report


@pytest.mark.parametrize("name", ["net.weights.h5", "net.safetensors"])
def test_weights_alone_go_into_a_model_of_the_same_code(name: str, tmp_path: Path) -> None:
    mp.save(keras_net(), tmp_path / name)
    fresh = keras_net()
    for variable in fresh.variables:
        variable.assign(variable * 0)
    mp.load(tmp_path / name, into=fresh)
    np.testing.assert_array_equal(fresh(X).numpy(), keras_net()(X).numpy())


@pytest.mark.parametrize("name", ["net.pt", "net.pth"])
def test_a_state_dict_goes_into_a_module_of_the_same_code(name: str, tmp_path: Path) -> None:
    import torch

    mp.save(torch_net(), tmp_path / name)
    fresh = torch_net()
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    loaded = mp.load(tmp_path / name, into=fresh, example=torch.from_numpy(X.transpose(0, 3, 1, 2).copy()))
    assert torch.equal(fresh[0].weight, torch_net()[0].weight)
    assert loaded(X.transpose(0, 3, 1, 2)).shape == (3, 5)


def test_weights_of_another_framework_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(mp.FormatError, match=r"\.safetensors"):
        mp.save(torch_net(), tmp_path / "net.weights.h5")


def test_a_savedmodel_replaces_a_savedmodel_and_nothing_else(tmp_path: Path) -> None:
    for _ in range(2):
        mp.save(keras_net(), tmp_path / "saved", format="savedmodel")
    assert mp.load(tmp_path / "saved").backend == "keras"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(mp.FormatError, match="is not replaced"):
        mp.save(keras_net(), tmp_path / "other", format="savedmodel")


def test_a_path_without_a_suffix_asks_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(mp.FormatError, match="no suffix"):
        mp.save(keras_net(), tmp_path / "net")


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(mp.FormatError, match="'bundle', 'safetensors'"):
        mp.save(keras_net(), tmp_path / "net", format="pickle")
