"""Signatures, examples and inference, as a Keras user nests them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from modelport.backends.keras import BACKEND, require_tensorflow
from modelport.core.errors import DataError, SignatureError
from modelport.core.signature import Signature, TensorSpec
from tests.nets import in_keras


def test_importing_the_backend_imports_no_framework() -> None:
    code = (
        "import sys; from modelport.backends.keras import BACKEND; BACKEND.formats; BACKEND.owns(3); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_another_keras_backend_is_named_with_the_remedy() -> None:
    code = (
        "import os, sys, types; sys.modules['keras'] = types.SimpleNamespace(config=types.SimpleNamespace(backend="
        "lambda: 'jax'))\n"
        "from modelport.backends.keras import require_tensorflow\n"
        "from modelport.core.errors import MissingBackendError\n"
        "try: require_tensorflow()\n"
        "except MissingBackendError as error: assert 'KERAS_BACKEND=tensorflow' in str(error)\n"
        "else: raise SystemExit('not refused')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    require_tensorflow()


def test_keras_models_layers_and_modules_are_owned_and_nothing_else() -> None:
    assert BACKEND.owns(in_keras.net("mlp"))
    assert BACKEND.owns(layers.Dense(2))
    assert BACKEND.owns(tf.Module())
    assert not BACKEND.owns(np.ones(3))
    assert not BACKEND.owns(keras.optimizers)


def test_the_signature_of_a_functional_model_is_its_own() -> None:
    signature = BACKEND.signature(in_keras.net("encoder"))
    assert signature.inputs == (
        TensorSpec("tokens", "float32", ("batch", 7, 6)),
        TensorSpec("mask", "bool", ("batch", 7)),
    )
    assert signature.args == (["tokens", "mask"],)
    assert signature.outputs == (TensorSpec("output", "float32", ("batch", 3)),)


def test_the_keys_of_dicts_are_the_names() -> None:
    a, b = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    signature = BACKEND.signature(keras.Model({"left": a, "right": b}, {"sum": a + b, "both": [a, b]}))
    assert [spec.name for spec in signature.inputs] == ["left", "right"]
    assert [spec.name for spec in signature.outputs] == ["sum", "both_0", "both_1"]


def test_several_outputs_are_named_after_their_layers() -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, [layers.Dense(2, name="a")(x), layers.Dense(2, name="b")(x)])
    signature = BACKEND.signature(model)
    assert [spec.name for spec in signature.outputs] == ["a", "b"]


@pytest.mark.parametrize("kind", in_keras.NETS)
def test_run_gives_what_the_model_gives(kind: str) -> None:
    model, example = in_keras.net(kind), in_keras.example(kind)
    signature = BACKEND.signature(model)
    found = signature.pack(BACKEND.run(model, BACKEND.flatten(model, example, signature), signature))
    expected = model(example, training=False)
    for name in expected if isinstance(expected, dict) else [None]:
        left, right = (found, expected) if name is None else (found[name], expected[name])
        assert isinstance(left, np.ndarray)
        np.testing.assert_array_equal(left, np.asarray(right))


def test_weights_that_change_change_the_result() -> None:
    model = in_keras.net("mlp")
    signature = BACKEND.signature(model)
    x = signature.draw({})
    first = BACKEND.run(model, x, signature)["output"]
    model.layers[-1].bias.assign_add(np.ones(4))
    np.testing.assert_allclose(BACKEND.run(model, x, signature)["output"], first + 1, rtol=1e-6)


def test_inference_mode_drops_nothing_and_moves_no_statistics() -> None:
    model = in_keras.net("cnn")
    signature = BACKEND.signature(model)
    x = signature.draw({})
    before = [variable.numpy() for variable in model.variables]
    first, second = (BACKEND.run(model, x, signature)["output"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for variable, array in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_a_functional_model_takes_another_signatures_nesting() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], [a - b])
    specs = (TensorSpec("b", "float32", ("batch", 3)), TensorSpec("a", "float32", ("batch", 3)))
    foreign = Signature(specs, (TensorSpec("y", "float32", ("batch", 3)),), args=("b",), kwargs={"a": "a"})
    ones = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(BACKEND.run(model, {"b": ones, "a": 3 * ones}, foreign)["y"], 2 * ones)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_an_examples_floats_become_the_models(dtype: str) -> None:
    model = in_keras.net("mlp")
    signature = BACKEND.signature(model)
    assert BACKEND.flatten(model, np.ones((2, 12), dtype), signature)["x"].dtype == "float32"


def test_an_example_that_is_nested_otherwise_is_refused() -> None:
    model = in_keras.net("dict")
    with pytest.raises(SignatureError, match="does not fit"):
        BACKEND.flatten(model, [np.ones((1, 5), "float32")], BACKEND.signature(model))


def test_a_subclassed_models_arguments_are_its_inputs() -> None:
    class Net(keras.Model):
        def call(self, left: Any, right: Any, *, mask: Any = None) -> Any:
            return left + right

    one = np.ones((2, 3), "float32")
    signature = BACKEND.signature(Net(), (one, one))
    assert [spec.name for spec in signature.inputs] == ["left", "right"]
    assert signature.args == ("left", "right")
    assert signature.inputs[0].shape == ("batch", 3)


def test_a_model_that_is_there_already_is_placed_as_it_is() -> None:
    model = in_keras.net("mlp")
    assert BACKEND.place(model, "cpu") is model


def test_a_device_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(DataError, match="cpu:0"):
        BACKEND.place(in_keras.net("mlp"), "cuda:7")


def test_inputs_that_the_model_cannot_take_are_told_with_their_sizes() -> None:
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(2)(x))
    signature = Signature((TensorSpec("x", "float32", ("batch", "n")),), (TensorSpec("y", "float32", ("batch", 2)),))
    with pytest.raises(SignatureError, match=r"Functional cannot be called with inputs x: float32\(2, 5\)"):
        BACKEND.run(model, {"x": np.ones((2, 5), np.float32)}, signature)
