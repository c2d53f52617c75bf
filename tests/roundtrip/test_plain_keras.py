"""A Keras result is plain Keras: what a user does to a model written by hand works on it, without modelport."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import modelport as mp
from tests.nets import in_torch

KINDS = ("cnn", "lstm", "encoder", "embedding")


class Plain(NamedTuple):
    model: keras.Model
    inputs: Any
    output: np.ndarray

    def same(self, output: Any, tolerance: float = 1e-4) -> None:
        np.testing.assert_allclose(np.asarray(output, np.float32), self.output, rtol=tolerance, atol=tolerance)

    def twin(self) -> keras.Model:
        twin = keras.models.clone_model(self.model)
        twin.set_weights(self.model.get_weights())
        return twin


@cache
def transferred(kind: str) -> Plain:
    model = mp.transfer(in_torch.net(kind), to="keras", example=in_torch.example(kind))
    named = model.signature.bind(in_torch.example(kind))
    arrays = [tf.constant(named[spec.name]) for spec in model.signature.inputs]
    inputs = arrays[0] if len(arrays) == 1 else arrays
    return Plain(model.native, inputs, np.asarray(model.native(inputs, training=False)))


@pytest.fixture(params=KINDS)
def plain(request: pytest.FixtureRequest) -> Plain:
    return transferred(request.param)


def fits(model: keras.Model, plain: Plain) -> bool:
    """Whether a step of training works."""
    before = [np.asarray(variable) for variable in model.trainable_variables]
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    loss = model.fit(plain.inputs, np.zeros_like(plain.output), verbose=0).history["loss"]
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True)]
    return bool(np.isfinite(loss).all() and any(moved))


def layers_of(model: keras.Model, *kinds: type) -> list[keras.Layer]:
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def test_it_is_cloned_and_takes_its_weights_from_a_file(plain: Plain, tmp_path: Path) -> None:
    plain.model.save_weights(tmp_path / "plain.weights.h5")
    twin = keras.models.clone_model(plain.model)
    twin.load_weights(tmp_path / "plain.weights.h5")
    plain.same(twin(plain.inputs, training=False))


@pytest.mark.parametrize("kind", ["cnn", "embedding"])
def test_it_is_exported_as_a_saved_model(kind: str, tmp_path: Path) -> None:
    plain = transferred(kind)
    plain.model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    plain.same(saved.serve(plain.inputs))


@pytest.mark.parametrize("kind", ["cnn", "lstm"])
def test_it_fits(kind: str) -> None:
    plain = transferred(kind)
    assert fits(plain.twin(), plain)


@pytest.mark.parametrize("kind", ["cnn", "encoder"])
def test_it_compiles_to_one_kernel(kind: str) -> None:
    plain = transferred(kind)
    plain.same(tf.function(lambda x: plain.model(x, training=False), jit_compile=True)(plain.inputs))


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_it_is_quantized_and_comes_back_from_a_file(mode: str, tmp_path: Path) -> None:
    plain = transferred("embedding")
    model = plain.twin()
    model.quantize(mode)
    output = np.asarray(model(plain.inputs, training=False))
    model.save(tmp_path / "small.keras")

    quantized = [layer.name for layer in model.layers if getattr(layer, "quantization_mode", None) == mode]
    assert {"fc1", "fc2"} <= set(quantized)
    plain.same(output, 0.5 if mode == "int4" else 0.1)
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(np.asarray(again(plain.inputs, training=False)), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["cnn", "embedding"])
def test_its_layers_take_low_rank_corrections_and_train_them(kind: str) -> None:
    plain = transferred(kind)
    model = plain.twin()
    layers = layers_of(model, keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)
    for layer in layers:
        layer.enable_lora(2)
    plain.same(model(plain.inputs, training=False))
    kernels = [np.asarray(layer._embeddings if hasattr(layer, "_embeddings") else layer._kernel) for layer in layers]

    assert layers
    assert fits(model, plain)
    for layer, before in zip(layers, kernels, strict=True):
        np.testing.assert_array_equal(layer._embeddings if hasattr(layer, "_embeddings") else layer._kernel, before)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_its_layers_compute_in_mixed_precision(policy: str) -> None:
    plain = transferred("cnn")

    def mixed(layer: keras.Layer) -> keras.Layer:
        settings = {"dtype": policy} if isinstance(layer, keras.Layer) else {}
        return layer.__class__.from_config({**layer.get_config(), **settings})

    model = keras.models.clone_model(plain.model, clone_function=mixed)
    model.set_weights(plain.model.get_weights())

    output = model(plain.inputs, training=False)
    assert output.dtype.name == policy.removeprefix("mixed_")
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    plain.same(tf.cast(output, "float32"), 0.05)


def test_a_part_of_it_is_a_model(plain: Plain) -> None:
    middle = plain.model.layers[len(plain.model.layers) // 2]
    features = keras.Model(plain.model.inputs, middle.output)(plain.inputs)
    assert keras.tree.flatten(features)[0].shape[0] == plain.output.shape[0]


ELSEWHERE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Nothing())
import keras
import numpy as np
for kind in sys.argv[4:]:
    model = keras.models.load_model(sys.argv[1] + "/" + kind + ".keras")
    arrays = np.load(sys.argv[1] + "/" + kind + ".npz")
    inputs = [keras.ops.convert_to_tensor(arrays[name]) for name in arrays.files if name.startswith("arr")]
    inputs = inputs[0] if len(inputs) == 1 else inputs
    output = keras.ops.convert_to_numpy(model(inputs, training=False))
    np.testing.assert_allclose(output, arrays["output"], rtol=1e-3, atol=1e-4)
    if sys.argv[3] == "fit":
        model.compile(optimizer="sgd", loss="mse")
        assert np.isfinite(model.fit(inputs, np.zeros_like(output), verbose=0).history["loss"]).all()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    for kind in ("cnn", "encoder", "embedding"):
        plain = transferred(kind)
        plain.model.save(folder / f"{kind}.keras")
        np.savez(folder / f"{kind}.npz", *tf.nest.flatten(plain.inputs), output=plain.output)
    return folder


def elsewhere(files: Path, engine: str, without: str, *kinds: str, fit: bool = False) -> None:
    environment = {**os.environ, "KERAS_BACKEND": engine, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", ELSEWHERE, str(files), without, "fit" if fit else "", *kinds]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def without_dots(layer: Any) -> Any:
    """Keras on torch takes no dots in names; docs/names.md has this line for it."""
    return layer.__class__.from_config({**layer.get_config(), "name": layer.name.replace(".", "_")})


def test_it_opens_and_fits_where_there_is_no_modelport(files: Path) -> None:
    elsewhere(files, "tensorflow", "modelport,torch,onnx,onnx_ir", "cnn", "encoder", fit=True)


def test_it_opens_on_jax(files: Path) -> None:
    elsewhere(files, "jax", "modelport,tensorflow,torch", "cnn", "embedding")


def test_a_name_without_dots_is_one_line_away() -> None:
    plain = transferred("encoder")
    twin = keras.models.clone_model(plain.model, clone_function=without_dots)
    twin.set_weights(plain.model.get_weights())

    assert not any("." in operation.name for operation in twin.operations)
    plain.same(twin(plain.inputs, training=False))


def test_its_layers_and_operations_are_named_after_their_source() -> None:
    names = [operation.name for operation in transferred("encoder").model.operations]
    assert {"embed", "encoder.layers.0.norm1", "encoder.layers.1.add", "encoder.layers.1.linear2"} <= set(names)
    scoped = [name for name in names if name.startswith("encoder.layers.0.")]
    assert len(scoped) == len([name for name in names if name.startswith("encoder.layers.1.")])
