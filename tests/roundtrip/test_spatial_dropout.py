"""Dropout of whole slices keeps its meaning in training: what shares a draw is dropped together on every side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp

pytestmark = pytest.mark.xdist_group("roundtrip")

SHAPES = {1: (50, 4), 2: (5, 6, 40), 3: (3, 4, 5, 40)}
"""Images by the number of their dimensions, channels last."""


def _in_keras(layer: Any, shape: tuple[int | None, ...]) -> Any:
    import keras

    x = keras.Input(shape, name="x")
    return keras.Model(x, layer(x))


def _trained(model: mp.Model, x: np.ndarray) -> np.ndarray:
    """What a native model makes of its input in training mode."""
    import torch

    if model.backend == "keras":
        return np.asarray(model.native(x, training=True))
    return model.native.train()(torch.from_numpy(x)).numpy()


def _assert_drops(model: mp.Model, shape: tuple[int, ...], axes: tuple[int, ...], rate: float) -> None:
    """Everything along the axes is dropped together, and what stays is scaled; nothing is in inference."""
    x = np.ones((64, *shape), np.float32)
    np.testing.assert_array_equal(model(x), x)
    found = _trained(model, x)
    first = np.take(found, [0], axes[0])
    for axis in axes[1:]:
        first = np.take(first, [0], axis)
    np.testing.assert_array_equal(found, np.broadcast_to(first, x.shape))
    np.testing.assert_allclose(np.unique(first), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs((first == 0).mean() - rate) < 0.1
    for axis in set(range(x.ndim)) - set(axes):
        assert first.std(axis).max() > 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_spatial_dropout_of_keras_goes_to_torch_and_home(rank: int) -> None:
    import torch
    from keras import layers

    name = f"SpatialDropout{rank}D"
    shape, axes = SHAPES[rank], tuple(range(1, rank + 1))
    there = mp.transfer(_in_keras(getattr(layers, name)(0.25, name="drop"), shape), to="torch")
    assert {type(module) for module in there.native.children()} == {getattr(torch.nn, f"Dropout{rank}d")}
    _assert_drops(there, shape, axes, 0.25)
    home = mp.transfer(there, to="keras")
    assert [type(layer).__name__ for layer in home.native.layers] == ["InputLayer", name]
    assert home.native.layers[1].name == "drop"
    _assert_drops(home, shape, axes, 0.25)
    assert [note for moved in (there, home) for note in moved.report.notes] == []


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dropout_of_channels_of_torch_goes_to_keras_and_home(rank: int) -> None:
    import torch

    kind = getattr(torch.nn, f"Dropout{rank}d")
    shape = SHAPES[rank][::-1]
    net = torch.nn.Sequential(kind(0.4)).eval()
    there = mp.transfer(net, to="keras", example=torch.ones(2, *shape))
    _assert_drops(there, shape, tuple(range(2, rank + 2)), 0.4)
    home = mp.transfer(there, to="torch")
    assert [type(module) for module in home.native.children()] == [kind]
    _assert_drops(home, shape, tuple(range(2, rank + 2)), 0.4)


@pytest.mark.parametrize(
    ("noise", "axes"), [((None, 1, 40), (1,)), ((None, 1, 1), (1, 2)), ((1, None, 40), (0,)), ((None, None, 1), (2,))]
)
def test_a_noise_shape_of_keras_goes_to_torch_and_home(noise: tuple[int | None, ...], axes: tuple[int, ...]) -> None:
    from keras import layers

    net = _in_keras(layers.Dropout(0.25, noise_shape=noise), (None, 40))
    there = mp.transfer(net, to="torch")
    home = mp.transfer(there, to="keras")
    for model in (there, home):
        _assert_drops(model, (30, 40), axes, 0.25)


def test_between_convolutions_it_takes_no_transposes() -> None:
    import keras
    import torch
    from keras import layers

    steps = [layers.Conv2D(4, 3), layers.SpatialDropout2D(0.5), layers.Conv2D(2, 3)]
    there = mp.transfer(keras.Sequential([keras.Input((8, 8, 3)), *steps]), to="torch")
    assert torch.nn.Dropout2d in {type(module) for module in there.native.modules()}
    assert sum("permute" in str(node.target) for node in there.native.graph.nodes) == 2
    home = mp.transfer(there, to="keras")
    kinds = [type(layer).__name__ for layer in home.native.layers]
    assert kinds == ["InputLayer", "Conv2D", "SpatialDropout2D", "Conv2D"]


def test_it_is_standard_onnx(tmp_path: Any) -> None:
    from keras import layers

    net = _in_keras(layers.SpatialDropout1D(0.25), (None, 4))
    mp.save(net, tmp_path / "net.onnx")
    loaded = mp.load(tmp_path / "net.onnx")
    assert {node.domain for node in loaded.native.graph.node} == {""}
    again = mp.transfer(loaded, to="keras")
    assert [type(layer).__name__ for layer in again.native.layers] == ["InputLayer", "SpatialDropout1D"]
