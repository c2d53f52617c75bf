"""Keras' and TensorFlow's own files: what they are, what is in them, and that they open as they were written."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from modelport.backends.keras import BACKEND
from modelport.core.errors import DataError, FormatError, IntegrityError, UntrustedFileError

FORMATS = {entry.name: entry for entry in BACKEND.formats}
SUFFIXES = {"keras": "net.keras", "h5": "net.h5", "weights.h5": "net.weights.h5", "savedmodel": "net"}


def small(*, doubled: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    h = layers.Dense(4, activation="relu")(x)
    h = layers.BatchNormalization()(h)
    y = layers.Lambda(lambda t: t * 2.0)(h) if doubled else layers.Dense(2)(h)
    return keras.Model(x, y)


def written(name: str, folder: Path, model: Any = None) -> Path:
    path = folder / SUFFIXES[name]
    model = small() if model is None else model
    write = FORMATS[name].write
    assert write is not None
    write(model, path, BACKEND.signature(model), None)
    return path


def outputs(model: Any) -> Any:
    signature = BACKEND.signature(model)
    x = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    return next(iter(BACKEND.run(model, {signature.inputs[0].name: x}, signature).values()))


@pytest.mark.parametrize("name", ["keras", "h5", "savedmodel"])
def test_a_model_opens_as_it_was_written(name: str, tmp_path: Path) -> None:
    model = small()
    path = written(name, tmp_path, model)
    open_ = FORMATS[name].open
    assert open_ is not None
    assert FORMATS[name].unsafe(path) == ""
    np.testing.assert_allclose(outputs(open_(path).native), outputs(model), rtol=1e-6)
    assert [path.name] == [entry.name for entry in tmp_path.iterdir()]


@pytest.mark.parametrize("name", FORMATS)
def test_only_its_own_format_detects_a_file(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path)
    assert [other for other, entry in FORMATS.items() if entry.detect(path)] == [name]


def test_a_file_is_recognised_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "unnamed"
    shutil.move(written("keras", tmp_path), path)
    open_ = FORMATS["keras"].open
    assert FORMATS["keras"].detect(path)
    assert open_ is not None
    np.testing.assert_allclose(outputs(open_(path).native), outputs(small()), rtol=1e-6)


@pytest.mark.parametrize("name", ["keras", "h5"])
def test_a_lambda_layer_is_named_before_anything_is_opened(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path, small(doubled=True))
    assert "Lambda layer" in FORMATS[name].unsafe(path)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"module": "os", "class_name": "system", "config": {}}, "the class os.system"),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, "keras.utils.get_file"),
        ({"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}}, "pickle"),
        ({"module": None, "class_name": "Own", "registered_name": "mine>Own", "config": {}}, "mine>Own"),
        ({"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "passwd"),
        ({"module": "kerasevil.layers", "class_name": "Dense", "config": {}}, "kerasevil"),
    ],
)
def test_what_could_run_code_in_a_configuration_is_named(config: Any, found: str, tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"module": "keras", "class_name": "Sequential", "config": [config]}))
    assert found in FORMATS["keras"].unsafe(path)


def test_a_configuration_that_is_no_json_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{")
    with pytest.raises(IntegrityError, match="not JSON"):
        FORMATS["keras"].unsafe(path)


def test_a_savedmodel_that_runs_python_or_reads_files_is_named(tmp_path: Path) -> None:
    class Reader(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((), tf.string, name="name")])
        def __call__(self, name: Any) -> Any:
            return tf.io.read_file(name), tf.numpy_function(lambda t: t, [name], tf.string)

    tf.saved_model.save(Reader(), str(tmp_path / "net"))
    told = FORMATS["savedmodel"].unsafe(tmp_path / "net")
    assert "ReadFile" in told
    assert "PyFunc" in told


def test_a_damaged_savedmodel_is_an_integrity_error(tmp_path: Path) -> None:
    path = written("savedmodel", tmp_path)
    (path / "saved_model.pb").write_bytes(b"\xff" * 40)
    with pytest.raises(IntegrityError, match="saved_model"):
        FORMATS["savedmodel"].unsafe(path)


@pytest.mark.parametrize("older", [False, True])
def test_weights_files_fit_another_instance_of_the_model(older: bool, tmp_path: Path) -> None:
    source = small()
    for variable in source.weights:
        variable.assign(np.random.default_rng(1).uniform(0.5, 1.5, variable.shape))
    path = written("weights.h5", tmp_path, source)
    if older:
        path = tmp_path / "old.h5"
        with h5py.File(written("h5", tmp_path, source), "r") as whole, h5py.File(path, "w") as file:
            for name, item in whole["model_weights"].items():
                whole["model_weights"].copy(item, file, name)
            file.attrs.update(dict(whole["model_weights"].attrs))
    read = FORMATS["weights.h5"].read_weights
    assert read is not None
    target = small()
    BACKEND.assign(target, read(path))
    np.testing.assert_allclose(outputs(target), outputs(source), rtol=1e-6)


def test_a_weights_file_of_another_model_changes_nothing(tmp_path: Path) -> None:
    x = keras.Input((3,))
    read = FORMATS["weights.h5"].read_weights
    assert read is not None
    arrays = read(written("weights.h5", tmp_path, keras.Model(x, layers.Dense(4)(layers.Dense(9)(x)))))
    target = small()
    before = [variable.numpy() for variable in target.weights]
    with pytest.raises(DataError, match="nothing was changed"):
        BACKEND.assign(target, arrays)
    for variable, array in zip(target.weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_weights_that_lie_in_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"0123456789abcdef")
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("vars/0", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
    read = FORMATS["weights.h5"].read_weights
    assert read is not None
    with pytest.raises(UntrustedFileError, match="another file"):
        read(path)


def test_a_module_is_not_written_as_a_keras_file(tmp_path: Path) -> None:
    write = FORMATS["keras"].write
    assert write is not None
    with pytest.raises(FormatError, match="SavedModel"):
        write(tf.Module(), tmp_path / "net.keras", None, None)


def test_a_model_with_a_layer_of_ours_is_safe_to_open(tmp_path: Path) -> None:
    import onnx_ir as ir

    import modelport as mp

    graph = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    pick (float[batch, 4] x, bool[batch] keep) => (float[kept, 4] y) { y = Compress <axis = 0> (x, keep) }""")
    moved = mp.transfer(ir.to_proto(graph), to="keras")
    assert [note.kind for note in moved.report.notes] == ["custom"]
    mp.save(moved, tmp_path / "pick.keras")
    x, keep = np.arange(8, dtype="float32").reshape(2, 4), np.array([False, True])
    np.testing.assert_array_equal(mp.load(tmp_path / "pick.keras")((x, keep)), x[1:])
