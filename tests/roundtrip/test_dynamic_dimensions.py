"""A caller names the axes that may have any size, and what crossed takes every size there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp

pytestmark = pytest.mark.xdist_group("roundtrip")


def _tokens(batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 20, (batch, length))


def _tagger() -> Any:
    """A torch net (batch, sequence) -> (batch, 2 * sequence + 1, 4) that keeps its sequence."""
    import torch

    class Tagger(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(20, 4)

        def forward(self, ids: Any, mask: Any = None) -> Any:
            x = self.embed(ids)
            if mask is not None:
                x = x * mask[..., None]
            return torch.cat([x, x, x[:, :1]], 1)

    torch.manual_seed(0)
    return Tagger().eval()


def test_a_named_axis_is_dynamic_in_the_result() -> None:
    import torch

    net = _tagger()
    moved = mp.transfer(net, to="keras", example=(_tokens(2, 6),), dynamic={1: "sequence"})
    assert moved.signature.inputs[0].shape == ("batch", "sequence")
    assert moved.signature.outputs[0].shape == ("batch", "2*sequence + 1", 4)
    with torch.inference_mode():
        expected = net(torch.from_numpy(_tokens(3, 9))).numpy()
    np.testing.assert_allclose(moved(_tokens(3, 9)), expected, rtol=0, atol=1e-6)


def test_one_name_is_one_size_in_every_input() -> None:
    example = {"ids": _tokens(2, 6), "mask": np.ones((2, 6), "float32")}
    moved = mp.transfer(_tagger(), to="onnx", example=example, dynamic={"ids": {1: "n"}, "mask": {1: "n"}})
    with pytest.raises(mp.SignatureError, match="'n' is 9 in input 'ids' but 8"):
        moved({"ids": _tokens(2, 9), "mask": np.ones((2, 8), "float32")})


def test_parity_is_proved_at_another_length_too() -> None:
    moved = mp.transfer(_tagger(), to="onnx", example=(_tokens(2, 6),), dynamic={1: "sequence"})
    assert {row.batch for row in moved.report.parity.rows} == {2, 3}
    assert moved({"ids": _tokens(3, 5)}).shape == (3, 11, 4)


def test_a_bundle_keeps_the_named_axes(tmp_path: Path) -> None:
    mp.save(_tagger(), tmp_path / "tagger.mport", example=(_tokens(2, 6),), dynamic={1: "sequence"})
    loaded = mp.load(tmp_path / "tagger.mport", backend="onnx")
    assert loaded.signature.inputs[0].shape == ("batch", "sequence")
    assert loaded(_tokens(1, 11)).shape == (1, 23, 4)


def test_a_subclassed_keras_model_has_named_axes_too() -> None:
    import keras

    class Tagger(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embed = keras.layers.Embedding(20, 4)

        def call(self, ids: Any) -> Any:
            return self.embed(ids)

    net = Tagger()
    moved = mp.transfer(net, to="torch", example=_tokens(2, 6), dynamic={1: "sequence"})
    assert moved.signature.outputs[0].shape == ("batch", "sequence", 4)
    np.testing.assert_allclose(moved(_tokens(3, 9)), np.asarray(net(_tokens(3, 9))), rtol=0, atol=1e-6)
    assert mp.check(net, to="torch", example=_tokens(2, 6), dynamic={1: "sequence"}).ok


@pytest.mark.parametrize(
    ("dynamic", "told"),
    [
        ({2: "depth"}, "has an axis 2"),
        ({"tokens": {1: "n"}}, "the inputs are"),
        ({"ids": {4: "n"}}, "names axis 4"),
        ({"ids": "n"}, "it maps an axis to a name"),
    ],
)
def test_a_name_for_what_is_not_there_is_refused(dynamic: Any, told: str) -> None:
    with pytest.raises(mp.SignatureError, match=told):
        mp.transfer(_tagger(), to="onnx", example=(_tokens(2, 6),), dynamic=dynamic)


def test_a_model_that_has_one_size_only_is_refused_before_it_is_exported() -> None:
    import torch

    class Fixed(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.reshape(-1, 24)

    with pytest.raises(mp.UnsupportedModelError, match="calls 'n' a dimension of any size"):
        mp.transfer(Fixed(), to="onnx", example=(torch.zeros(5, 24),), dynamic={1: "n"})
