"""Kind: code in a framework's own file (CVE-2024-3660, CVE-2025-1550, CVE-2025-32434): refused, named, never run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["net.pt", "net.pth"])
def test_a_pickled_call_in_a_torch_file_is_refused(name: str, zipped: bool, tmp_path: Path) -> None:
    import torch

    content = {"fc.weight": torch.ones(2), "attack": Attack(tmp_path / "ran")}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    for options in ({}, {"into": torch.nn.Linear(2, 2)}):
        with pytest.raises(mp.UntrustedFileError, match="system"):
            mp.load(tmp_path / name, **options)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused_and_its_class_is_named(tmp_path: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(mp.UntrustedFileError, match=r"torch\.nn\.modules\.linear\.Linear"):
        mp.load(tmp_path / "net.pt", into=torch.nn.Linear(2, 2))


def test_torchscript_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    import torch

    torch.jit.script(torch.nn.Linear(3, 2)).save(tmp_path / "net.pt")
    with pytest.raises(mp.UntrustedFileError, match="TorchScript"):
        mp.load(tmp_path / "net.pt")
    trusted = mp.load(tmp_path / "net.pt", trust=True, example=torch.ones(2, 3))
    assert trusted(np.ones((4, 3), "float32")).shape == (4, 2)


def _keras_model_with_code(path: Path) -> None:
    import keras

    inputs = keras.Input((3,), name="x")
    outputs = keras.layers.Lambda(lambda x: x + 1.0, name="sneaky")(inputs)
    keras.Model(inputs, outputs).save(path)


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_a_lambda_layer_is_refused_and_named(name: str, tmp_path: Path) -> None:
    _keras_model_with_code(tmp_path / name)
    with pytest.raises(mp.UntrustedFileError, match="Lambda layer"):
        mp.load(tmp_path / name)


def test_a_trusted_lambda_layer_runs(tmp_path: Path) -> None:
    _keras_model_with_code(tmp_path / "net.keras")
    loaded = mp.load(tmp_path / "net.keras", trust=True)
    np.testing.assert_allclose(loaded(np.zeros((2, 3), "float32")), np.ones((2, 3)))


def test_a_keras_file_that_names_a_function_of_another_module_is_refused(tmp_path: Path) -> None:
    import json
    import zipfile

    import keras

    inputs = keras.Input((3,), name="x")
    keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs)).save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    layer = next(entry for entry in config["config"]["layers"] if entry["class_name"] == "Dense")
    layer.update(module="os", class_name="system", registered_name="system", config=f"touch {tmp_path / 'ran'}")
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(mp.ModelPortError):
        mp.load(tmp_path / "net.keras")
    assert not (tmp_path / "ran").exists()
