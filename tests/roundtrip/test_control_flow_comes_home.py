"""Layers of Keras that torch has none for go to torch as loops, and come home with their weights and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import modelport as mp

pytestmark = pytest.mark.xdist_group("roundtrip")


def _cell(units: int) -> Any:
    import keras

    class Sine(keras.layers.Layer):
        state_size = units

        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(shape[-1], units), name="w")
            self.u = self.add_weight(shape=(units, units), name="u")

        def call(self, x: Any, states: Any, training: bool = False) -> Any:
            state = keras.ops.sin(keras.ops.matmul(x, self.w) + keras.ops.matmul(states[0], self.u))
            return state, [state]

    return Sine()


def _layers() -> dict[str, Callable[[], tuple[tuple[int | None, ...], list[Any]]]]:
    from keras import layers

    last: Callable[[], Any] = lambda: layers.Dense(2)  # noqa: E731
    return {
        "LSTM with its own activations": lambda: (
            (None, 3),
            [layers.LSTM(4, activation="softsign", recurrent_activation="hard_sigmoid"), last()],
        ),
        "LSTM masked in the middle": lambda: (
            (None, 3),
            [layers.Masking(), layers.LSTM(4, activation="softsign"), last()],
        ),
        "a cell of the user's": lambda: ((None, 3), [layers.RNN(_cell(4), return_sequences=True), last()]),
        "stacked cells": lambda: ((None, 3), [layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]), last()]),
        "ConvLSTM2D": lambda: ((None, 4, 4, 2), [layers.ConvLSTM2D(3, 3, return_sequences=True)]),
    }


@pytest.mark.parametrize("name", list(_layers()))
def test_a_loop_of_keras_goes_to_torch_and_home(name: str) -> None:
    goes_and_comes_home(*_layers()[name]())


def goes_and_comes_home(shape: tuple[int | None, ...], inside: list[Any]) -> None:
    """Fail where a net of some layers, which torch has as a loop, is another after it was there."""
    import keras

    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input(shape), *inside])
    x = np.random.default_rng(0).standard_normal((2, *(size or 4 for size in shape))).astype("float32")
    x[0, 2], x[1, 3:] = 0, 0
    there = mp.transfer(net, to="torch", example=x)
    assert "Scan" in {note.message.split()[0] for note in there.report.notes if note.kind == "custom"}
    home = mp.transfer(there, to="keras")
    report = mp.compare(net, home, x, tolerance=1e-4, gradient_tolerance=1e-4)
    assert report.ok, report
    assert {row.kind for row in report.rows} >= {"output", "gradient"}
    for key, value in there.parameters().items():
        np.testing.assert_array_equal(home.parameters()[key], value)
    assert len(home.native.trainable_weights) == len(list(there.native.parameters()))
    longer = np.random.default_rng(1).standard_normal((3, 7, *x.shape[2:])).astype("float32")
    np.testing.assert_allclose(np.asarray(home(longer)), np.asarray(net(longer)), rtol=1e-4, atol=1e-5)


def test_a_vocabulary_goes_to_torch_and_home() -> None:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    words = keras.Input((4,), dtype="string", name="words")
    ids = layers.StringLookup(vocabulary=["a", "b", "c"])(words)
    net = keras.Model(words, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(ids))))
    x = np.array([["a", "x", "b", "c"], ["c", "c", "a", "q"]], object)
    there = mp.transfer(net, to="torch", example=x)
    home = mp.transfer(there, to="keras")
    assert mp.compare(net, home, x, tolerance=1e-5).ok
    assert set(home.parameters()) == set(there.parameters())
    assert home(np.array([["b"] * 4], object)).shape == (1, 2)


def test_an_open_loop_of_onnx_goes_to_torch_and_home() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[batch, 3] x, int64 trips) => (float[batch, 3] y, float[n, batch, 3] all)
      <float[3, 3] w = {0.5, -0.2, 0.1, 0.3, 0.4, -0.6, 0.2, 0.1, 0.7}> {
      y, all = Loop (trips, , x) <body = l (int64 i, bool c, float[batch, 3] s)
          => (bool c_out, float[batch, 3] more, float[batch, 3] item) {
        product = MatMul (s, w)
        more = Tanh (product)
        item = Neg (more)
        size = ReduceMax <keepdims = 0> (more)
        limit = Constant <value_float: float = 0.05> ()
        c_out = Greater (size, limit)
      }>
    }"""
    x = np.random.default_rng(0).standard_normal((2, 3)).astype("float32")
    source = mp.transfer(ir.to_proto(ir.from_onnx_text(text)), to="onnx", example=(x, np.array(3)))
    there = mp.transfer(source, to="torch")
    for home in (mp.transfer(there, to="onnx"), mp.transfer(mp.transfer(there, to="onnx"), to="torch")):
        assert mp.compare(source, home, tolerance=1e-5).ok
        np.testing.assert_array_equal(home.parameters()["w"], source.parameters()["w"])
    assert [(row.op_type, row.support) for row in mp.check(source, to="torch").rows if row.op_type == "Loop"] == [
        ("Loop", "custom")
    ]
