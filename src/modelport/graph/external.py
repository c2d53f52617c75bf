"""Weights that lie in files beside a program: mapped, never copied, and never outside the program's directory."""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from modelport.core.errors import IntegrityError, UntrustedFileError

_MAPPED = "modelport.mapped"


@dataclass(frozen=True, eq=False)
class MappedFile:
    """A file mapped into memory, read-only.

    The mapping holds the file's content even when the path is given to another file, as an atomic save does.

    Attributes:
        path: where the file was when it was mapped.
        identity: its inode, size and time of change; another file at the same path has another identity.
        data: its bytes.
    """

    path: Path
    identity: tuple[int, int, int]
    data: np.ndarray


def map_descriptor(descriptor: int, path: Path) -> MappedFile:
    """The regular file behind an open descriptor, mapped; the descriptor may be closed afterwards.

    Raises:
        IntegrityError: it is no regular file.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError(f"{path} is not a regular file: get the model again from its source.")
    identity = (status.st_ino, status.st_size, status.st_mtime_ns)
    if status.st_size == 0:
        return MappedFile(path, identity, np.empty(0, np.uint8))
    return MappedFile(path, identity, np.frombuffer(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ), np.uint8))


def map_file(path: Path) -> MappedFile:
    """The regular file at a path, mapped.

    Raises:
        IntegrityError: there is none.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be read ({error.strerror}): get the model again from its source."
        ) from error
    try:
        return map_descriptor(descriptor, path)
    finally:
        os.close(descriptor)


def mapped_tensor(
    file: MappedFile, offset: int, nbytes: int, dtype: ir.DataType, shape: Sequence[int], name: str
) -> ir.TensorProtocol:
    """The tensor at some bytes of a mapped file; nothing is copied.

    Raises:
        IntegrityError: the bytes are not in the file, or are not as many as dtype and shape need.
    """
    count = int(np.prod(shape, dtype=object)) if len(shape) else 1
    if nbytes != -(-count * dtype.bitwidth // 8) or not 0 <= offset <= offset + nbytes <= len(file.data):
        raise IntegrityError(
            f"{file.path} is truncated or altered: the tensor {name!r} ({dtype.name}{list(shape)}) lies at bytes "
            f"{offset} to {offset + nbytes} of {len(file.data)}. Get the model again from its source."
        )
    view = file.data[offset : offset + nbytes]
    tensor: Any
    if dtype.bitwidth < 8:
        tensor = ir.PackedTensor(view, dtype, shape=shape, name=name)
    else:
        tensor = ir.Tensor(view.view(dtype.numpy()).reshape(shape), dtype, shape=ir.Shape(shape), name=name)
    tensor.meta[_MAPPED] = (file, offset, nbytes)
    return tensor


def mapping_of(tensor: Any) -> tuple[MappedFile, int, int] | None:
    """The mapped file, offset and length of a tensor that `mapped_tensor` made; `None` for any other."""
    return tensor.meta.get(_MAPPED) if isinstance(tensor, (ir.Tensor, ir.PackedTensor)) else None


def contained(directory: Path, location: str, tensor: str) -> Path:
    """Where an external data location points to, which must be a file inside the program's own directory.

    Raises:
        UntrustedFileError: the location is absolute, goes up, or leaves the directory through a symbolic link.
    """
    parts = PurePosixPath(location).parts
    absolute = os.path.isabs(location) or PurePosixPath(location).is_absolute()
    if not parts or absolute or ".." in parts or "\\" in location or "\0" in location:
        raise UntrustedFileError(
            f"the tensor {tensor!r} takes its data from {location!r}, outside of the model's directory {directory}: "
            "a model that reads other files is refused. Get it from a source you trust, or save it in one piece."
        )
    inside = Path(os.path.realpath(directory))
    target = Path(os.path.realpath(inside / location))
    if not target.is_relative_to(inside):
        raise UntrustedFileError(
            f"the tensor {tensor!r} takes its data from {location!r}, a link to {target} outside of {directory}: a "
            "model that reads other files is refused. Put the file itself there."
        )
    return target


def companion_name(name: str, digest: str) -> str:
    """The name of a file of weights beside a program: one content, one name."""
    return f"{name}.{digest[:16]}.data"


def is_companion(candidate: str, name: str) -> bool:
    """Whether a file's name is one that `companion_name` gives for a program."""
    return re.fullmatch(re.escape(name) + r"\.[0-9a-f]{16}\.data", candidate) is not None


def external_entries(tensor: onnx.TensorProto) -> dict[str, str]:
    """The external data entries of a tensor by key; empty where its data is inside."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return {}
    return {entry.key: entry.value for entry in tensor.external_data}


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever it is: initializers, attributes, subgraphs, functions, training graphs."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (
        *attribute.sparse_tensors,
        *((attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()),
    ):
        yield from (sparse.values, sparse.indices)
    for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
        yield from _graph_tensors(graph)
