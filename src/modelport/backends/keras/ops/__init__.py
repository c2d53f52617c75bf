"""The operators of the normal form in Keras, grouped as the field groups them."""

from __future__ import annotations

from modelport.backends.keras.ops import (
    activation,
    attention,
    conv,
    dense,
    image,
    index,
    learn,
    logic,
    loss,
    math,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    sample,
    shape,
    signal,
)

__all__ = [
    "activation",
    "attention",
    "conv",
    "dense",
    "image",
    "index",
    "learn",
    "logic",
    "loss",
    "math",
    "norm",
    "pool",
    "quant",
    "recurrent",
    "reduce",
    "sample",
    "shape",
    "signal",
]
