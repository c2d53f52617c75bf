"""Whole models through the portable graph: what is kept, what is told, what is refused."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
from keras import layers, ops

from modelport.backends.keras import BACKEND
from modelport.core.errors import SignatureError, UnsupportedModelError, UnsupportedOpError
from modelport.graph.layout.channels_last import count_transposes
from modelport.graph.signature import read_signature
from modelport.graph.weights import roles
from tests.backends.keras.parity import error, exported, operators
from tests.nets import in_keras


@pytest.mark.parametrize("kind", in_keras.NETS)
def test_each_kind_of_net_computes_the_same_in_onnx_runtime(kind: str) -> None:
    assert error(in_keras.net(kind), in_keras.example(kind)) <= 1e-5


@pytest.mark.parametrize("kind", in_keras.NETS)
def test_every_weight_is_in_the_graph_under_its_portable_name(kind: str) -> None:
    model = in_keras.net(kind)
    graph = exported(model, in_keras.example(kind))[0].graph
    expected = BACKEND.parameters(model)
    assert set(roles(graph)) == set(expected)
    for name, array in expected.items():
        held = graph.graph.initializers[name].const_value
        assert held is not None
        np.testing.assert_array_equal(held.numpy(), array)


@pytest.mark.parametrize(("kind", "most"), [("cnn", 2), ("residual", 1), ("dict", 0), ("mlp", 0), ("embedding", 0)])
def test_transposes_remain_at_the_edges_only(kind: str, most: int) -> None:
    graph = exported(in_keras.net(kind), in_keras.example(kind))[0].graph
    assert count_transposes(graph.graph) <= most


def test_dropout_and_batch_normalisation_stay() -> None:
    found = operators(in_keras.net("cnn"))
    assert (found["Dropout"], found["BatchNormalization"]) == (1, 2)


@pytest.mark.parametrize("kind", in_keras.NETS)
def test_the_graph_keeps_the_signature(kind: str) -> None:
    result, signature, _ = exported(in_keras.net(kind), in_keras.example(kind))
    assert read_signature(result.graph) == signature


def test_export_leaves_the_model_as_it_was() -> None:
    model = in_keras.net("cnn")
    model.layers[1].trainable = False
    before = ([v.numpy() for v in model.variables], [v.trainable for v in model.variables])
    attributes = [dict(vars(layer)) for layer in model._flatten_layers()]
    exported(model)
    for layer, kept in zip(model._flatten_layers(), attributes, strict=True):
        assert set(vars(layer)) == set(kept)
        assert vars(layer).get("activation") is kept.get("activation")
    for variable, array in zip(model.variables, before[0], strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)
    assert [v.trainable for v in model.variables] == before[1]


class Net(keras.Model):
    """A model as it is subclassed: weights of its own, a list of layers, nested outputs, an optional input."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers.Embedding(20, 8)
        self.mix = self.add_weight(shape=(8, 8), name="mix")
        self.blocks = [layers.Dense(8, activation="gelu") for _ in range(2)]
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(3)

    def call(self, ids: Any, scale: Any = None, training: bool | None = None) -> Any:
        x = self.embedding(ids) @ self.mix
        for block in self.blocks:
            x = block(x) + x
        x = self.norm(x, training=training)
        if scale is not None:
            x = x * scale[:, None, None]
        return {"logits": self.head(ops.mean(x, axis=1)), "pooled": (ops.max(x, axis=1), x)}


IDS = np.arange(10, dtype="int32").reshape(2, 5)
SCALE = np.asarray([0.5, 2.0], "float32")


@pytest.mark.parametrize("example", [IDS, (IDS, SCALE), {"ids": IDS, "scale": SCALE}], ids=["one", "two", "named"])
def test_a_subclassed_model_is_exported_from_an_example(example: Any) -> None:
    net = Net()
    assert error(net, example) <= 1e-5
    signature = BACKEND.signature(net, example)
    assert [spec.name for spec in signature.outputs] == ["logits", "pooled_0", "pooled_1"]
    assert signature.returns == {"logits": "logits", "pooled": ("pooled_0", "pooled_1")}
    assert "mix" in BACKEND.parameters(net)


