"""What modelport says when it is asked for something that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import modelport as mp
from modelport.core import registry
from modelport.core.signature import Signature, TensorSpec


@pytest.fixture
def signature() -> Signature:
    x, mask = TensorSpec("x", "float32", ("batch", 3)), TensorSpec("mask", "bool", ("batch",))
    return Signature((x, mask), (TensorSpec("y", "float32", ("batch", 2)),))


def _inputs(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.zeros((4, 3), "float32"), "mask": np.ones(4, bool)} | changed


def test_a_wrong_input_name_says_which_is_missing_and_which_unknown(signature: Signature) -> None:
    with pytest.raises(mp.SignatureError, match=r"missing \['mask'\], unknown \['masq'\]"):
        signature.bind({"x": _inputs()["x"], "masq": _inputs()["mask"]})


def test_a_wrong_rank_is_refused(signature: Signature) -> None:
    with pytest.raises(mp.SignatureError, match="'x' has rank 3"):
        signature.bind(_inputs(x=np.zeros((4, 3, 1), "float32")))


def test_a_wrong_dtype_says_how_to_change_it(signature: Signature) -> None:
    with pytest.raises(mp.SignatureError, match=r"x\.astype\('float32'\)"):
        signature.bind(_inputs(x=np.zeros((4, 3))))


def test_a_wrong_fixed_size_is_refused(signature: Signature) -> None:
    with pytest.raises(mp.SignatureError, match="size 5 on axis 1"):
        signature.bind(_inputs(x=np.zeros((4, 5), "float32")))


def test_one_dimension_with_two_sizes_is_refused(signature: Signature) -> None:
    with pytest.raises(mp.SignatureError, match="'batch' is 4 in input 'x' but 6"):
        signature.bind(_inputs(mask=np.ones(6, bool)))


def test_too_few_inputs_are_refused(signature: Signature) -> None:
    with pytest.raises(mp.SignatureError, match="1 inputs given"):
        signature.bind((np.zeros((4, 3), "float32"),))


def test_a_model_that_no_backend_owns_names_its_type() -> None:
    with pytest.raises(mp.UnsupportedModelError, match=r"builtins\.dict"):
        mp.transfer({}, to="onnx")


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(mp.MissingBackendError, match="'keras', 'onnx', 'torch'"):
        registry.backend("caffe")


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_a_missing_framework_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda module: None)
    with pytest.raises(mp.MissingBackendError, match=rf'pip install "modelport\[{name}\]"'):
        registry.backend(name)


def test_a_framework_whose_import_is_forbidden_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(module: str) -> None:
        raise ImportError(f"{module} is not installed here")

    monkeypatch.setattr(registry, "find_spec", forbidden)
    with pytest.raises(mp.MissingBackendError, match="torch, which is not installed"):
        registry.backend("torch")


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "model.xyz").write_bytes(b"?")
    with pytest.raises(mp.FormatError, match=r"\.xyz.*\.onnx"):
        mp.load(tmp_path / "model.xyz")


def test_a_transfer_to_nowhere_says_where_it_could_go() -> None:
    with pytest.raises(mp.DataError, match='to="keras"'):
        mp.transfer(object())


def test_tensorflow_is_another_name_for_keras() -> None:
    assert registry.backend("tensorflow") is registry.backend("keras")
