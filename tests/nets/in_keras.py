"""The eight kinds of net, written as a Keras user writes them: `net(kind)` and `example(kind, batch)`."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops


def _mlp() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12,), name="x"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(16, activation="tanh"),
            layers.Dense(4),
        ]
    )


def _cnn() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same")(image)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    return keras.Model(image, layers.Dense(10)(layers.Dropout(0.4)(x)))


def _residual() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="stem")(image)
    for index in range(2):
        y = layers.Conv2D(16, 3, padding="same", groups=4, use_bias=False, name=f"grouped{index}")(x)
        y = layers.ReLU()(layers.BatchNormalization(name=f"norm{index}a")(y))
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{index}")(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization(name=f"norm{index}b")(y))
        x = layers.ReLU()(layers.add([x, layers.Conv2D(16, 1, name=f"pointwise{index}")(y)]))
    return keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D()(x)))


def _lstm() -> keras.Model:
    sequence = keras.Input((7, 6), name="sequence")
    x = layers.LSTM(10, return_sequences=True)(sequence)
    return keras.Model(sequence, layers.Dense(3)(layers.LSTM(10)(x)))


def _gru() -> keras.Model:
    sequence = keras.Input((7, 6), name="sequence")
    x = layers.Bidirectional(layers.GRU(8, return_sequences=True))(sequence)
    return keras.Model(sequence, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def _encoder() -> keras.Model:
    tokens = keras.Input((7, 6), name="tokens")
    mask = keras.Input((7,), dtype="bool", name="mask")
    x = layers.Dense(16, name="embed")(tokens)
    for index in range(2):
        y = layers.LayerNormalization(epsilon=1e-5, name=f"norm{index}a")(x)
        attended = layers.MultiHeadAttention(4, 4, dropout=0.1, name=f"attention{index}")(
            y, y, attention_mask=ops.expand_dims(mask, 1)
        )
        x = layers.add([x, layers.Dropout(0.1)(attended)])
        y = layers.LayerNormalization(epsilon=1e-5, name=f"norm{index}b")(x)
        y = layers.Dense(32, activation=keras.activations.gelu, name=f"up{index}")(y)
        x = layers.add([x, layers.Dense(16, name=f"down{index}")(y)])
    return keras.Model([tokens, mask], layers.Dense(3, name="head")(x[:, 0]))


def _embedding() -> keras.Model:
    ids = keras.Input((9,), dtype="int32", name="ids")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 12)(ids))
    return keras.Model(ids, layers.Dense(4)(layers.Dense(16, activation="gelu")(x)))


def _dict() -> keras.Model:
    numeric = keras.Input((5,), name="numeric")
    image = keras.Input((8, 8, 1), name="image")
    a = layers.Dense(8, activation="relu", name="numeric_dense")(numeric)
    b = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu", name="image_conv")(image))
    joined = layers.concatenate([a, b])
    outputs = {"regression": layers.Dense(1, name="to_regression")(joined), "logits": layers.Dense(3)(joined)}
    return keras.Model({"numeric": numeric, "image": image}, outputs)


NETS = {
    "mlp": _mlp,
    "cnn": _cnn,
    "residual": _residual,
    "lstm": _lstm,
    "gru": _gru,
    "encoder": _encoder,
    "embedding": _embedding,
    "dict": _dict,
}


def net(kind: str) -> keras.Model:
    """A net with seeded weights and BatchNorm statistics that are not the trivial ones."""
    keras.utils.set_random_seed(0)
    model = NETS[kind]()
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in (layer.gamma, layer.beta, layer.moving_mean):
                variable.assign(np.asarray(variable) + 0.2 * rng.standard_normal(variable.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model


def example(kind: str, batch: int = 2) -> object:
    """Inputs as the Keras call takes them."""
    rng = np.random.default_rng(batch)
    if kind == "encoder":
        tokens = rng.standard_normal((batch, 7, 6)).astype("float32")
        return [tokens, np.broadcast_to(np.arange(7) < 5, (batch, 7)).copy()]
    if kind == "dict":
        numeric = rng.standard_normal((batch, 5)).astype("float32")
        return {"numeric": numeric, "image": rng.standard_normal((batch, 8, 8, 1)).astype("float32")}
    if kind == "embedding":
        return rng.integers(0, 50, (batch, 9)).astype("int32")
    shape = {"mlp": (12,), "cnn": (16, 16, 3), "residual": (16, 16, 3), "lstm": (7, 6), "gru": (7, 6)}[kind]
    return rng.standard_normal((batch, *shape)).astype("float32")
