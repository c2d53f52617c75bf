"""What the operators ask of their tensors, which are Keras tensors or NumPy arrays: dtype, rank, sizes, casts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from modelport.backends.keras.ops.registry import CannotBuild, NeedsValues

# TensorFlow has few kernels for these, and Keras promotes some of them; arithmetic goes through int64, whose
# wrap-around agrees with theirs.
NARROW = frozenset({"int8", "int16", "uint8", "uint16", "uint32", "uint64"})

KERAS_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float32",
    18: "float32",
    19: "float32",
    20: "float32",
    21: "uint8",
    22: "int8",
    23: "float32",
    24: "float32",
    25: "uint8",
    26: "int8",
}
"""Keras' dtypes by the number that ONNX gives them; a type that Keras lacks is carried in a wider one (`narrow`)."""


def keras_dtype(number: int) -> str:
    """Keras' name of an ONNX element type.

    Raises:
        CannotBuild: Keras has no such dtype.
    """
    if int(number) not in KERAS_DTYPES:
        raise CannotBuild(f"Keras has no tensors of ONNX's element type {int(number)}; cast them in the source model")
    return KERAS_DTYPES[int(number)]


def dtype(x: Any) -> str:
    return str(keras.backend.standardize_dtype(x.dtype))


def is_float(x: Any) -> bool:
    return "float" in dtype(x)


def is_bool(x: Any) -> bool:
    return dtype(x) == "bool"


def rank(x: Any) -> int:
    return len(x.shape)


def sizes(x: Any) -> tuple[int | None, ...]:
    return tuple(x.shape)


def size(x: Any, axis: int) -> int:
    """One size, which must be static."""
    found = x.shape[axis]
    if found is None:
        raise NeedsValues(f"the size of axis {axis % rank(x)} is not static")
    return int(found)


def static(x: Any) -> tuple[int, ...]:
    """All sizes, which must be static."""
    return tuple(size(x, axis) for axis in range(rank(x)))


def inner_sizes(x: Any) -> tuple[int, ...]:
    """All sizes but that of the batch, which must be static."""
    return tuple(size(x, axis) for axis in range(1, rank(x)))


def cast(x: Any, to: str) -> Any:
    """A tensor in a dtype; itself where it has it."""
    if dtype(x) == to:
        return x
    return np.asarray(x).astype(to) if isinstance(x, np.ndarray) and to in np.sctypeDict else ops.cast(x, to)


def array(values: Any, to: str) -> np.ndarray:
    """A constant in a dtype by Keras' name."""
    return np.asarray(ops.convert_to_numpy(ops.convert_to_tensor(values, dtype=to)))


def wide(x: Any) -> Any:
    """A tensor in a dtype that has all kernels."""
    return cast(x, "int64") if dtype(x) in NARROW else x


def precise(x: Any) -> Any:
    """A tensor in at least single precision, as ONNX's reductions and normalisations compute."""
    return cast(x, "float32") if dtype(x) in ("float16", "bfloat16") else x


def positive(axis: int, count: int) -> int:
    """An axis counted from the front."""
    return axis + count if axis < 0 else axis


def channels_last(x: Any) -> Any:
    """(batch, channels, *spatial) -> (batch, *spatial, channels)."""
    count = rank(x)
    return x if count < 3 else ops.transpose(x, (0, *range(2, count), 1))


def channels_first(x: Any) -> Any:
    """(batch, *spatial, channels) -> (batch, channels, *spatial)."""
    count = rank(x)
    return x if count < 3 else ops.transpose(x, (0, count - 1, *range(1, count - 1)))


def along(values: Any, axis: int, count: int) -> Any:
    """A vector shaped so that it broadcasts along one axis of a tensor of `count` axes."""
    shape = [1] * count
    shape[axis] = -1
    return values.reshape(shape) if isinstance(values, np.ndarray) else ops.reshape(values, shape)


def zeros_along(x: Any, axis: int) -> Any:
    """Zeros (n,) of int64, as many as an axis is long."""
    others = tuple(i for i in range(rank(x)) if i != axis)
    if not others:
        return ops.zeros_like(x, dtype="int64")
    if all(sizes(x)[i] for i in others):
        return ops.zeros_like(x[tuple(slice(None) if i == axis else 0 for i in range(rank(x)))], dtype="int64")
    # A sum instead of a slice: another axis may be empty.
    return ops.sum(ops.zeros_like(x, dtype="int64"), axis=others)


def part(x: Any, axis: int, start: int | None, stop: int | None, step: int | None = None) -> Any:
    """A slice along one axis."""
    if (start or 0) == 0 and stop is None and step in (None, 1):
        return x
    return x[(*[slice(None)] * positive(axis, rank(x)), slice(start, stop, step))]


def plus(a: Any, b: Any) -> Any:
    """The sum, broadcast as NumPy does it.

    Keras' own `add` takes a second operand that has one axis longer than 1 for a bias, and adds it along the last axis
    whose size fits: `x (7, 7) + y (7, 1)` comes out wrong. Where that could happen the operands are swapped, or the
    negative is subtracted.
    """
    kinds = [dtype(x) for x in (a, b) if hasattr(x, "dtype")]
    if unsigned := [kind for kind in kinds if kind.startswith("uint")]:
        # There is no negative of them, and Keras takes uint64 for uint32.
        return cast(plus(*(wide(x) if hasattr(x, "dtype") else x for x in (a, b))), unsigned[0])
    for x, y in ((a, b), (b, a)):
        if _adds_plainly(getattr(x, "shape", ()), getattr(y, "shape", ())):
            return ops.add(x, y)
    return ops.subtract(a, ops.negative(b))


def zero_of(x: Any) -> Any:
    """A scalar 0 that depends on an input, so that Keras lets it into the model; an empty or NaN input gives it too."""
    flat = ops.reshape(x, (-1,))
    return ops.sum(ops.cast(flat[(slice(0, 0),)], "float32"))


def joined(parts: Sequence[Any], axis: int) -> Any:
    """The concatenation of tensors of one dtype."""
    if dtype(parts[0]) == "uint64":
        # Keras takes it for uint32 where it brings dtypes together.
        return cast(ops.concatenate([wide(x) for x in parts], axis=axis), "uint64")
    return ops.concatenate(list(parts), axis=axis)


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """Elements of one of two tensors of one dtype."""
    if dtype(a) == "uint64":
        # As in `joined`.
        return cast(ops.where(condition, wide(a), wide(b)), "uint64")
    return ops.where(condition, a, b)


def _adds_plainly(first: tuple[int | None, ...], second: tuple[int | None, ...]) -> bool:
    """Whether Keras' `add` broadcasts, whatever the sizes that are not static."""
    long = [n for n in second if n is not None and n > 1]
    if len(first) < 2 or len(long) > 1 or (not long and None not in second and 0 not in second):
        return True
    return 0 not in second and len(second) <= len(first) and (second[-1] or 0) > 1 and first[-1] == second[-1]
