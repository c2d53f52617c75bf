"""NumPy arrays as ONNX Runtime's values, and back."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime


def is_plain(dtype: str) -> bool:
    """Whether NumPy has a dtype itself; bfloat16, 8-bit floats and what is narrower than a byte are ml_dtypes'."""
    return dtype == "str" or "(" in dtype or np.dtype(dtype).isbuiltin != 2


def to_value(array: np.ndarray, dtype: int | None = None) -> Any:
    """An OrtValue in an array's own memory."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    if array.dtype.isbuiltin != 2:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    code = ir.DataType.from_numpy(array.dtype) if dtype is None else ir.DataType(dtype)
    bits = _packed(array, code) if code.bitwidth < 8 else array.view(np.dtype(f"uint{8 * array.itemsize}"))
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, int(code))


def _packed(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """The packed elements, in as many bytes as there are elements: the binding takes the shape from the bytes."""
    data = np.frombuffer(ir.Tensor(array, dtype).tobytes(), np.uint8)
    found = np.zeros(array.size, np.uint8)
    found[: data.size] = data
    return found.reshape(array.shape)


def to_array(value: Any) -> Any:
    """An OrtValue as an array; the bits of dtypes that ONNX Runtime cannot give to NumPy are copied out."""
    dtype = _ML_DTYPES.get(value.data_type())
    if dtype is None:
        return value.numpy()
    shape, size = tuple(value.shape()), -(-math.prod(value.shape()) * dtype.bitwidth // 8)
    data = np.frombuffer(bytearray(ctypes.string_at(value.data_ptr(), size) if size else b""), np.uint8)
    if dtype.bitwidth < 8:
        return ir.PackedTensor(data, dtype, shape=shape).numpy()
    return data.view(dtype.numpy()).reshape(shape)


_ML_DTYPES = {
    f"tensor({dtype.name.lower().replace('_', '')})": dtype
    for dtype in ir.DataType
    if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and np.dtype(dtype.numpy()).isbuiltin == 2
}
"""The dtypes that NumPy lacks, by ONNX Runtime's names of their tensors."""
