"""Weights and constants that no layer absorbs, as layers of Keras that only carry them."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

import keras
import numpy as np
from keras import ops

from modelport.backends.keras.layers import has_signed_bytes
from modelport.backends.keras.ops.tensors import NARROW, cast, dtype, plus

INLINE = 512
"""Constants of up to this many elements stand in the model's configuration; larger ones are weights."""


_LETTERS = {
    (False, False): ("a", "b"),
    (False, True): ("c", "d"),
    (True, False): ("y", "z"),
    (True, True): ("w", "x"),
}
"""The first letters of the equation, by whether it carries a constant and whether its bytes are signed."""


def carrier(shape: tuple[int, ...], name: str, kind: str, *, constant: bool = False) -> keras.layers.Layer:
    """The layer that `carry` makes, before its first call; its kernel is (1, *shape), what `stored` gives."""
    axes, is_signed = ascii_uppercase[: len(shape)], kind == "int8"
    row, one = _LETTERS[constant, is_signed]
    # Keras takes the dtype int8 for a way of quantization. A layer of uint8 holds the same bits.
    return keras.layers.EinsumDense(
        f"{row}{one},{one}{axes}->{row}{axes}",
        output_shape=shape,
        name=name,
        dtype="uint8" if is_signed else kind,
        kernel_initializer="zeros",
    )


def stored(array: np.ndarray) -> np.ndarray:
    """An array as the kernel of its carrier."""
    return (array.view(np.uint8) if array.dtype == np.int8 else array)[None]


def carried(layer: keras.layers.Layer, one: Any, shape: tuple[int, ...]) -> Any:
    """What a carrier holds, as a tensor of a shape; `one` is a 1 of the shape (1, 1) in the layer's dtype."""
    held = layer(one)
    return ops.reshape(ops.view(held, "int8") if has_signed_bytes(layer.equation) else held, shape)


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
    one = ops.reshape(plus(cast(zero, layer.compute_dtype), 1), (1, 1))
    return layer, carried(layer, one, array.shape)


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
    return "float32" if kind == "bool" or (kind in NARROW and kind not in ("int8", "uint8")) else kind
