"""A converted model reloads, runs and trains in a process that has no modelport."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.signature import leaves
from tests.nets import in_keras, in_torch

pytestmark = pytest.mark.xdist_group("roundtrip")

NO_MODELPORT = """
import sys
class NoModelport:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "modelport":
            raise ImportError("modelport is not installed here")
sys.meta_path.insert(0, NoModelport())
import numpy as np
data = np.load(sys.argv[2])
inputs = [data[f"input_{i}"] for i in range(sum(key.startswith("input") for key in data))]
"""

IN_KERAS = (
    NO_MODELPORT
    + """
import keras
model = keras.saving.load_model(sys.argv[1])
if isinstance(model.input, dict):
    inputs = [dict(zip(sorted(model.input), inputs))]
elif len(inputs) > 1:
    inputs = [inputs]
found = model(*inputs, training=False)
found = np.asarray(found[sorted(found)[0]] if isinstance(found, dict) else found)
np.testing.assert_allclose(found, data["expected"], rtol=0, atol=1e-5 * np.abs(data["expected"]).max())
"""
)

IN_TORCH = (
    NO_MODELPORT
    + """
import torch
program = torch.export.load(sys.argv[1])
inputs = [torch.from_numpy(array) for array in inputs]
if sys.argv[3] == "dict":
    inputs = [dict(zip(["image", "numeric"], inputs))]
found = program.module()(*inputs)
found = found[sorted(found)[0]] if isinstance(found, dict) else found
expected = data["expected"]
np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
"""
)


def _stored(path: Path, example: Any, expected: Any) -> Path:
    if isinstance(example, dict):
        example = [example[key] for key in sorted(example)]
        expected = expected[sorted(expected)[0]]
    arrays = {f"input_{i}": np.asarray(value) for i, value in enumerate(leaves((example,)))}
    np.savez(path, expected=expected, **arrays)
    return path


@pytest.mark.parametrize("kind", in_torch.NETS)
def test_a_keras_file_reloads_without_modelport(kind: str, tmp_path: Path) -> None:
    example = in_torch.example(kind)
    moved = mp.transfer(in_torch.net(kind), to="keras", example=example)
    moved.native.save(tmp_path / "net.keras")
    data = _stored(tmp_path / "data.npz", example, moved(moved.example))
    subprocess.run([sys.executable, "-c", IN_KERAS, tmp_path / "net.keras", data], check=True)


@pytest.mark.parametrize("kind", in_keras.NETS)
def test_an_exported_program_reloads_without_modelport(kind: str, tmp_path: Path) -> None:
    import torch

    moved = mp.transfer(in_keras.net(kind), to="torch", example=in_keras.example(kind))
    example = in_keras.example(kind)
    flat = [torch.from_numpy(array) for array in leaves((example,))]
    arguments = ({key: torch.from_numpy(value) for key, value in example.items()},) if kind == "dict" else tuple(flat)
    torch.export.save(torch.export.export(moved.native, arguments), tmp_path / "net.pt2")
    data = _stored(tmp_path / "data.npz", example, moved(moved.example))
    subprocess.run([sys.executable, "-c", IN_TORCH, tmp_path / "net.pt2", data, kind], check=True)
