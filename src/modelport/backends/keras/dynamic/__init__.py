"""ONNX on TensorFlow's tensors, node by node: for what a functional model cannot hold.

That is operators whose sizes only the run tells, control flow, sequences, optionals and strings. It runs eagerly and
inside `tf.function`, and gradients pass.
"""

from __future__ import annotations

from modelport.backends.keras.dynamic import (
    chance,
    control,
    image,
    index,
    learn,
    pool,
    reduce,
    sequences,
    shape,
    signal,
    text,
)

__all__ = ["chance", "control", "image", "index", "learn", "pool", "reduce", "sequences", "shape", "signal", "text"]
