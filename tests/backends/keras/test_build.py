"""A portable graph as a functional Keras model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from modelport.core.errors import UnsupportedOpError
from modelport.core.signature import Signature, TensorSpec
from modelport.graph.signature import write_signature
from tests.backends.keras.building import draw, expected, portable

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from modelport.backends.keras.build import build  # noqa: E402
from modelport.backends.keras.files import open_keras  # noqa: E402
from modelport.backends.keras.parameters import parameters  # noqa: E402

MLP = """mlp (float[batch, 4] x) => (float[batch, 2] y) {
    a = Gemm <transB = 1> (x, first.weight, first.bias)
    b = Tanh (a)
    y = Gemm <transB = 1> (b, second.weight, second.bias)
}"""
MLP_WEIGHTS = {
    "first.weight": draw(3, 4, seed=1),
    "first.bias": draw(3, seed=2),
    "second.weight": draw(2, 3, seed=3),
    "second.bias": draw(2, seed=4),
}


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    path = folder / "model.keras"
    model.save(path)
    return keras.saving.load_model(path)


def test_layers_have_the_module_paths_and_the_weights_come_home() -> None:
    model = build(portable(MLP, MLP_WEIGHTS)).native
    assert [layer.name for layer in model.layers] == ["x", "first", "second"]
    home = parameters(model)
    assert set(home) == set(MLP_WEIGHTS)
    for name, array in MLP_WEIGHTS.items():
        np.testing.assert_array_equal(home[name], array)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_model_takes_any_batch_size(batch: int) -> None:
    x = draw(batch, 4)
    model = build(portable(MLP, MLP_WEIGHTS)).native
    np.testing.assert_allclose(model(x), expected(MLP, {"x": x}, MLP_WEIGHTS)[0], rtol=1e-5, atol=1e-6)


def test_the_source_graph_is_left_as_it_was() -> None:
    graph = portable(MLP, MLP_WEIGHTS)
    before = ir.serde.serialize_model(graph).SerializeToString()
    build(graph)
    assert ir.serde.serialize_model(graph).SerializeToString() == before


def test_a_built_model_fits() -> None:
    model = build(portable(MLP, MLP_WEIGHTS)).native
    model.compile("sgd", "mse")
    x, y = draw(16, 4), draw(16, 2, seed=9)
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_built_model_reloads_where_there_is_no_modelport(tmp_path: Path) -> None:
    text = """f (float[batch, 4, 6, 6] x) => (float[batch, 8] y) {
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, conv.weight, conv.bias)
        b = Mul (a, scale)
        c = Relu (b)
        y = ReduceMean <keepdims = 0> (c, axes)
    }"""
    weights = {"conv.weight": draw(8, 4, 3, 3), "conv.bias": draw(8), "scale": draw(8, 1, 1)}
    graph = portable(text, {**weights, "axes": np.array([2, 3])}, dict.fromkeys(weights, "parameter"))
    model = build(graph).native
    x = draw(3, 4, 6, 6)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", model(x))
    program = (
        "import sys; sys.modules['modelport'] = None\n"
        "import keras, numpy as np\n"
        "m = keras.saving.load_model('model.keras')\n"
        "np.testing.assert_array_equal(m(np.load('x.npy')), np.load('y.npy'))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)


def test_a_weight_that_no_layer_takes_is_trained_under_its_name(tmp_path: Path) -> None:
    text = "f (float[batch, 3] x) => (float[batch, 3] y) { y = Mul (x, gate.scale) }"
    model = build(portable(text, {"gate.scale": np.array([1.0, 2.0, 3.0], "float32")})).native
    x = tf.constant(draw(2, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x))
    (gradient,) = tape.gradient(loss, model.trainable_variables)
    np.testing.assert_allclose(np.ravel(gradient), np.sum(x, 0), rtol=1e-6)
    again = reloaded(model, tmp_path)
    np.testing.assert_array_equal(parameters(again)["gate.scale"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(again(x), model(x))


def test_a_weight_that_the_program_does_not_use_is_kept(tmp_path: Path) -> None:
    weights = {**MLP_WEIGHTS, "spare.weight": draw(5, 6), "spare.count": np.array(7)}
    roles = dict.fromkeys(MLP_WEIGHTS, "parameter") | {"spare.weight": "parameter", "spare.count": "buffer"}
    model = reloaded(build(portable(MLP, weights, roles)).native, tmp_path)
    home = parameters(model)
    np.testing.assert_array_equal(home["spare.weight"], weights["spare.weight"])
    assert home["spare.count"] == 7
    x = draw(2, 4)
    np.testing.assert_allclose(model(x), expected(MLP, {"x": x}, MLP_WEIGHTS)[0], rtol=1e-5, atol=1e-6)


def test_frozen_weights_are_not_trained() -> None:
    roles = {name: "frozen" if name.startswith("first") else "parameter" for name in MLP_WEIGHTS}
    model = build(portable(MLP, MLP_WEIGHTS, roles)).native
    assert not model.get_layer("first").trainable
    assert {variable.path for variable in model.trainable_variables} == {"second/kernel", "second/bias"}


def test_a_layer_of_which_only_the_weight_is_frozen_keeps_both_under_their_names() -> None:
    roles = {name: "frozen" if name == "first.weight" else "parameter" for name in MLP_WEIGHTS}
    model = build(portable(MLP, MLP_WEIGHTS, roles)).native
    assert set(parameters(model)) == set(MLP_WEIGHTS)
    trained = {variable.path for variable in model.trainable_variables}
    assert "first.bias/kernel" in trained
    assert "first.weight/kernel" not in trained


def test_a_layer_that_is_called_twice_is_one_layer() -> None:
    text = """f (float[batch, 3] x) => (float[batch, 3] y) {
        a = Gemm <transB = 1> (x, fc.weight, fc.bias)
        b = Relu (a)
        y = Gemm <transB = 1> (b, fc.weight, fc.bias)
    }"""
    weights = {"fc.weight": draw(3, 3), "fc.bias": draw(3)}
    model = build(portable(text, weights)).native
    assert len(model.layers) == 2
    x = draw(4, 3)
    np.testing.assert_allclose(model(x), expected(text, {"x": x}, weights)[0], rtol=1e-5, atol=1e-6)


def test_a_weight_with_two_kinds_of_use_stays_one_weight() -> None:
    text = """f (int64[batch, n] ids) => (float[batch, n, 5] y) {
        a = Gather (table.weight, ids)
        t = Transpose <perm = [1, 0]> (table.weight)
        y = MatMul (a, t)
    }"""
    weights = {"table.weight": draw(5, 3)}
    model = build(portable(text, weights)).native
    assert set(parameters(model)) == {"table.weight"}
    assert len(model.trainable_variables) == 1
    ids = np.array([[0, 4, 2]])
    np.testing.assert_allclose(model(ids), expected(text, {"ids": ids}, weights)[0], rtol=1e-5, atol=1e-6)


def test_inputs_and_outputs_are_nested_as_the_signature_says() -> None:
    text = "f (float[b, 2] p, float[b, 2] q) => (float[b, 2] s, float[b, 2] d) { s = Add (p, q)  d = Sub (p, q) }"
    graph = portable(text)
    specs = [TensorSpec(name, "float32", ("b", 2)) for name in "pqsd"]
    returns = {"sum": "s", "rest": ("d",)}
    write_signature(graph, Signature(tuple(specs[:2]), tuple(specs[2:]), args=({"p": "p", "q": "q"},), returns=returns))
    found = build(graph).native({"p": draw(1, 2), "q": draw(1, 2, seed=1)})
    np.testing.assert_allclose(found["sum"], draw(1, 2) + draw(1, 2, seed=1), rtol=1e-6)
    np.testing.assert_allclose(found["rest"][0], draw(1, 2) - draw(1, 2, seed=1), rtol=1e-6)


def test_an_input_that_is_called_as_a_layer_leaves_the_layer_its_name() -> None:
    text = "f (float[batch, 3] fc) => (float[batch, 2] y) { y = Gemm <transB = 1> (fc, fc.weight) }"
    model = build(portable(text, {"fc.weight": draw(2, 3)})).native
    assert set(parameters(model)) == {"fc.weight"}


def test_modules_may_be_called_as_keras_calls_its_operations() -> None:
    text = """f (float[batch, 2] x) => (float[batch, 2] y) {
        a = Gemm <transB = 1> (x, add.weight)
        b = Gemm <transB = 1> (x, relu.weight)
        c = Add (a, b)
        y = Relu (c)
    }"""
    model = build(portable(text, {"add.weight": draw(2, 2), "relu.weight": draw(2, 2, seed=1)})).native
    assert set(parameters(model)) == {"add.weight", "relu.weight"}


def test_two_builds_name_their_operations_alike() -> None:
    names = [[op.name for op in build(portable(MLP, MLP_WEIGHTS)).native.operations] for _ in range(2)]
    assert names[0] == names[1]


def test_a_large_constant_is_a_weight_that_is_not_trained(tmp_path: Path) -> None:
    text = "f (float[batch, 40, 40] x) => (float[batch, 40, 40] y) { y = Add (x, table) }"
    table = draw(40, 40)
    model = build(portable(text, {"table": table}, {})).native
    assert model.trainable_variables == []
    assert len(model.to_json()) < 20_000
    again = reloaded(model, tmp_path)
    np.testing.assert_array_equal(again(draw(2, 40, 40)), draw(2, 40, 40) + table)


def test_a_large_mask_keeps_its_dtype(tmp_path: Path) -> None:
    text = "f (float[batch, 30, 30] x) => (float[batch, 30, 30] y) { y = Where (mask, x, low) }"
    mask, low = np.tril(np.ones((30, 30), bool)), np.array(-1e9, "float32")
    model = reloaded(build(portable(text, {"mask": mask, "low": low}, {})).native, tmp_path)
    np.testing.assert_array_equal(model(draw(2, 30, 30)), np.where(mask, draw(2, 30, 30), low))


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_a_model_of_another_precision_keeps_it(dtype: str, tmp_path: Path) -> None:
    kind = {"float16": "float16", "float64": "double", "bfloat16": "bfloat16"}[dtype]
    text = f"f ({kind}[batch, 4] x) => ({kind}[batch, 2] y) {{ y = Gemm <transB = 1> (x, fc.weight, fc.bias) }}"
    weights = {"fc.weight": draw(2, 4), "fc.bias": draw(2)}
    cast = {name: np.asarray(tf.cast(array, dtype)) for name, array in weights.items()}
    model = reloaded(build(portable(text, cast)).native, tmp_path)
    found = model(tf.cast(draw(3, 4), dtype))
    assert found.dtype.name == dtype
    wanted = draw(3, 4) @ weights["fc.weight"].T + weights["fc.bias"]
    np.testing.assert_allclose(np.asarray(tf.cast(found, "float64")), wanted, atol=0.05)


def test_an_unknown_operator_is_named_with_its_node() -> None:
    text = "f (float[2] x) => (float[2] y) { [odd] y = somewhere.Thing (x) }"
    with pytest.raises(UnsupportedOpError, match="Thing at node 'odd'") as caught:
        build(portable(text))
    assert caught.value.op_type == "Thing"


def test_a_shape_that_only_the_run_tells_goes_into_a_layer_of_its_own(tmp_path: Path) -> None:
    text = "f (float[n] x, int64[2] shape) => (float[p, q] y) { y = Reshape (x, shape) }"
    built = build(portable(text))
    assert [(note.kind, "Reshape" in note.message) for note in built.notes] == [("custom", True)]
    model = reloaded(built.native, tmp_path)
    x = draw(6)
    for shape in ([2, 3], [3, 2]):
        found = model([x, np.array(shape)])
        np.testing.assert_array_equal(found, x.reshape(shape))
    with tf.GradientTape() as tape:
        source = tf.constant(x)
        tape.watch(source)
        loss = tf.reduce_sum(tf.function(model)([source, tf.constant([3, 2], tf.int64)]) ** 2)
    np.testing.assert_allclose(tape.gradient(loss, source), 2 * x, rtol=1e-6)


def test_a_model_too_deep_for_the_usual_recursion_limit_is_built_and_read_and_says_so(tmp_path: Path) -> None:
    steps = "\n".join(f"x{i + 1} = Sin (x{i})" for i in range(1200))
    built = build(portable(f"f (float[2] x0) => (float[2] x1200) {{ {steps} }}"))
    assert any("recursion" in note.message for note in built.notes)
    wanted = built.native(draw(2))
    assert np.isfinite(wanted).all()
    built.native.save(tmp_path / "deep.keras")
    np.testing.assert_array_equal(open_keras(tmp_path / "deep.keras").native(draw(2)), wanted)


@pytest.mark.parametrize(("operator", "reduce"), [("AveragePool", np.mean), ("MaxPool", np.max)])
def test_volumes_are_pooled_in_dtypes_that_tensorflow_has_no_kernel_for(operator: str, reduce: Any) -> None:
    text = (
        f"f (double[b, 2, 4, 4, 4] x) => (double[b, 2, 2, 2, 2] y) {{ y = {operator} <kernel_shape = [3, 3, 3]> (x) }}"
    )
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4, 4))
    found = np.asarray(build(portable(text)).native(x))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3, 3), (2, 3, 4))
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found, reduce(windows, axis=(5, 6, 7)), rtol=1e-12)