def test_a_model_that_does_not_know_its_shapes_asks_for_an_example() -> None:
    with pytest.raises(SignatureError, match="example="):
        BACKEND.signature(keras.Sequential([layers.Dense(3)]))


def test_an_uncalled_sequential_is_built_by_its_example() -> None:
    assert error(keras.Sequential([layers.Dense(4), layers.Dense(2)]), np.ones((2, 3), "float32")) == 0.0


def test_nested_and_shared_layers_have_their_weights_once() -> None:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="relu", name="d")], name="inner")
    x = keras.Input((6,))
    model = keras.Model(x, inner(inner(x)))
    graph = exported(model)[0].graph
    assert set(roles(graph)) == {"inner.d.weight", "inner.d.bias"}
    assert error(model) <= 1e-5


def test_dimensions_without_a_size_stay_open() -> None:
    x = keras.Input((None, None, 3), name="x")
    h = layers.Conv2D(4, 3, strides=2, padding="same")(x)
    h = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(layers.MaxPooling2D(2, padding="same")(h))
    model = keras.Model(x, layers.GlobalAveragePooling2D()(layers.UpSampling2D(2)(h)))
    result, signature, _ = exported(model)
    assert signature.inputs[0].shape == ("batch", "x_dim1", "x_dim2", 3)
    session_inputs = signature.draw({"batch": 2, "x_dim1": 9, "x_dim2": 12})
    assert result.graph.graph.inputs[0].name == "x"
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.serde.serialize_model(result.graph).SerializeToString())
    expected = BACKEND.run(model, session_inputs, signature)["output"]
    np.testing.assert_allclose(session.run(None, session_inputs)[0], expected, rtol=1e-4, atol=1e-6)


def test_attention_over_a_sequence_of_any_length_needs_no_shape_chain() -> None:
    x = keras.Input((None, 6), name="x")
    h = layers.MultiHeadAttention(2, 4)(x, x)
    assert "Shape" not in operators(keras.Model(x, h))
    assert error(keras.Model(x, h)) <= 1e-5


def test_keras_ops_between_layers_are_lowered() -> None:
    x = keras.Input((4, 6), name="x")
    y = ops.concatenate([x[:, ::-1, 1:3], ops.flip(x, axis=1)[:, :, -2:]], axis=-1)
    y = ops.einsum("bij,bkj->bik", ops.softmax(ops.transpose(y, (0, 2, 1)), axis=1), ops.transpose(y, (0, 2, 1)))
    y = ops.reshape(y, (-1, 16))
    outputs = [
        y * ops.one_hot(ops.argmax(y, axis=-1), 16),
        ops.where(y > 0.1, y, -y),
        ops.top_k(y, 3)[0],
        ops.cumsum(y, axis=1),
        ops.logsumexp(y, axis=1),
        ops.sort(y, axis=1),
        ops.norm(y, axis=-1),
        ops.std(y, axis=0),
        ops.floor_divide(ops.cast(y * 10, "int32"), 3),
        ops.mod(ops.cast(y * 10, "int32"), 3),
        ops.arctan2(y, ops.flip(y, axis=1)),
        ops.roll(x, 2, axis=1),
        ops.tril(ops.matmul(ops.transpose(x, (0, 2, 1)), x)),
        ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="reflect"),
        ops.pad(x, ((0, 0), (1, 2), (0, 1)), mode="symmetric"),
        ops.take(x, [2, 0], axis=1),
        ops.take_along_axis(x, np.zeros((1, 1, 6), "int32"), axis=1),
        ops.split(x, [1, 4], axis=2)[1],
        ops.stack([x, x], axis=1),
        ops.any(x > 1, axis=-1),
        ops.all(x > 1, axis=(1, 2)),
        ops.repeat(x, 2, axis=1),
        ops.tile(x, (1, 2, 1)),
        ops.log1p(ops.abs(x)) + ops.expm1(x) + ops.erf(x) + ops.rsqrt(ops.abs(x) + 1.0),
        ops.clip(x, -0.5, 0.5) + ops.sign(x) * ops.square(x),
        ops.moments(x, axes=(1,))[1],
        ops.cast(ops.isfinite(x), "float32"),
        ops.full_like(x, 3.0) + ops.zeros_like(x) + ops.ones_like(x),
    ]
    assert error(keras.Model(x, outputs)) <= 1e-5


