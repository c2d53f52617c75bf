"""`.onnx` files: written in one piece, or beside their weights where these are too many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import modelport as mp
from modelport.backends.onnx import files
from tests.nets import in_onnx


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_INSIDE_LIMIT", 4096)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.onnx")
    loaded = mp.load(tmp_path / "net.onnx")
    assert mp.compare(in_onnx.net(), loaded, in_onnx.example(), tolerance=0).ok
    assert list(loaded.parameters()) == ["fc.weight", "fc.bias", "spare.weight"]
    onnx.checker.check_model(str(tmp_path / "net.onnx"))


def test_a_mapped_model_is_written_with_its_weights_inside(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.mport")
    mp.save(tmp_path / "net.mport", tmp_path / "net.onnx")
    program = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in program.graph.initializer)
    assert not any(entry.key == "modelport.files" for entry in program.metadata_props)
    assert mp.compare(in_onnx.net(), tmp_path / "net.onnx", in_onnx.example(), tolerance=0).ok


@pytest.mark.usefixtures("beside")
def test_weights_too_large_for_protobuf_are_beside_the_program(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.onnx")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[1].startswith("net.onnx.")
    assert mp.compare(in_onnx.net(), tmp_path / "net.onnx", in_onnx.example(), tolerance=0).ok
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": in_onnx.example()})[0].shape == (2, 8, 8)


@pytest.mark.usefixtures("beside")
def test_a_model_can_be_written_over_the_file_that_its_weights_are_mapped_from(tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.onnx")
    loaded = mp.load(tmp_path / "net.onnx")
    expected = loaded(in_onnx.example())
    mp.save(in_onnx.net(scale=2.0), tmp_path / "net.onnx")
    np.testing.assert_array_equal(loaded(in_onnx.example()), expected)
    mp.save(loaded, tmp_path / "net.onnx")
    np.testing.assert_array_equal(mp.load(tmp_path / "net.onnx")(in_onnx.example()), expected)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_signature_of_ones_own_is_written(tmp_path: Path) -> None:
    handle = mp.transfer(in_onnx.net(), device="cpu", check=False)
    renamed = handle.signature.with_dims({"x": ("rows", 32)})
    mp.save(in_onnx.net(), tmp_path / "net.mport", signature=renamed)
    assert str(mp.load(tmp_path / "net.mport").signature.inputs[0]) == "x: float32(rows, 32)"
