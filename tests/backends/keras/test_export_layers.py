"""Every kind of Keras layer, alone, through the portable graph."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from modelport.core.errors import UnsupportedOpError
from tests.backends.keras.parity import error, operators
from tests.nets.keras_layers import CASES, REFUSED, inputs_of, missing, model_of

LOOSE = {"Resizing bicubic": 1e-3, "GroupNormalization far from zero": 2e-3}
"""TensorFlow reads the weights of bicubic interpolation from a table of 1024 steps; ONNX Runtime computes them. ONNX
Runtime and torch find the variance of a group as the difference of two sums of squares, which cancels where the mean is
a hundred times the deviation; the test below shows that it is not the graph that is off."""


def test_no_layer_of_keras_is_missing_from_the_table() -> None:
    assert missing() == set()


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_a_layer_computes_the_same_in_onnx_runtime(case: str) -> None:
    length = 72 if CASES[case].shape[-1:] == (1,) else 9
    assert error(model_of(case), inputs_of(case, 2, length)["x"]) <= LOOSE.get(case, 1e-5)


@pytest.mark.parametrize("case", REFUSED)
def test_what_onnx_cannot_compute_is_refused_with_the_layer_and_a_way_out(case: str) -> None:
    model = model_of(case)
    with pytest.raises(UnsupportedOpError, match=REFUSED[case]) as caught:
        operators(model)
    assert model.layers[1].name in str(caught.value) or model.layers[-1].name in str(caught.value)


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


def test_group_normalization_far_from_zero_is_right_where_the_arithmetic_is() -> None:
    import numpy as np
    import torch

    model, x = model_of("GroupNormalization far from zero"), inputs_of("GroupNormalization far from zero", 3, 0)["x"]
    gamma, beta = (np.asarray(v) for v in model.weights)
    data = torch.from_numpy(x + np.float32(100.0)).permute(0, 3, 1, 2)
    weights = [torch.from_numpy(np.array(w)) for w in (gamma, beta)]
    single = torch.nn.functional.group_norm(data, 2, *weights, 1e-3)
    truth = torch.nn.functional.group_norm(data.double(), 2, *(w.double() for w in weights), 1e-3)
    keras_error = np.abs(np.asarray(model(x)) - truth.permute(0, 2, 3, 1).numpy()).max()
    assert keras_error < 1e-4 < (single - truth).abs().max()
