"""`.onnx` files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from modelport.backends.onnx.export import as_graph, export
from modelport.backends.onnx.export import signature as signature_of
from modelport.backends.onnx.weights import FILES, refer
from modelport.core.backend import Opened
from modelport.core.errors import DataError, IntegrityError
from modelport.core.signature import Signature
from modelport.graph.external import (
    MappedFile,
    all_tensors,
    companion_name,
    contained,
    external_entries,
    map_file,
    mapped_tensor,
)
from modelport.graph.proto import parse, to_graph

_INSIDE_LIMIT = 1_900_000_000
"""How many bytes of weights a file holds inside; protobuf ends at 2 GB."""

_SMALL = 1 << 10
_ALIGNMENT = 4096


def detect(path: Path) -> bool:
    """Whether a file is an ONNX model, as far as its bytes tell without a parse of all of it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(16)
    # Field 1 (ir_version) as a varint comes first in what every writer makes; ModelProto has no magic number.
    return len(head) > 2 and head[0] == 0x08 and head[1] < 0x20 and head[2] & 0x07 in (0, 2)


def open_file(path: Path) -> Opened:
    """The model in a `.onnx` file; external data beside it is mapped.

    Raises:
        IntegrityError: the file is no ONNX model, or is damaged.
        UntrustedFileError: its external data is outside of its directory.
    """
    native = parse(map_file(path))
    _drop_metadata(native)
    _map_external(native, path)
    to_graph(native, path)
    return Opened(native, signature_of(native))


def _drop_metadata(native: onnx.ModelProto) -> None:
    """What is ours and only means something in this process must not come from a file."""
    kept = [entry for entry in native.metadata_props if entry.key != FILES]
    del native.metadata_props[:]
    native.metadata_props.extend(kept)


def _map_external(native: onnx.ModelProto, path: Path) -> None:
    external = [tensor for tensor in all_tensors(native) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    files: dict[Path, MappedFile] = {}
    places: dict[str, tuple[MappedFile, int, int]] = {}
    weights = {tensor.name for tensor in native.graph.initializer}
    for tensor in external:
        target = contained(path.parent, external_entries(tensor).get("location", ""), tensor.name)
        file = files[target] if target in files else files.setdefault(target, map_file(target))
        offset, length = _range(tensor, file)
        inside = mapped_tensor(file, offset, length, ir.DataType(tensor.data_type), list(tensor.dims), tensor.name)
        if tensor.name in weights and tensor.name not in places:
            places[tensor.name] = (file, offset, length)
        else:
            data = inside.tobytes()
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims))
            tensor.raw_data = data
    if places:
        refer(native, places)


def _range(tensor: onnx.TensorProto, file: MappedFile) -> tuple[int, int]:
    entries = external_entries(tensor)
    try:
        offset = int(entries.get("offset", 0))
        return offset, int(entries.get("length", len(file.data) - offset))
    except ValueError as error:
        raise IntegrityError(f"the tensor {tensor.name!r} has the external data {entries}: no numbers.") from error


def write_file(native: Any, path: Path, signature: Signature | None) -> None:
    """Write a model to a `.onnx` file.

    Weights are inside the file; where they are more than protobuf can hold, they are in a file of their own beside it,
    whose name tells its content, so that a file and its weights always fit.

    Raises:
        DataError: the program without its weights is larger than 2 GB.
    """
    graph = as_graph(native) if signature is None else export(native, signature).graph
    weights = {name: value.const_value for name, value in graph.graph.initializers.items()}
    sizes = {name: tensor.nbytes for name, tensor in weights.items() if tensor is not None}
    if sum(sizes.values()) > _INSIDE_LIMIT:
        _write_beside(graph, path)
    try:
        path.write_bytes(ir.to_proto(graph).SerializeToString())
    except ValueError as error:
        raise DataError(f"{path.name}: the program without its weights is too large for ONNX's 2 GB.") from error


def _write_beside(graph: ir.Model, path: Path) -> None:
    draft, digest = path.with_name(f"{path.name}.data"), hashlib.sha256()
    places: dict[str, tuple[int, int]] = {}
    with draft.open("xb") as file:
        for name, value in graph.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < _SMALL:
                continue
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            data = tensor.tobytes()
            places[name] = (file.tell(), len(data))
            file.write(data)
            digest.update(data)
    location = companion_name(path.name, digest.hexdigest())
    os.rename(draft, path.with_name(location))
    for name, (offset, length) in places.items():
        value = graph.graph.initializers[name]
        old = value.const_value
        value.const_value = ir.ExternalTensor(location, offset, length, old.dtype, shape=old.shape, name=name)
