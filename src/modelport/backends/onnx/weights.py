"""Weights of a ModelProto, inside of it or in files beside it, without a copy."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from modelport.backends.onnx.held import held
from modelport.core.errors import DataError, IntegrityError
from modelport.graph.external import MappedFile, external_entries, map_file, mapped_tensor

FILES = "modelport.files"
"""The metadata entry that holds which files external data lies in: path -> inode, size and time of change."""

_BASE = "basepath"
"""onnx's own key of the directory that a location is relative to."""

_MAPPED: weakref.WeakValueDictionary[tuple[str, tuple[int, ...]], MappedFile] = weakref.WeakValueDictionary()


def refer(native: onnx.ModelProto, places: Mapping[str, tuple[MappedFile, int, int]]) -> None:
    """Point initializers to bytes of mapped files, which stay mapped while the model lives."""
    files: dict[str, MappedFile] = {str(file.path): file for file, _, _ in places.values()}
    for tensor in native.graph.initializer:
        if tensor.name in places:
            file, offset, length = places[tensor.name]
            _point(tensor, file.path, offset, length)
    for path, file in files.items():
        _MAPPED[path, file.identity] = file
    held(native).files.update(files)
    _write_identities(native, {**_identities(native), **{path: file.identity for path, file in files.items()}})


def _point(tensor: onnx.TensorProto, path: Path, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": path.name, "offset": str(offset), "length": str(length), _BASE: str(path.parent)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _identities(native: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    for entry in native.metadata_props:
        if entry.key == FILES:
            return {path: tuple(identity) for path, identity in json.loads(entry.value).items()}
    return {}


def _write_identities(native: onnx.ModelProto, identities: Mapping[str, tuple[int, ...]]) -> None:
    text = json.dumps({path: list(identity) for path, identity in identities.items()})
    for entry in native.metadata_props:
        if entry.key == FILES:
            entry.value = text
            return
    native.metadata_props.add(key=FILES, value=text)


def place_of(native: onnx.ModelProto, tensor: onnx.TensorProto) -> tuple[MappedFile, int, int]:
    """The mapped file, offset and length of an initializer's external data.

    Raises:
        DataError: the directory that the data is in is not known.
        IntegrityError: the file is gone, or another one has taken its place.
    """
    entries = external_entries(tensor)
    location, base = entries.get("location", ""), entries.get(_BASE, "")
    if not base:
        raise DataError(
            f"the data of {tensor.name!r} is in the file {location!r}, and the model does not say in which directory: "
            "pass the path of the .onnx file instead of the ModelProto, or load it with its data (onnx.load(path))."
        )
    path = os.path.join(base, location)
    file = _file(native, path)
    offset = int(entries.get("offset", 0))
    return file, offset, int(entries.get("length", len(file.data) - offset))


def _file(native: onnx.ModelProto, path: str) -> MappedFile:
    files = held(native).files
    if path in files:
        return files[path]
    known = _identities(native).get(path)
    file = None if known is None else _MAPPED.get((path, known))
    if file is None:
        file = map_file(Path(path))
        if known is not None and file.identity != known:
            raise IntegrityError(
                f"{path} is not the file any more that this model was opened from: load the model again, and keep it "
                "in memory as long as a copy of its ModelProto is used."
            )
        _MAPPED[path, file.identity] = file
    files[path] = file
    return file


def tensor_at(native: onnx.ModelProto, tensor: onnx.TensorProto) -> ir.TensorProtocol:
    """External data as a tensor that refers to the mapped file."""
    return mapped_tensor(*place_of(native, tensor), ir.DataType(tensor.data_type), list(tensor.dims), tensor.name)