def test_a_mask_reaches_pooling_and_attention() -> None:
    ids = keras.Input((5,), dtype="int32", name="ids")
    h = layers.Embedding(10, 4, mask_zero=True)(ids)
    example = np.asarray([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]], "int32")
    pooled = layers.GlobalAveragePooling1D()(h)
    attended = layers.MultiHeadAttention(2, 4)(h, h)
    assert error(keras.Model(ids, [pooled, attended]), example) <= 1e-5


MASKED = np.asarray([[1, 2, 0, 0, 0], [0, 0, 5, 6, 0], [0, 0, 0, 0, 0], [0, 3, 0, 4, 5]], "int32")


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(4, return_sequences=True),
        lambda: layers.GRU(4, go_backwards=True, return_state=True),
        lambda: layers.SimpleRNN(4, return_sequences=True, zero_output_for_mask=True),
        lambda: layers.LSTM(4, zero_output_for_mask=True),
        lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        lambda: layers.Bidirectional(layers.GRU(4, return_state=True)),
        lambda: layers.LSTM(4, return_state=True),
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True),
    ],
)
def test_a_masked_recurrent_layer_skips_what_its_mask_skips(make: Any, steps: int | None) -> None:
    keras.utils.set_random_seed(0)
    ids = keras.Input((steps,), dtype="int32", name="ids")
    model = keras.Model(ids, make()(layers.Embedding(10, 4, mask_zero=True)(ids)))
    for variable in model.weights:
        variable.assign(np.random.default_rng(0).uniform(-1, 1, variable.shape))
    assert error(model, MASKED) <= 1e-5
    assert exported(model, MASKED)[0].notes == ()


def test_a_masked_lstm_stays_one_operator() -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = layers.LSTM(4, name="rnn")(layers.Embedding(10, 4, mask_zero=True)(ids))
    found = operators(keras.Model(ids, h))
    assert (found["LSTM"], found["Scan"], found["Loop"]) == (1, 0, 0)


class Collatz(layers.Layer):
    """How many steps a number takes to 1: a loop whose length depends on data."""

    def call(self, x: Any) -> Any:
        def step(number: Any, count: Any) -> Any:
            even = ops.equal(ops.mod(number, 2), 0)
            return ops.cond(even, lambda: number // 2, lambda: 3 * number + 1), count + 1

        start = ops.max(ops.cast(x, "int32"))
        return ops.while_loop(lambda number, count: number > 1, step, (start, ops.zeros((), "int32")))[1] + 0 * x


def test_a_loop_that_depends_on_data_is_a_loop() -> None:
    x = keras.Input((1,), dtype="int32", name="x")
    model = keras.Model(x, Collatz()(x))
    assert error(model, np.asarray([[7], [3]], "int32")) == 0.0
    assert operators(model)["Loop"] == 1


def test_a_branch_that_depends_on_data_is_an_if() -> None:
    class Branching(layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(6,), initializer="ones", name="scale")

        def call(self, x: Any) -> Any:
            return ops.cond(ops.sum(x) > 0.0, lambda: x * self.scale, lambda: x - 1.0)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, Branching(name="branching")(x))
    assert error(model, np.ones((3, 6), "float32")) == 0.0
    graph = exported(model)[0].graph
    assert [node.op_type for node in graph.graph].count("If") == 1
    assert set(roles(graph)) == {"branching.scale"}


