"""Keras' and TensorFlow's own files: `.keras`, `.h5`, weights files, SavedModel directories.

Looking at a file (`is_*`, `unsafe_*`) runs nothing from it. Opening one may, where `unsafe_*` says so: whoever opens
has asked that first.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.backend import Opened
from modelport.core.errors import FormatError, IntegrityError, MissingBackendError, UntrustedFileError
from modelport.core.signature import Arrays, Signature, map_tree

_HDF5 = b"\x89HDF\r\n\x1a\n"


def is_keras(path: Path) -> bool:
    """Whether a file is a Keras archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"config.json", "metadata.json"} <= set(archive.namelist())


def is_h5(path: Path) -> bool:
    """Whether a file is a whole model in HDF5."""
    return _model_config(path) is not None


def is_weights(path: Path) -> bool:
    """Whether a file is HDF5 with weights and no model."""
    return _is_hdf5(path) and _model_config(path) is None


def is_savedmodel(path: Path) -> bool:
    """Whether a directory is a SavedModel."""
    return path.is_dir() and (path / "saved_model.pb").is_file()


def _is_hdf5(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5


def _model_config(path: Path) -> str | None:
    """The JSON of a whole model in HDF5."""
    if not _is_hdf5(path):
        return None
    import h5py

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    return config.decode() if isinstance(config, bytes) else config


def open_keras(path: Path) -> Opened:
    """Read a Keras archive; where nothing unsafe was found in it, with Keras' own safe mode on as well."""
    return _load(path, ".keras", safe_mode=not unsafe_keras(path))


def open_h5(path: Path) -> Opened:
    """Read a whole model from HDF5."""
    return _load(path, ".h5", safe_mode=not unsafe_h5(path))


def _load(path: Path, suffix: str, *, safe_mode: bool) -> Opened:
    import keras

    from modelport.backends.keras import runtime  # noqa: F401 (registers the layers of ours)
    from modelport.backends.keras.names import recursion

    # Keras goes by the suffix, which a caller's path need not have.
    with tempfile.TemporaryDirectory() as folder:
        named = path
        if path.suffix != suffix:
            named = Path(folder) / f"model{suffix}"
            named.symlink_to(path.resolve())
        # Keras walks a model recursively, from its outputs to its inputs.
        with recursion(2 * _layer_count(path)):
            return Opened(keras.models.load_model(named, compile=False, safe_mode=safe_mode))


def _layer_count(path: Path) -> int:
    """How many layers a file's model has, those of inner models too."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read("config.json").count(b'"class_name"')
    return (_model_config(path) or "").count('"class_name"')


def open_savedmodel(path: Path) -> Opened:
    """Read a SavedModel as a TensorFlow object; its functions are its graph, no Python of the writer's is in it."""
    import tensorflow as tf

    return Opened(tf.saved_model.load(str(path)))


def write_keras(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write a Keras archive.

    Raises:
        FormatError: the object is no Keras model.
    """
    _save(native, path, "model.keras")


def write_h5(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write a whole model as HDF5, Keras' older format.

    Raises:
        FormatError: the object is no Keras model.
    """
    _save(native, path, "model.h5")


def write_weights(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write the weights of a Keras model.

    Raises:
        FormatError: the object is no Keras model.
    """
    _save(native, path, "model.weights.h5")


def _save(native: Any, path: Path, name: str) -> None:
    import keras

    if not isinstance(native, keras.Model):
        raise FormatError(
            f"{type(native).__name__} is no keras.Model: save it as a SavedModel directory (format='savedmodel') or "
            "as .mport."
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / name
        native.save_weights(written) if name.endswith(".weights.h5") else native.save(written)
        shutil.move(written, path)


def write_savedmodel(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write a SavedModel whose serving function takes the signature's inputs."""
    import tensorflow as tf

    from modelport.backends.keras.structure import is_functional
    from modelport.backends.keras.structure import is_keras as is_keras_model

    if not is_keras_model(native):
        tf.saved_model.save(native, str(path))
        return
    if signature is None or is_functional(native):
        # Keras itself takes a scalar input for a vector.
        struct = map_tree(
            lambda x: tf.TensorSpec(x.shape, x.dtype, name=x.name), getattr(native, "_inputs_struct", None)
        )
        takes = {} if struct is None else {"input_signature": [struct]}
        native.export(str(path), format="tf_saved_model", verbose=False, **takes)
        return
    specs = {
        s.name: tf.TensorSpec([n if isinstance(n, int) else None for n in s.shape or ()], s.dtype, name=s.name)
        for s in signature.inputs
    }
    if signature.kwargs:
        raise FormatError("Keras exports no keyword inputs: save as .mport, .onnx or .keras.")
    trees = map_tree(lambda name: specs[name], tuple(signature.args or ()))
    native.export(str(path), format="tf_saved_model", verbose=False, input_signature=list(trees))


def read_weights(path: Path) -> Arrays:
    """Read a weights file.

    Returns:
        By dataset where Keras 3 wrote the file (`layers/dense/vars/0`), by variable path where it is older
        (`dense/kernel`): `assign` of this backend takes both kinds of names.

    Raises:
        IntegrityError: it holds no weights, or not those that it lists.
        UntrustedFileError: it reads other files.
    """
    import h5py

    with h5py.File(path, "r") as file:
        if "layer_names" not in file.attrs:
            arrays = _datasets(file, path)
        else:
            arrays = {}
            for layer in map(_text, file.attrs["layer_names"]):
                held = _datasets(file[layer], path)
                for name in map(_text, file[layer].attrs["weight_names"]):
                    if name not in held:
                        raise IntegrityError(f"{path.name} is damaged: it lists the weight {name!r} and has none.")
                    arrays[name.split(":")[0]] = held[name]
    if not arrays:
        raise IntegrityError(f"{path.name} holds no weights: save them again with model.save_weights.")
    return arrays


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _datasets(group: Any, path: Path) -> Arrays:
    """Every dataset under a group by its path in it; links are not followed."""
    found: Arrays = {}

    def collect(name: str, item: Any) -> None:
        if not hasattr(item, "shape"):
            return
        if item.external or item.is_virtual:
            raise UntrustedFileError(f"{path.name} reads the dataset {name!r} from another file: that is refused.")
        found[name] = np.asarray(item)

    group.visititems(collect)
    return found


def unsafe_keras(path: Path) -> str:
    """What in a Keras archive could run code when it is opened; empty where nothing can."""
    with zipfile.ZipFile(path) as archive:
        return _told(_findings(_parsed(archive.read("config.json"), path)))


def unsafe_h5(path: Path) -> str:
    """What in a whole model in HDF5 could run code when it is opened; empty where nothing can."""
    return _told(_findings(_parsed(_model_config(path) or "{}", path)))


def _parsed(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise IntegrityError(f"{path.name} is damaged: its model configuration is not JSON ({error}).") from error


def _told(findings: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(findings))


_RUNS_CODE = {
    "Lambda": "a Lambda layer, which holds Python code",
    "__lambda__": "a Python function as marshalled bytecode",
    "TorchModuleWrapper": "a TorchModuleWrapper, which holds a pickle",
    "TFSMLayer": "a TFSMLayer, which opens a SavedModel from a path of its own",
    "JaxLayer": "a JaxLayer, which holds a function",
    "FlaxLayer": "a FlaxLayer, which holds a module",
}

_FUNCTIONS = re.compile(r"keras(\.src)?\.(activations|losses|metrics|initializers|regularizers|constraints|ops)\b.*")

_PATHS = ("vocabulary", "filepath")
"""Settings that Keras takes for a file to read where they are a string."""


_OWN = ("modelport.backends.keras.runtime", ("OnnxGraph", "OnnxModel"))
"""What computes an ONNX graph itself: its configuration is data, the operators are those of this package."""


def _findings(config: Any) -> Iterator[str]:
    """What could run code or read files, in a configuration and everything inside it."""
    if isinstance(config, Mapping):
        yield from _finding(config)
        for value in config.values():
            yield from _findings(value)
    elif isinstance(config, list):
        for value in config:
            yield from _findings(value)


def _finding(config: Mapping[str, Any]) -> Iterator[str]:
    kind, module = str(config.get("class_name", "")), config.get("module")
    if module == _OWN[0] and kind in _OWN[1]:
        return
    if kind in _RUNS_CODE:
        yield _RUNS_CODE[kind]
    elif config.get("function_type") == "lambda":
        yield _RUNS_CODE["__lambda__"]
    elif kind == "function" and not _FUNCTIONS.fullmatch(str(module)):
        yield f"the function {module}.{config.get('config')}"
    elif module is not None and not re.fullmatch(r"keras(\..*)?", str(module)):
        yield f"the class {module}.{kind}, which is not Keras' own"
    elif str(config.get("registered_name") or "").find(">") > 0 and kind:
        yield f"the registered class {config['registered_name']}, which is not Keras' own"
    yield from (
        f"a {name} that is read from the file {config[name]!r}" for name in _PATHS if isinstance(config.get(name), str)
    )


_TOUCHES_FILES = frozenset(
    (
        "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2", "TextLineReader",
        "TextLineReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "TFRecordReader",
        "TFRecordReaderV2", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset",
        "FixedLengthRecordDatasetV2", "LMDBDataset", "SqlDataset", "SaveDataset", "SaveDatasetV2", "LoadDataset",
        "DatasetToTFRecord", "CacheDataset", "CacheDatasetV2", "SnapshotDataset", "SnapshotDatasetV2",
        "InitializeTableFromTextFile", "Save", "SaveSlices", "Restore", "RestoreSlice", "FileSystemSetConfiguration",
        "DumpTensor", "DebugIdentity", "DebugIdentityV2", "CreateSummaryFileWriter",
    )
)  # fmt: skip
_RUNS_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "NumPyFunction"})
_CALLS_OUT = frozenset({"RemoteCall", "RpcCall", "RpcClient", "RpcServer"})


def unsafe_savedmodel(path: Path) -> str:
    """Which ops of a SavedModel could run Python, touch files or come from a library of their own; empty for none.

    Raises:
        MissingBackendError: TensorFlow, which knows the file's structure, is not installed.
        IntegrityError: the file is damaged.
    """
    if find_spec("tensorflow") is None:
        raise MissingBackendError('a SavedModel needs tensorflow: pip install "modelport[keras]"')
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise IntegrityError(f"{path.name} is damaged: saved_model.pb cannot be read ({error}).") from error
    found: dict[str, None] = {}
    for meta in message.meta_graphs:
        nodes = [*meta.graph_def.node, *(n for f in meta.graph_def.library.function for n in f.node_def)]
        functions = {f.signature.name for f in meta.graph_def.library.function}
        for op in sorted({node.op for node in nodes} - functions):
            if op in _RUNS_PYTHON:
                found[f"the op {op}, which runs Python"] = None
            elif op in _TOUCHES_FILES:
                found[f"the op {op}, which reads or writes files"] = None
            elif op in _CALLS_OUT:
                found[f"the op {op}, which calls another machine"] = None
            elif op_def_registry.get(op) is None:
                found[f"the op {op}, which is not TensorFlow's own"] = None
    return ", ".join(found)
