"""A Keras net, its torch form and what comes home have the same gradients and the same ten steps of SGD."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core import registry
from tests.nets import in_keras

pytestmark = [pytest.mark.zoo, pytest.mark.xdist_group("keras training")]

RATE = 0.01


def _ids(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ids, ends = rng.integers(1, 20, (8, 7)), rng.integers(1, 8, (8, 1))
    return np.where(np.arange(7) < ends, ids, 0).astype("int32")


def _masked_lstm() -> Any:
    import keras
    from keras import layers

    ids = keras.Input((7,), dtype="int32", name="x")
    x = layers.Embedding(20, 8, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(ids, layers.Dense(10)(layers.GRU(8)(x)))


def _transformer() -> Any:
    import keras
    from keras import layers

    ids = keras.Input((7,), dtype="int32", name="x")
    x = layers.Embedding(20, 8, mask_zero=True)(ids)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, 4)(y, y, use_causal_mask=True)
        x = x + layers.Dense(8)(layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x)))
    return keras.Model(ids, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def _conv_lstm() -> Any:
    import keras
    from keras import layers

    x = keras.Input((4, 8, 8, 3), name="x")
    y = layers.ConvLSTM2D(4, 3, padding="same")(x)
    return keras.Model(x, layers.Dense(10)(layers.GlobalAveragePooling2D()(layers.GroupNormalization(2)(y))))


def _small(kind: str) -> tuple[Any, Any]:
    """One of the eight kinds of net, and what makes a batch for it."""
    return (lambda: in_keras.net(kind)), (lambda seed: np.roll(in_keras.example(kind, 16), seed, 0)[:8])


NETS: dict[str, tuple[Any, Any]] = {
    "both ways": _small("gru"),
    "residual": _small("residual"),
    "convolutions and dropout": _small("cnn"),
    "masked recurrence": (_masked_lstm, _ids),
    "transformer": (_transformer, _ids),
    "ConvLSTM": (_conv_lstm, lambda seed: np.random.default_rng(seed).standard_normal((8, 4, 8, 8, 3)).astype("f4")),
}


def _step(model: mp.Model, x: np.ndarray, labels: np.ndarray) -> float:
    """One step of SGD on the cross entropy, statistics and dropout as at inference; the loss before it."""
    backend: Any = registry.backend(model.backend)
    name, out = model.signature.inputs[0].name, model.signature.outputs[0].name
    logits = backend.run(model.native, {name: x}, model.signature)[out].astype("float64")
    shifted = logits - logits.max(-1, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    picked = np.eye(logits.shape[-1])[labels]
    loss = -np.log((chances * picked).sum(-1)).mean()
    slope = ((chances - picked) / len(labels)).astype("float32")
    gradients = backend.gradients(model.native, {name: x}, {out: slope}, model.signature)
    old = backend.parameters(model.native)
    backend.assign(model.native, {n: a - RATE * gradients[n] if n in gradients else a for n, a in old.items()})
    return float(loss)


@pytest.mark.parametrize("kind", NETS)
def test_a_keras_net_trains_alike_in_torch_and_at_home(kind: str) -> None:
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    make, draw = NETS[kind]
    source = mp.transfer(make(), device="cpu", example=draw(0), check=False)
    there = mp.transfer(source, to="torch", check=False)
    home = mp.transfer(there, to="keras", check=False)
    for moved in (there, home):
        report = mp.compare(source, moved, draw(1))
        assert report.ok, report
    labels = np.random.default_rng(0).integers(0, 3, (10, 8))
    curves = [[_step(m, draw(10 + i), labels[i]) for i in range(10)] for m in (source, there, home)]
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-3)
