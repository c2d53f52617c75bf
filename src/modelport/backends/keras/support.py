"""How `build` would realise an operator, before there is a graph."""

from __future__ import annotations

import onnx

from modelport.backends.keras import dynamic, ops  # noqa: F401 (fill the tables)
from modelport.backends.keras.dynamic.table import DYNAMIC
from modelport.backends.keras.ops.registry import OPS
from modelport.core.backend import Support


def support(op_type: str, domain: str = "", *, text: bool = False) -> Support:
    """Whether Keras has an operator of the normal form, or TensorFlow in a layer of ours, or the host computes it.

    Keras computes with no strings, and TensorFlow does.
    """
    if (domain, op_type) in OPS and not text:
        return "native"
    if (domain, op_type) in DYNAMIC:
        return "custom"
    return "fallback" if onnx.defs.has(op_type, domain) else "unsupported"
