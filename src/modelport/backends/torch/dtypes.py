"""ONNX element types as torch dtypes, and NumPy arrays as torch tensors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from modelport.backends.torch.registry import CannotBuild

_TORCH = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    ir.DataType.FLOAT8E8M0: torch.float8_e8m0fnu,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
}

NARROW = {
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
    ir.DataType.FLOAT4E2M1: torch.float32,
}
"""Types of less than a byte, and the dtypes that carry their values."""

_NARROW_NAMES = {np.dtype(dtype.numpy()).name: dtype for dtype in NARROW}

# torch stores these but has few kernels for them; arithmetic goes through int64.
STORAGE_ONLY = frozenset({torch.uint16, torch.uint32, torch.uint64})


def torch_dtype(dtype: ir.DataType | int) -> torch.dtype:
    """The torch dtype of an ONNX element type, or the one that carries its values.

    Raises:
        CannotBuild: torch has no such dtype (strings).
    """
    dtype = ir.DataType(dtype)
    if dtype in NARROW:
        return NARROW[dtype]
    if dtype not in _TORCH:
        raise CannotBuild(f"torch has no dtype for {dtype.name}; cast the values to another type in the source model")
    return _TORCH[dtype]


def from_numpy(array: np.ndarray) -> torch.Tensor:
    """A tensor over an array's own memory; a read-only or big-endian array is copied.

    Args:
        array: any shape; the dtypes of NumPy and of `ml_dtypes` that torch has too. What has less than a byte is copied
            into the dtype that carries it.

    Raises:
        CannotBuild: torch has no such dtype.
    """
    array = carried(array)
    dtype = torch_dtype(ir.DataType.from_numpy(array.dtype))
    if not array.flags.writeable or not array.flags.c_contiguous or array.dtype.byteorder == ">":
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
    if array.dtype.type.__module__ == "numpy":
        return torch.from_numpy(array)
    # A dtype of ml_dtypes: the bits are the same, only NumPy's name for them is foreign to torch.
    carrier = {1: np.uint8, 2: np.int16}[array.dtype.itemsize]
    return torch.from_numpy(array.view(carrier)).view(dtype)


def carried(array: np.ndarray) -> np.ndarray:
    """An array, in the dtype that carries it in torch where that is another one."""
    dtype = _NARROW_NAMES.get(array.dtype.name)
    return array if dtype is None else array.astype(str(NARROW[dtype]).removeprefix("torch."))


def narrowed(array: np.ndarray, name: str) -> np.ndarray:
    """What `carried` made of an array of the dtype with a name; others stay as they are."""
    dtype = _NARROW_NAMES.get(name)
    return array if dtype is None else array.astype(dtype.numpy())
