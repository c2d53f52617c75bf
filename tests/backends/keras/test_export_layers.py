"""Every kind of Keras layer, alone, through the portable graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.backends.keras.parity import error, operators

IMAGE, SEQUENCE, VOLUME, ROW = (9, 8, 6), (7, 6), (6, 5, 4, 3), (6,)

CASES: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "Dense": (ROW, lambda: layers.Dense(5, activation="gelu")),
    "Dense on a sequence": (SEQUENCE, lambda: layers.Dense(5, use_bias=False)),
    "Dense with a function of its own": (ROW, lambda: layers.Dense(5, activation=lambda x: x * x + 1.0)),
    "EinsumDense": (SEQUENCE, lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="de")),
    "EinsumDense that contracts two": (IMAGE, lambda: layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e")),
    "EinsumDense with an ellipsis": (IMAGE, lambda: layers.EinsumDense("...x,xy->...y", 4, bias_axes="y")),
    "EinsumDense with a bias over a kept axis": (
        SEQUENCE,
        lambda: layers.EinsumDense("abc,cd->abd", (7, 4), bias_axes="bd"),
    ),
    "EinsumDense that is no Linear": (SEQUENCE, lambda: layers.EinsumDense("abc,bcd->abd", (7, 4))),
    "Conv1D": (SEQUENCE, lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "Conv1D with a stride": (SEQUENCE, lambda: layers.Conv1D(4, 3, strides=2, padding="same", activation="relu")),
    "Conv2D": (IMAGE, lambda: layers.Conv2D(4, (3, 2), strides=2, padding="same", activation="silu")),
    "Conv2D in groups": (IMAGE, lambda: layers.Conv2D(4, 3, groups=2, use_bias=False)),
    "Conv2D dilated": (IMAGE, lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same")),
    "Conv3D": (VOLUME, lambda: layers.Conv3D(4, 2, strides=2, padding="same")),
    "DepthwiseConv1D": (SEQUENCE, lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": (IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")),
    "DepthwiseConv2D dilated": (IMAGE, lambda: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")),
    "SeparableConv1D": (SEQUENCE, lambda: layers.SeparableConv1D(5, 3, padding="same", activation="elu")),
    "SeparableConv2D": (IMAGE, lambda: layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2)),
    "Conv1DTranspose": (SEQUENCE, lambda: layers.Conv1DTranspose(4, 3, strides=2, padding="same")),
    "Conv2DTranspose": (IMAGE, lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "Conv2DTranspose without padding": (IMAGE, lambda: layers.Conv2DTranspose(4, 2, strides=3)),
    "Conv2DTranspose with output_padding": (
        IMAGE,
        lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
    ),
    "Conv3DTranspose": (VOLUME, lambda: layers.Conv3DTranspose(2, 3, strides=2, padding="same")),
    "BatchNormalization": (IMAGE, lambda: layers.BatchNormalization()),
    "BatchNormalization of rows": (ROW, lambda: layers.BatchNormalization(scale=False)),
    "BatchNormalization over an inner axis": (IMAGE, lambda: layers.BatchNormalization(axis=2)),
    "LayerNormalization": (SEQUENCE, lambda: layers.LayerNormalization()),
    "LayerNormalization of two axes": (IMAGE, lambda: layers.LayerNormalization(axis=(-2, -1), center=False)),
    "LayerNormalization of an inner axis": (IMAGE, lambda: layers.LayerNormalization(axis=1)),
    "GroupNormalization": (IMAGE, lambda: layers.GroupNormalization(3)),
    "GroupNormalization of every channel": (IMAGE, lambda: layers.GroupNormalization(-1, scale=False)),
    "RMSNormalization": (SEQUENCE, lambda: layers.RMSNormalization()),
    "UnitNormalization": (SEQUENCE, lambda: layers.UnitNormalization()),
    "SpectralNormalization": (ROW, lambda: layers.SpectralNormalization(layers.Dense(3))),
    "LSTM": (SEQUENCE, lambda: layers.LSTM(5, return_sequences=True)),
    "LSTM backwards": (SEQUENCE, lambda: layers.LSTM(5, return_sequences=True, go_backwards=True)),
    "LSTM with states": (SEQUENCE, lambda: layers.LSTM(5, return_state=True, use_bias=False)),
    "LSTM unrolled with functions of its own": (
        SEQUENCE,
        lambda: layers.LSTM(5, activation="relu", recurrent_activation="hard_sigmoid", unroll=True),
    ),
    "GRU": (SEQUENCE, lambda: layers.GRU(5, return_sequences=True, return_state=True)),
    "GRU that resets before": (SEQUENCE, lambda: layers.GRU(5, reset_after=False)),
    "GRU unrolled with a function of its own": (SEQUENCE, lambda: layers.GRU(5, activation="relu", unroll=True)),
    "SimpleRNN": (SEQUENCE, lambda: layers.SimpleRNN(5, return_sequences=True)),
    "SimpleRNN with relu": (SEQUENCE, lambda: layers.SimpleRNN(5, activation="relu", go_backwards=True)),
    "Bidirectional LSTM": (SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(5))),
    "Bidirectional GRU": (SEQUENCE, lambda: layers.Bidirectional(layers.GRU(5, return_sequences=True), "ave")),
    "Bidirectional with states": (SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(5, return_state=True))),
    "Bidirectional apart": (SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(5), merge_mode=None)),
    "TimeDistributed": (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(3))),
    "MultiHeadAttention": (SEQUENCE, lambda: Call(layers.MultiHeadAttention(2, 4), lambda f, x: f(x, x))),
    "causal MultiHeadAttention": (
        SEQUENCE,
        lambda: Call(layers.MultiHeadAttention(2, 4), lambda f, x: f(x, x, use_causal_mask=True)),
    ),
    "GroupQueryAttention": (SEQUENCE, lambda: Call(layers.GroupQueryAttention(4, 4, 2), lambda f, x: f(x, x))),
    "Attention": (SEQUENCE, lambda: Call(layers.Attention(), lambda f, x: f([x, x]))),
    "AdditiveAttention": (SEQUENCE, lambda: Call(layers.AdditiveAttention(), lambda f, x: f([x, x]))),
    "PReLU": (ROW, lambda: layers.PReLU("uniform")),
    "PReLU per channel": (IMAGE, lambda: layers.PReLU("uniform", shared_axes=[1, 2])),
    "PReLU per column": (IMAGE, lambda: layers.PReLU("uniform", shared_axes=[1, 3])),
    "Softmax": (SEQUENCE, lambda: layers.Softmax(axis=1)),
    "LeakyReLU": (ROW, lambda: layers.LeakyReLU(0.2)),
    "ReLU with everything": (ROW, lambda: layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)),
    "ELU": (ROW, lambda: layers.ELU(0.7)),
    "MaxPooling1D": (SEQUENCE, lambda: layers.MaxPooling1D(2, padding="same")),
    "MaxPooling2D": (IMAGE, lambda: layers.MaxPooling2D(3, strides=2, padding="same")),
    "MaxPooling3D": (VOLUME, lambda: layers.MaxPooling3D(2)),
    "AveragePooling2D": (IMAGE, lambda: layers.AveragePooling2D(2, padding="same")),
    "AveragePooling3D": (VOLUME, lambda: layers.AveragePooling3D(2)),
    "AdaptiveAveragePooling2D": (IMAGE, lambda: layers.AdaptiveAveragePooling2D((3, 4))),
    "GlobalMaxPooling2D": (IMAGE, lambda: layers.GlobalMaxPooling2D(keepdims=True)),
    "UpSampling1D": (SEQUENCE, lambda: layers.UpSampling1D(2)),
    "UpSampling2D": (IMAGE, lambda: layers.UpSampling2D((2, 3))),
    "UpSampling2D bilinear": (IMAGE, lambda: layers.UpSampling2D(2, interpolation="bilinear")),
    "UpSampling3D": (VOLUME, lambda: layers.UpSampling3D(2)),
    "Resizing": (IMAGE, lambda: layers.Resizing(5, 11)),
    "Resizing bicubic": (IMAGE, lambda: layers.Resizing(13, 12, interpolation="bicubic")),
    "Resizing nearest": (IMAGE, lambda: layers.Resizing(5, 11, interpolation="nearest")),
    "ZeroPadding2D": (IMAGE, lambda: layers.ZeroPadding2D(((1, 2), (0, 3)))),
    "Cropping2D": (IMAGE, lambda: layers.Cropping2D(((1, 2), (0, 3)))),
    "Flatten": (IMAGE, lambda: layers.Flatten()),
    "Reshape": (IMAGE, lambda: layers.Reshape((-1, 12))),
    "Permute": (IMAGE, lambda: layers.Permute((3, 1, 2))),
    "RepeatVector": (ROW, lambda: layers.RepeatVector(3)),
    "Rescaling": (IMAGE, lambda: layers.Rescaling(1 / 255, 0.1)),
    "Normalization": (ROW, lambda: layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7.0))),
    "Dropout": (ROW, lambda: layers.Dropout(0.3)),
    "SpatialDropout2D": (IMAGE, lambda: layers.SpatialDropout2D(0.3)),
    "AlphaDropout": (ROW, lambda: layers.AlphaDropout(0.3)),
    "GaussianNoise": (ROW, lambda: layers.GaussianNoise(0.3)),
    "ActivityRegularization": (ROW, lambda: layers.ActivityRegularization(0.1)),
    "Lambda": (ROW, lambda: layers.Lambda(lambda x: keras.ops.sin(x))),
    "RNN of stacked cells": (
        SEQUENCE,
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True),
    ),
    "ConvLSTM1D": ((4, 6, 3), lambda: layers.ConvLSTM1D(2, 3, padding="same")),
    "stateful LSTM cell alone": (ROW, lambda: Call(layers.GRUCell(6), lambda f, x: f(x, [x])[0])),
    "CenterCrop": (IMAGE, lambda: layers.CenterCrop(5, 6)),
    "Resizing with antialias": (IMAGE, lambda: layers.Resizing(4, 4, antialias=True)),
    "Discretization": (ROW, lambda: layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.7])),
    "RandomFlip": (IMAGE, lambda: layers.RandomFlip()),
    "RandomRotation": (IMAGE, lambda: layers.RandomRotation(0.2)),
    "RandomContrast": (IMAGE, lambda: layers.RandomContrast(0.2)),
    "Masking": (SEQUENCE, lambda: layers.Masking(0.0)),
    "Minimum": (ROW, lambda: Call(layers.Minimum(), lambda f, x: f([x, x * 2.0]))),
    "erfinv": (ROW, lambda: layers.Lambda(lambda x: keras.ops.erfinv(keras.ops.tanh(x) * 0.9))),
    "Dot": (SEQUENCE, lambda: Call(layers.Dot(axes=2, normalize=True), lambda f, x: f([x, x * 2.0]))),
}


class Call:
    """A layer that is not called on one tensor alone."""

    def __init__(self, layer: Any, call: Callable[[Any, Any], Any]) -> None:
        self.layer, self.call = layer, call

    def __call__(self, x: Any) -> Any:
        return self.call(self.layer, x)


def model_of(case: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    shape, make = CASES[case]
    x = keras.Input(shape, name="x")
    model = keras.Model(x, make()(x))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype:
            variable.assign(rng.uniform(0.2, 1.0, variable.shape) * (1 if "variance" in variable.path else 0.7))
    return model


LOOSE = {"Resizing bicubic": 1e-3}
"""TensorFlow reads the weights of bicubic interpolation from a table of 1024 steps; ONNX Runtime computes them."""


@pytest.mark.parametrize("case", CASES)
def test_a_layer_computes_the_same_in_onnx_runtime(case: str) -> None:
    assert error(model_of(case)) <= LOOSE.get(case, 1e-5)


ACTIVATIONS = """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid log_softmax
    mish relu relu6 selu sigmoid silu softmax soft_shrink softplus softsign sparse_plus squareplus tanh tanh_shrink
