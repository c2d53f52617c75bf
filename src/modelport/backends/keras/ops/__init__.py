"""The operators of the normal form in Keras, grouped as the field groups them."""

from __future__ import annotations

from modelport.backends.keras.ops import (
    activation,
    conv,
    dense,
    index,
    logic,
    loss,
    math,
    norm,
    pool,
    quant,
    reduce,
    shape,
    signal,
)
from modelport.backends.keras.ops.registry import support

__all__ = [
    "activation",
    "conv",
    "dense",
    "index",
    "logic",
    "loss",
    "math",
    "norm",
    "pool",
    "quant",
    "reduce",
    "shape",
    "signal",
    "support",
]