def test_a_scan_of_keras_ops_is_a_scan() -> None:
    class Sums(layers.Layer):
        def call(self, x: Any) -> Any:
            first = ops.transpose(x, (1, 0))
            return ops.transpose(ops.scan(lambda total, row: (total + row, total * row), first[0], first)[1], (1, 0))

    x = keras.Input((5,), name="x")
    model = keras.Model(x, Sums()(x))
    assert error(model) <= 1e-5
    assert operators(model)["Scan"] == 1


def test_a_list_written_in_any_order_is_a_loop_too() -> None:
    class Backwards(layers.Layer):
        def call(self, x: Any) -> Any:
            rows = tf.TensorArray("float32", 4, element_shape=())
            step = lambda i, rows: (i + 1, rows.write(3 - i, ops.sum(x) * tf.cast(i, "float32")))  # noqa: E731
            return x + tf.while_loop(lambda i, rows: i < 4, step, (0, rows))[1].stack()

    x = keras.Input((4,), name="x")
    assert error(keras.Model(x, Backwards()(x))) <= 1e-5


def test_time_distributed_is_the_layer_on_a_longer_batch() -> None:
    x = keras.Input((None, 8, 8, 3), name="x")
    model = keras.Model(x, layers.TimeDistributed(layers.Conv2D(2, 3))(x))
    found = operators(model)
    assert (found["Conv"], found["Loop"], found["Scan"]) == (1, 0, 0)
    assert error(model) <= 1e-5


def test_what_training_loses_is_told() -> None:
    x = keras.Input((6,), name="x")
    y = layers.GaussianNoise(0.1, name="noise")(layers.AlphaDropout(0.1, name="alpha")(x))
    notes = exported(keras.Model(x, y))[0].notes
    assert {(note.kind, note.where) for note in notes} == {("dropped", "noise"), ("changed", "alpha")}


def test_an_op_without_a_form_is_refused_with_its_layer() -> None:
    class Noisy(layers.Layer):
        def call(self, x: Any) -> Any:
            return x + tf.random.poisson((), tf.ones(6))

    x = keras.Input((6,), name="x")
    with pytest.raises(UnsupportedOpError, match=r"RandomPoissonV2.*'noisy', line \d+ of .*test_export.py") as caught:
        exported(keras.Model(x, Noisy(name="noisy")(x)))
    assert caught.value.op_type == "RandomPoissonV2"


def test_a_model_whose_code_fails_is_told_so() -> None:
    class Broken(keras.Model):
        def call(self, x: Any) -> Any:
            if tf.executing_eagerly():
                return x
            raise RuntimeError("not in a graph")

    x = np.ones((2, 3), "float32")
    with pytest.raises(UnsupportedModelError, match=r"test_export.py.*\n*.*not in a graph"):
        exported(Broken(), x)


def test_lora_and_quantised_layers_are_lowered_op_by_op() -> None:
    x = keras.Input((6,), name="x")
    dense = layers.Dense(4, name="dense")
    model = keras.Model(x, dense(x))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(np.ones((2, 4)))
    assert error(model) <= 1e-5
    assert roles(exported(model)[0].graph)["dense.weight"] == "frozen"


def test_a_function_inside_the_model_is_lowered_in_place() -> None:
    function = tf.function(lambda t, w: tf.nn.relu(t) @ w)

    class Custom(layers.Layer):
        def build(self, shape: Any) -> None:
            self.matrix = self.add_weight(shape=(6, 4), name="matrix")

        def call(self, t: Any) -> Any:
            return function(t, self.matrix.value)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, Custom(name="custom")(x))
    assert operators(model) == {"Relu": 1, "MatMul": 1}
    assert set(roles(exported(model)[0].graph)) == {"custom.matrix"}