"""


@pytest.mark.parametrize("name", ACTIVATIONS.split())
def test_an_activation_computes_the_same_in_onnx_runtime(name: str) -> None:
    x = keras.Input((6,), name="x")
    assert error(keras.Model(x, layers.Activation(getattr(keras.activations, name))(x))) <= 1e-5


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_one_operator(approximate: bool) -> None:
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Activation(lambda t: keras.activations.gelu(t, approximate=approximate))(x))
    assert operators(model) == {"Gelu": 1}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("Conv2D in groups", {"Transpose": 2, "Conv": 1}),
        ("BatchNormalization", {"Transpose": 2, "BatchNormalization": 1}),
        ("LayerNormalization", {"LayerNormalization": 1}),
        ("GroupNormalization", {"Transpose": 2, "GroupNormalization": 1}),
        ("Dropout", {"Dropout": 1}),
        ("PReLU per channel", {"PRelu": 1}),
        ("UpSampling2D", {"Transpose": 2, "Resize": 1}),
        ("Dense", {"Gemm": 1, "Gelu": 1}),
    ],
)
def test_a_layer_is_one_operator_of_onnx(case: str, expected: dict[str, int]) -> None:
    assert operators(model_of(case)) == expected


def test_channels_first_needs_no_transposes() -> None:
    x = keras.Input((3, 8, 8), name="x")
    y = layers.BatchNormalization(axis=1)(x)
    assert operators(keras.Model(x, y)) == {"BatchNormalization": 1}
