"""Portable names and layouts of Keras weights, out of a model and into it, and their gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from modelport.backends.keras import BACKEND
from modelport.backends.keras.layers import weights
from modelport.core.errors import DataError


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in BACKEND.parameters(model).items()}


def model_of(shape: tuple[int, ...], *stack: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *stack])


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((3,), layers.Dense(5, name="a"), {"a.weight": (5, 3), "a.bias": (5,)}),
        ((8, 8, 6), layers.Conv2D(4, (3, 2), groups=2, name="a"), {"a.weight": (4, 3, 3, 2), "a.bias": (4,)}),
        ((8, 6), layers.Conv1D(4, 3, name="a", use_bias=False), {"a.weight": (4, 6, 3)}),
        (
            (8, 8, 6),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="a"),
            {"a.weight": (12, 1, 3, 3), "a.bias": (12,)},
        ),
        ((8, 8, 6), layers.Conv2DTranspose(4, 3, name="a"), {"a.weight": (6, 4, 3, 3), "a.bias": (4,)}),
        (
            (8, 6),
            layers.SeparableConv1D(4, 3, name="a"),
            {"a.depthwise.weight": (6, 1, 3), "a.pointwise.weight": (4, 6, 1), "a.pointwise.bias": (4,)},
        ),
        (
            (8, 6),
            layers.BatchNormalization(name="a"),
            {"a.weight": (6,), "a.bias": (6,), "a.running_mean": (6,), "a.running_var": (6,)},
        ),
        ((6,), layers.Embedding(9, 4, name="a"), {"a.weight": (9, 4)}),
        ((8, 8, 6), layers.PReLU(shared_axes=[1, 2], name="a"), {"a.weight": (6,)}),
        (
            (8, 6),
            layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de", name="a"),
            {"a.weight": (10, 6), "a.bias": (10,)},
        ),
        ((2, 3), layers.EinsumDense("abc,dbc->ad", 5, name="a"), {"a.weight": (5, 6)}),
        ((1,), layers.EinsumDense("ab,bCD->aCD", (4, 5), name="free.scale"), {"free.scale": (4, 5)}),
        (
            (8, 6),
            layers.LSTM(5, name="a"),
            {"a.weight_ih_l0": (20, 6), "a.weight_hh_l0": (20, 5), "a.bias_ih_l0": (20,), "a.bias_hh_l0": (20,)},
        ),
        (
            (8, 6),
            layers.Bidirectional(layers.GRU(5), name="a.l1"),
            {
                f"a.{leaf}_l1{way}": shape
                for way in ("", "_reverse")
                for leaf, shape in (
                    ("weight_ih", (15, 6)),
                    ("weight_hh", (15, 5)),
                    ("bias_ih", (15,)),
                    ("bias_hh", (15,)),
                )
            },
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_a_layer_has_torchs_names_and_layouts(shape: Any, layer: Any, expected: Any) -> None:
    assert shapes(model_of(shape, layer)) == expected


def test_the_gates_of_a_gru_stand_in_torchs_order() -> None:
    model = model_of((4, 2), layers.GRU(1, name="gru"))
    model.layers[0].cell.kernel.assign([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # z, r, h
    np.testing.assert_array_equal(BACKEND.parameters(model)["gru.weight_ih_l0"], [[2, 5], [1, 4], [3, 6]])


def test_the_two_biases_of_an_lstm_are_added() -> None:
    model = model_of((4, 2), layers.LSTM(1, name="lstm"))
    given = BACKEND.parameters(model)
    given["lstm.bias_ih_l0"], given["lstm.bias_hh_l0"] = np.arange(4.0), np.full(4, 10.0)
    BACKEND.assign(model, given)
    np.testing.assert_array_equal(model.layers[0].cell.bias.numpy(), np.arange(4.0) + 10)
    assert not BACKEND.parameters(model)["lstm.bias_hh_l0"].any()


def everything() -> keras.Model:
    x = keras.Input((9, 8, 6))
    y = layers.Conv2D(4, 3, padding="same")(x)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2)(y)
    y = layers.Conv2DTranspose(4, 3)(layers.PReLU(shared_axes=[1, 2])(y))
    y = layers.Reshape((-1, 4))(layers.BatchNormalization()(y))
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True))(layers.LSTM(5, return_sequences=True)(y))
    y = layers.MultiHeadAttention(2, 3)(y, y)
    y = layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d")(y)
    return keras.Model(x, layers.Dense(2)(layers.SimpleRNN(4)(y)))


def test_what_parameters_gives_assign_takes_back() -> None:
    model = everything()
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.path:
            variable.assign(rng.standard_normal(variable.shape))
    before = [variable.numpy() for variable in model.weights]
    given = BACKEND.parameters(model)
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    BACKEND.assign(model, given)
    for variable, array in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_automatic_numbers_are_matched_in_their_order() -> None:
    first, second = everything(), everything()
    given = BACKEND.parameters(first)
    assert set(given) != set(BACKEND.parameters(second))
    BACKEND.assign(second, given)
    for left, right in zip(first.weights, second.weights, strict=True):
        if "seed" not in left.path:
            np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_everything_that_does_not_fit_is_named_and_nothing_is_changed() -> None:
    model = model_of((3,), layers.Dense(5, name="a"), layers.Dense(2, name="b"))
    before = BACKEND.parameters(model)
    given = {**before, "a.weight": np.zeros((3, 5)), "c.weight": np.zeros(1), "b.weight": np.ones((2, 5))}
    del given["b.bias"]
    with pytest.raises(DataError) as caught:
        BACKEND.assign(model, given)
    for told in ("b.bias is missing", "c.weight is unknown", "a.weight has shape (3, 5), the model takes (5, 3)"):
        assert told in str(caught.value)
    for name, array in BACKEND.parameters(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_names_that_clash_are_told_apart_by_the_place_of_the_layer() -> None:
    def inner(name: str) -> keras.Model:
        x = keras.Input((3,))
        return keras.Model(x, layers.Dense(3, name="d")(x), name=name)

    x = keras.Input((3,))
    model = keras.Model(x, inner("one")(inner("two")(x)))
    assert set(shapes(model)) == {"one.d.weight", "one.d.bias", "two.d.weight", "two.d.bias"}


def test_the_name_of_the_model_itself_is_left_out() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="net")
            self.scale = self.add_weight(shape=(3,), name="scale")
            self.head = layers.Dense(2, name="head")

        def call(self, x: Any) -> Any:
            return self.head(x * self.scale)

    net = Net()
    net(np.zeros((1, 3), "float32"))
    assert shapes(net) == {"scale": (3,), "head.weight": (2, 3), "head.bias": (2,)}


def test_roles_tell_the_trained_from_the_frozen_and_from_buffers() -> None:
    model = model_of(
        (3,), layers.Dense(2, name="a", trainable=False), layers.BatchNormalization(name="b"), layers.Dropout(0.1)
    )
    roles = {name: weight.role for weight in weights(model) for name in weight.names}
    assert roles == {
        "a.weight": "frozen",
        "a.bias": "frozen",
        "b.weight": "parameter",
        "b.bias": "parameter",
        "b.running_mean": "buffer",
        "b.running_var": "buffer",
    }


def test_the_variables_of_a_module_have_their_own_names() -> None:
    module = tf.Module()
    module.inner = tf.Variable(np.ones((2, 3), "float32"), name="layer/kernel")
    assert shapes(module) == {"layer.kernel": (2, 3)}


def test_gradients_come_in_the_portable_layout() -> None:
    model = model_of((4, 3), layers.LSTM(2, name="lstm"), layers.Dense(2, name="head"), layers.Dense(2, name="tail"))
    signature = BACKEND.signature(model)
    inputs = signature.draw({"batch": 5})
    cotangent = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    found = BACKEND.gradients(model, inputs, {"output": cotangent}, signature)
    assert {name: array.shape for name, array in found.items()} == shapes(model)
    np.testing.assert_array_equal(found["lstm.bias_ih_l0"], found["lstm.bias_hh_l0"])
    step = 1e-3
    before = BACKEND.parameters(model)
    values = []
    for sign in (1, -1):
        moved = {**before, "head.weight": before["head.weight"] + sign * step * found["head.weight"]}
        BACKEND.assign(model, moved)
        values.append(float((BACKEND.run(model, inputs, signature)["output"].astype("float64") * cotangent).sum()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float((found["head.weight"] ** 2).sum()), rel=1e-2)


def test_a_parameter_that_the_outputs_do_not_depend_on_has_zero_gradient() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = layers.Dense(2, name="used"), layers.Dense(2, name="unused")

        def call(self, x: Any) -> Any:
            self.unused(x)
            return self.used(x)

    net, x = Net(), np.ones((2, 3), "float32")
    signature = BACKEND.signature(net, x)
    found = BACKEND.gradients(net, {"x": x}, {"output": np.ones((2, 2), "float32")}, signature)
    assert not found["unused.weight"].any()
    assert found["used.weight"].any()
