"""Weights and constants that no layer absorbs, as layers of Keras that only carry them."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

import keras
import numpy as np
from keras import ops

from modelport.backends.keras.ops.tensors import NARROW, cast, dtype, plus

INLINE = 512
"""Constants of up to this many elements stand in the model's configuration; larger ones are weights."""


def carrier(shape: tuple[int, ...], name: str, kind: str, *, constant: bool = False) -> keras.layers.Layer:
    """The layer that `carry` makes, before its first call; its kernel is (1, *shape)."""
    axes = ascii_uppercase[: len(shape)]
    equation = f"yz,z{axes}->y{axes}" if constant else f"ab,b{axes}->a{axes}"
    return keras.layers.EinsumDense(equation, output_shape=shape, name=name, dtype=kind, kernel_initializer="zeros")


def carry(zero: Any, array: np.ndarray, name: str, kind: str, *, constant: bool = False) -> tuple[Any, Any]:
    """A layer that holds an array, and its value as a tensor.

    A Dense layer over a one: `EinsumDense` trains, saves and loads as every layer of Keras.

    Args:
        zero: the scalar of `zero_of`.
        array: any shape of up to 24 axes.
        name: of the layer.
        kind: Keras' name of the dtype.
        constant: whether it is no weight; the letters of the equation tell the two apart.
    """
    layer = carrier(array.shape, name, kind, constant=constant)
    one = ops.reshape(plus(cast(zero, kind), 1), (1, 1))
    return layer, ops.reshape(layer(one), array.shape)


def as_tensor(zero: Any, array: np.ndarray) -> Any:
    """A small or uniform constant as a tensor that stands in the configuration."""
    kind = dtype(array)
    if array.size > INLINE:
        return ops.broadcast_to(as_tensor(zero, array.reshape(-1)[0]), array.shape)
    if kind == "bool":
        return ops.logical_or(cast(zero, "bool"), array)
    return plus(cast(zero, kind), array)


def is_inline(array: np.ndarray) -> bool:
    """Whether a constant needs no layer: it is small, or all its elements are the same."""
    return array.size <= INLINE or bool((array == array.reshape(-1)[0]).all())


def carried_dtype(array: np.ndarray) -> str:
    """The dtype in which a layer holds a constant: what einsum can multiply, and exactly."""
    kind = dtype(array)
    if kind in ("uint32", "uint64"):
        return "int64"
    return "float32" if kind == "bool" or kind in NARROW else kind
