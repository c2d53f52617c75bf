"""The layers of Keras that take the model's weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tests.backends.keras.building import draw, expected, portable

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from modelport.backends.keras.build import build  # noqa: E402
from modelport.backends.keras.parameters import parameters  # noqa: E402


def check(text: str, x: np.ndarray, weights: Mapping[str, np.ndarray], kinds: list[str]) -> keras.Model:
    """Build, compare outputs and weights, and say which layers there are."""
    built = build(portable(text, weights))
    model = built.native
    assert [type(layer).__name__ for layer in model.layers[1:]] == kinds
    np.testing.assert_allclose(model(x), expected(text, {"x": x}, weights)[0], rtol=1e-4, atol=1e-5)
    home = parameters(model)
    assert set(home) == set(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(home[name], array)
    assert not [note for note in built.notes if note.kind == "fallback"]
    return model


CONVOLUTIONS = {
    "padded": ("pads = [1, 1, 1, 1]", (6, 4, 3, 3), "Conv2D"),
    "strided": ("strides = [2, 2], pads = [1, 1, 1, 1]", (6, 4, 3, 3), "Conv2D"),
    "uneven": ("strides = [2, 1], pads = [0, 1, 2, 3]", (6, 4, 3, 2), "Conv2D"),
    "dilated": ("dilations = [2, 2]", (6, 4, 3, 3), "Conv2D"),
    "same upper": ('auto_pad = "SAME_UPPER", strides = [2, 2]', (6, 4, 3, 3), "Conv2D"),
    "same lower": ('auto_pad = "SAME_LOWER", strides = [2, 2]', (6, 4, 4, 4), "Conv2D"),
    "grouped": ("group = 2", (6, 2, 3, 3), "Conv2D"),
    "depthwise": ("group = 4", (8, 1, 3, 3), "DepthwiseConv2D"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_a_layer(kind: str) -> None:
    attributes, shape, layer = CONVOLUTIONS[kind]
    text = f"f (float[n, 4, 7, 8] x) => (float[n, c, h, w] y) {{ y = Conv <{attributes}> (x, m.weight, m.bias) }}"
    check(text, draw(2, 4, 7, 8), {"m.weight": draw(*shape), "m.bias": draw(shape[0])}, [layer])


@pytest.mark.parametrize(("rank", "kind"), [(1, "Conv1D"), (3, "Conv3D")])
def test_a_convolution_of_any_rank_is_a_layer(rank: int, kind: str) -> None:
    dims, pads = ", ".join(["5"] * rank), ", ".join(["1"] * 2 * rank)
    text = f"f (float[n, 2, {dims}] x) => (float[n, 3, {dims}] y) {{ y = Conv <pads = [{pads}]> (x, m.weight) }}"
    check(text, draw(2, 2, *[5] * rank), {"m.weight": draw(3, 2, *[3] * rank)}, [kind])


def test_strides_with_dilations_are_computed_where_the_kernel_is_missing() -> None:
    text = """f (float[n, 2, 9, 9] x) => (float[n, 3, h, w] y) {
        y = Conv <strides = [2, 2], dilations = [2, 2]> (x, m.weight, m.bias)
    }"""
    check(text, draw(2, 2, 9, 9), {"m.weight": draw(3, 2, 3, 3), "m.bias": draw(3)}, ["EinsumDense", "EinsumDense"])


TRANSPOSED = {
    "plain": ("strides = [2, 2]", (3, 5, 3, 3), ["Conv2DTranspose"]),
    "cropped": ("strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]", (3, 5, 3, 3), ["Conv2DTranspose"]),
    "gaps": ("strides = [3, 3]", (3, 5, 2, 2), ["Conv2DTranspose"]),
    "grouped": ("strides = [2, 2], group = 3", (3, 2, 3, 3), ["EinsumDense", "EinsumDense"]),
    "dilated": ("strides = [2, 2], dilations = [2, 2]", (3, 5, 3, 3), ["EinsumDense", "EinsumDense"]),
}


@pytest.mark.parametrize("kind", TRANSPOSED)
def test_a_transposed_convolution_comes_out_right(kind: str) -> None:
    attributes, shape, kinds = TRANSPOSED[kind]
    group = 3 if "group" in attributes else 1
    text = (
        f"f (float[n, 3, 4, 5] x) => (float[n, c, h, w] y) {{ y = ConvTranspose <{attributes}> (x, m.weight, m.bias) }}"
    )
    check(text, draw(2, 3, 4, 5), {"m.weight": draw(*shape), "m.bias": draw(shape[1] * group)}, kinds)


def test_batch_normalization_trains() -> None:
    text = """f (float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) {
        y = BatchNormalization <momentum = 0.8, epsilon = 0.001> (x, b.weight, b.bias, b.running_mean, b.running_var)
    }"""
    weights = {name: draw(3, seed=i) for i, name in enumerate(("b.weight", "b.bias", "b.running_mean"))}
    weights["b.running_var"] = np.abs(draw(3, seed=9)) + 0.5
    model = check(text, draw(2, 3, 4, 4), weights, ["BatchNormalization"])
    x = draw(8, 3, 4, 4, seed=5)
    model(x, training=True)
    moved = 0.8 * weights["b.running_mean"] + 0.2 * x.mean((0, 2, 3))
    np.testing.assert_allclose(parameters(model)["b.running_mean"], moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("node", "shape", "size", "kind"),
    [
        ("LayerNormalization <axis = -1>", (4, 5, 6), (6,), "LayerNormalization"),
        ("LayerNormalization <axis = 1>", (4, 5, 6), (5, 6), "LayerNormalization"),
        ("GroupNormalization <num_groups = 2>", (4, 6, 5), (6,), "GroupNormalization"),
        ("InstanceNormalization", (4, 6, 5), (6,), "GroupNormalization"),
    ],
)
def test_a_normalization_is_a_layer(node: str, shape: tuple[int, ...], size: tuple[int, ...], kind: str) -> None:
    dims = ", ".join(map(str, shape[1:]))
    text = f"f (float[n, {dims}] x) => (float[n, {dims}] y) {{ y = {node} (x, m.weight, m.bias) }}"
    check(text, draw(*shape), {"m.weight": draw(*size), "m.bias": draw(*size, seed=1)}, [kind])


@pytest.mark.parametrize("slopes", [1, 4])
def test_prelu_is_a_layer(slopes: int) -> None:
    text = """f (float[n, 4, 3, 3] x) => (float[n, 4, 3, 3] y) {
        shape = Constant <value_ints = [-1, 1, 1]> ()
        slope = Reshape (m.weight, shape)
        y = PRelu (x, slope)
    }"""
    check(text, draw(2, 4, 3, 3), {"m.weight": np.linspace(0.1, 0.4, slopes, dtype="float32")}, ["PReLU"])


def test_dropout_drops_in_training_only() -> None:
    text = """f (float[n, 100] x) => (float[n, 100] y) {
        ratio = Constant <value_float = 0.4> ()
        ["drop"] y = Dropout (x, ratio)
    }"""
    model = build(portable(text)).native
    layer = model.get_layer("drop")
    assert layer.rate == pytest.approx(0.4)
    x = np.ones((8, 100), "float32")
    np.testing.assert_array_equal(model(x, training=False), x)
    assert 0.3 < float(np.mean(np.asarray(model(x, training=True)) == 0)) < 0.5


def test_a_foreign_graphs_weights_become_layers_under_new_names() -> None:
    import onnx_ir as ir

    from tests.backends.keras.building import proto

    text = "f (float[n, 3] x) => (float[n, 2] y) { y = Gemm (x, W1, B1) }"
    weights = {"W1": draw(3, 2), "B1": draw(2)}
    built = build(ir.serde.deserialize_model(proto(text, weights)))
    assert [type(layer).__name__ for layer in built.native.layers] == ["InputLayer", "Dense"]
    assert {note.where for note in built.notes if note.kind == "changed"} == {"W1", "B1"}
    x = draw(4, 3)
    np.testing.assert_allclose(built.native(x), expected(text, {"x": x}, weights)[0], rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_weight_of_a_grouped_convolution() -> None:
    text = "f (float[n, 4, 5, 5] x) => (float[n, 4, 3, 3] y) { y = Conv <group = 2> (x, m.weight, m.bias) }"
    model = build(portable(text, {"m.weight": draw(4, 2, 3, 3), "m.bias": draw(4)})).native
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(draw(2, 4, 5, 5)) ** 2)
    assert all(float(tf.reduce_max(tf.abs(g))) > 0 for g in tape.gradient(loss, model.trainable_variables))


def test_heads_are_split_and_joined_by_the_layers_of_keras_attention() -> None:
    text = """f (float[n, t, 6] x) => (float[n, t, 5] y) {
        qw = Transpose <perm = [1, 0]> (q.weight)  ow = Transpose <perm = [1, 0]> (o.weight)
        a = MatMul (x, qw)  b = Add (a, q.bias)
        split = Constant <value_ints = [0, 0, 2, 4]> ()  c = Reshape (b, split)
        d = Tanh (c)
        join = Constant <value_ints = [0, 0, 8]> ()  e = Reshape (d, join)
        g = MatMul (e, ow)  y = Add (g, o.bias)
    }"""
    weights = {"q.weight": draw(8, 6), "q.bias": draw(8), "o.weight": draw(5, 8), "o.bias": draw(5)}
    model = check(text, draw(2, 3, 6), weights, ["EinsumDense", "EinsumDense"])
    assert tuple(model.get_layer("q").kernel.shape) == (6, 2, 4)
    assert tuple(model.get_layer("o").kernel.shape) == (2, 4, 5)