class Affine(tf.Module):
    """A module as it is written in plain TensorFlow."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.arange(12, dtype="float32").reshape(3, 4) / 10, name="w")
        self.shift = tf.Variable(0.5, trainable=False, name="shift")

    @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
    def __call__(self, x: Any) -> Any:
        return tf.nn.gelu(tf.matmul(x, self.w) + self.shift)


def test_a_plain_module_is_a_source() -> None:
    module = Affine()
    assert error(module) <= 1e-5
    assert operators(module) == {"MatMul": 1, "Add": 1, "Gelu": 1}
    assert roles(exported(module)[0].graph) == {"w": "parameter", "shift": "buffer"}


def test_a_savedmodel_is_a_source(tmp_path: Any) -> None:
    tf.saved_model.save(Affine(), str(tmp_path / "affine"))
    restored = tf.saved_model.load(str(tmp_path / "affine"))
    assert error(restored) <= 1e-5
    assert set(BACKEND.parameters(restored)) == {"w", "shift"}


class Looping(tf.Module):
    """Loops and a branch as AutoGraph makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.eye(3, dtype="float32") * 0.5, name="w")

    @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
    def __call__(self, x: Any) -> Any:
        y = x
        for i in tf.range(tf.cast(tf.reduce_sum(tf.abs(x)), tf.int32) % 5):
            y = tf.matmul(y, self.w) + tf.cast(i, tf.float32)
        if tf.reduce_sum(x) > 0.0:
            y = y * 2.0
        while tf.reduce_max(tf.abs(y)) > 1.0:
            y = y * 0.5
        return y


@pytest.mark.parametrize("saved", [False, True])
def test_loops_and_branches_of_a_module_and_of_a_savedmodel_cross(saved: bool, tmp_path: Any) -> None:
    module: Any = Looping()
    if saved:
        tf.saved_model.save(module, str(tmp_path / "looping"))
        module = tf.saved_model.load(str(tmp_path / "looping"))
    assert error(module) <= 1e-5
    assert (operators(module)["Loop"], operators(module)["If"]) == (2, 1)
    assert set(roles(exported(module)[0].graph)) == {"w"}


def test_an_exported_masked_recurrence_is_a_source(tmp_path: Any) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.LSTM(4, return_sequences=True)(layers.Embedding(10, 4, mask_zero=True)(ids))
    keras.Model(ids, layers.GRU(3)(x)).export(str(tmp_path / "rnn"), verbose=False)
    assert error(tf.saved_model.load(str(tmp_path / "rnn"))) <= 1e-5


def test_an_exported_keras_model_is_a_source_and_keeps_its_dilation(tmp_path: Any) -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.DepthwiseConv2D(3, padding="same", dilation_rate=2),
            layers.BatchNormalization(),
            layers.Conv2D(4, 3, dilation_rate=2, activation="gelu"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model.export(str(tmp_path / "net"), verbose=False)
    restored = tf.saved_model.load(str(tmp_path / "net"))
    assert error(restored) <= 1e-5
    found = operators(restored)
    assert (found["Conv"], found["Gelu"]) == (2, 1)
    assert len(BACKEND.parameters(restored)) == len(BACKEND.parameters(model))


def test_a_slice_is_cut_at_places_that_the_run_tells() -> None:
    class Middle(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            length = tf.shape(x, tf.int32)[1]
            begin = tf.scatter_nd([[1]], [length // 3], [2])
            return tf.strided_slice(x, begin, tf.shape(x) - begin, [1, 1])

    x = keras.Input((None,))
    model = keras.Model(x, Middle()(x))
    assert error(model, np.arange(14, dtype="float32").reshape(2, 7)) == 0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_weight_in_the_graph_lies_where_the_variable_does_and_keeps_its_value(dtype: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype=dtype, name="dense")])
    held = exported(model, np.zeros((2, 4), "float32"))[0].graph.graph.initializers["dense.weight"].const_value
    assert held is not None
    array = held.numpy()
    assert np.shares_memory(array, held.numpy())
    before = array.copy()
    np.testing.assert_array_equal(before, model.layers[0].kernel.numpy().T)
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4), "float32"), np.full((4, 3), 9.0, "float32"), verbose=0)
    model.layers[0].kernel.assign_add(np.ones((4, 3), "float32"))
    np.testing.assert_array_equal(array, before)
    assert not np.array_equal(held.numpy(), before)
