"""Values on their way into TensorFlow and back: strings, sequences, optionals, and types that TensorFlow lacks."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401 (gives NumPy the names of the narrow types)
import numpy as np
import tensorflow as tf

_CARRIERS = {
    **dict.fromkeys(("int4", "int2"), "int8"),
    **dict.fromkeys(("uint4", "uint2"), "uint8"),
    **dict.fromkeys(("float4_e2m1fn", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), "float32"),
    "float8_e8m0fnu": "float32",
}
"""The dtype that carries a narrow type, by NumPy's names."""


def carrier_array(array: np.ndarray) -> np.ndarray:
    """An array of a narrow type in the dtype that carries it; any other as it is."""
    wide = _CARRIERS.get(array.dtype.name)
    return array if wide is None else array.astype(wide)


def to_tensor(value: Any) -> Any:
    """An array as a tensor; a sequence as a list of them, an empty optional as `None`."""
    if value is None or isinstance(value, (list, tuple)):
        return None if value is None else [to_tensor(item) for item in value]
    return tf.convert_to_tensor(carrier_array(np.asarray(value)))


def plain_array(value: Any) -> np.ndarray:
    """An eager tensor as an array; of a scalar of bfloat16 TensorFlow lets NumPy have no array."""
    return np.asarray(value.numpy() if tf.is_tensor(value) else value)


def to_array(value: Any, dtype: str = "") -> Any:
    """What `to_tensor` was given: strings as Python objects, narrow types in their own dtype.

    Args:
        value: a tensor, or a list of them, or `None`.
        dtype: NumPy's name of the dtype, `"str"` for strings; needed for narrow types alone.
    """
    if value is None or isinstance(value, (list, tuple)):
        return None if value is None else [to_array(item, dtype) for item in value]
    array = plain_array(value)
    if array.dtype.kind in "OSU":
        texts = np.empty(array.shape, object)
        texts.reshape(-1)[:] = [item.decode() if isinstance(item, bytes) else item for item in array.ravel()]
        return texts
    return array.astype(dtype) if dtype in _CARRIERS else array
