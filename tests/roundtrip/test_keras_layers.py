"""Keras layers that torch has no module for cross all the same, with gradients and names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import modelport as mp

pytestmark = pytest.mark.xdist_group("roundtrip")


def _layers() -> dict[str, Callable[[], tuple[tuple[int, ...], Any]]]:
    from keras import layers

    return {
        "GRU reset before": lambda: ((5, 3), layers.GRU(4, reset_after=False, return_sequences=True)),
        "GRU reset before, both ways": lambda: ((5, 3), layers.Bidirectional(layers.GRU(4, reset_after=False))),
        "GRU reset before, backwards": lambda: (
            (5, 3),
            layers.GRU(4, reset_after=False, go_backwards=True, use_bias=False),
        ),
        "separable": lambda: ((8, 8, 3), layers.SeparableConv2D(4, 3, padding="same")),
        "transposed": lambda: ((6, 6, 3), layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
        "causal": lambda: ((9, 3), layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
        "time distributed": lambda: ((4, 6, 6, 2), layers.TimeDistributed(layers.Conv2D(3, 3))),
    }


@pytest.mark.parametrize("name", list(_layers()))
def test_a_keras_layer_goes_to_torch_and_home(name: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    shape, layer = _layers()[name]()
    net = keras.Sequential([keras.Input(shape), layer, keras.layers.Flatten(), keras.layers.Dense(2)])
    there = mp.transfer(net, to="torch", tolerance=1e-5)
    home = mp.transfer(there, to="keras", tolerance=1e-5)
    for moved in (there, home):
        report = mp.compare(net, moved, tolerance=1e-5, gradient_tolerance=1e-4)
        assert report.ok, report
    assert set(home.parameters()) == set(there.parameters()) == set(mp.transfer(net, to="onnx").parameters())


def test_a_query_that_sees_no_key_has_the_gradient_that_keras_gives_it() -> None:
    import keras
    import numpy as np
    from keras import layers

    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32", name="ids")
    x = layers.Embedding(9, 8, mask_zero=True)(ids)
    # A sum keeps no mask: what the padding attends to, each key alike, counts.
    net = keras.Model(ids, layers.Dense(3)(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)))
    example = np.asarray([[3, 1, 0, 0, 0, 0], [1, 2, 8, 4, 5, 0]], "int32")
    there = mp.transfer(net, to="torch", example=example)
    for moved in (there, mp.transfer(there, to="keras")):
        report = mp.compare(net, moved, example)
        assert report.ok, report


def test_a_pooling_pads_to_whatever_length_it_meets() -> None:
    import keras
    import numpy as np
    from keras import layers

    x = keras.Input((None, 4), name="x")
    pools = [layers.AveragePooling1D(3, padding="same"), layers.MaxPooling1D(4, strides=3, padding="same")]
    net = keras.Model(x, layers.Concatenate()([pool(x) for pool in pools]))
    there = mp.transfer(net, to="torch", example=np.ones((2, 7, 4), "float32"))
    for length in (5, 6, 7, 8):
        data = np.random.default_rng(length).standard_normal((3, length, 4)).astype("float32")
        np.testing.assert_allclose(there(data), np.asarray(net(data)), rtol=1e-5, atol=1e-6)
