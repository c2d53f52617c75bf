"""Weights in safetensors files: written from memory as it lies there, read by memory map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.core.errors import DataError, IntegrityError
from modelport.core.signature import Arrays
from modelport.graph.external import MappedFile, map_file, mapped_tensor

_NAMES = {
    "BOOL": ir.DataType.BOOL,
    "U8": ir.DataType.UINT8,
    "I8": ir.DataType.INT8,
    "U16": ir.DataType.UINT16,
    "I16": ir.DataType.INT16,
    "U32": ir.DataType.UINT32,
    "I32": ir.DataType.INT32,
    "U64": ir.DataType.UINT64,
    "I64": ir.DataType.INT64,
    "F8_E5M2": ir.DataType.FLOAT8E5M2,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
    "F8_E5M2FNUZ": ir.DataType.FLOAT8E5M2FNUZ,
    "F8_E4M3FNUZ": ir.DataType.FLOAT8E4M3FNUZ,
    "F8_E8M0": ir.DataType.FLOAT8E8M0,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F32": ir.DataType.FLOAT,
    "F64": ir.DataType.DOUBLE,
    "C64": ir.DataType.COMPLEX64,
}
_CODES = {dtype: code for code, dtype in _NAMES.items()}
_HEADER_LIMIT = 100_000_000
"""The longest header that the safetensors format allows, in bytes."""


def write_weights(path: Path, tensors: Mapping[str, ir.TensorProtocol]) -> dict[str, tuple[int, int]]:
    """Write tensors to a safetensors file, each straight from where it lies.

    Tensors narrower than a byte (int4, …), which the format lacks, are written as their packed bytes.

    Args:
        path: the file to write.
        tensors: the tensors by name.

    Returns:
        Offset in the file and length in bytes of every tensor.

    Raises:
        DataError: a tensor has a dtype that the format cannot hold.
    """
    layout = _layout(tensors)
    header = json.dumps({"__metadata__": {"format": "pt"}, **layout}, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % 64)
    start = 8 + len(header)
    with path.open("xb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in layout:
            file.write(_bytes(tensors[name]))
    return {
        name: (start + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in layout.items()
    }


def _layout(tensors: Mapping[str, ir.TensorProtocol]) -> dict[str, dict[str, Any]]:
    """Header entries, the widest dtypes first, so that every tensor is aligned without gaps, which are forbidden."""
    layout: dict[str, dict[str, Any]] = {}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-_width(item[1]), item[0])):
        code = "U8" if tensor.dtype.bitwidth < 8 else _CODES.get(tensor.dtype)
        if code is None:
            raise DataError(f"the weight {name!r} has dtype {tensor.dtype.name}, which safetensors cannot hold.")
        shape = [tensor.nbytes] if tensor.dtype.bitwidth < 8 else [int(size) for size in tensor.shape.numpy()]
        layout[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    return layout


def _width(tensor: ir.TensorProtocol) -> int:
    return max(int(tensor.dtype.bitwidth), 8)


def _bytes(tensor: ir.TensorProtocol) -> Any:
    if tensor.dtype.bitwidth < 8:
        return tensor.tobytes()
    array = np.ascontiguousarray(tensor.numpy())
    return array.reshape(-1).view(np.uint8).data


def read_weights(file: MappedFile) -> dict[str, ir.TensorProtocol]:
    """The tensors of a mapped safetensors file by name; they refer to the mapping and copy nothing.

    Raises:
        IntegrityError: the file is not a safetensors file, or is damaged.
    """
    header, start = _header(file)
    tensors: dict[str, ir.TensorProtocol] = {}
    end = 0
    entries = sorted(header.items(), key=lambda item: _field(file, item[0], item[1], "data_offsets", 2))
    for name, entry in entries:
        dtype = _NAMES.get(entry.get("dtype"))
        if dtype is None:
            raise IntegrityError(f"{file.path}: the weight {name!r} has the unknown dtype {entry.get('dtype')!r}.")
        first, last = _field(file, name, entry, "data_offsets", 2)
        if first != end:
            raise IntegrityError(f"{file.path}: the weights overlap or leave gaps at {name!r}. Save the model again.")
        end = last
        tensors[name] = mapped_tensor(
            file, start + first, last - first, dtype, _field(file, name, entry, "shape"), name
        )
    if start + end != len(file.data):
        raise IntegrityError(
            f"{file.path} has {len(file.data)} bytes, its header describes {start + end}: it is truncated or altered. "
            "Get it again from its source."
        )
    return tensors


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.data[:8].tobytes(), "little")
    if len(file.data) < 8 or not 2 <= length <= min(_HEADER_LIMIT, len(file.data) - 8):
        raise IntegrityError(f"{file.path} is not a safetensors file, or is truncated. Get it again from its source.")
    try:
        header = json.loads(file.data[8 : 8 + length].tobytes())
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{file.path}: the header is damaged ({error}). Get it again from its source.") from error
    if not isinstance(header, dict):
        raise IntegrityError(f"{file.path}: the header is no table of weights. Get it again from its source.")
    header.pop("__metadata__", None)
    return header, 8 + length


def _field(file: MappedFile, name: str, entry: Any, key: str, length: int | None = None) -> list[int]:
    """A list of sizes in a header entry."""
    value = entry.get(key) if isinstance(entry, dict) else None
    sizes = isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)
    if not sizes or (length is not None and len(value) != length):  # type: ignore[arg-type]
        raise IntegrityError(f"{file.path}: the header says {value!r} for {key} of {name!r}. Save the model again.")
    return value  # type: ignore[return-value]


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a `.safetensors` file under their names.

    Raises:
        DataError: an array has a dtype that the format cannot hold.
    """
    tensors: dict[str, ir.TensorProtocol] = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        try:
            tensors[name] = ir.Tensor(array, ir.DataType.from_numpy(array.dtype), name=name)
        except TypeError as error:
            raise DataError(f"the weight {name!r} has dtype {array.dtype}, which safetensors cannot hold.") from error
    write_weights(path, tensors)


def read_arrays(path: Path) -> Arrays:
    """The arrays of a `.safetensors` file by name, read-only and mapped.

    Raises:
        IntegrityError: the file is damaged.
    """
    return {name: tensor.numpy() for name, tensor in read_weights(map_file(path)).items()}


def looks_like_weights(path: Path) -> bool:
    """Whether a file begins as a safetensors file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and int.from_bytes(head[:8], "little") <= _HEADER_LIMIT and head[8:] == b"{"
