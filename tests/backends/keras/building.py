"""Portable graphs from text, and what ONNX Runtime says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from modelport.graph.weights import Role, set_roles


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def proto(text: str, weights: Mapping[str, np.ndarray] | None = None, opset: int = 21) -> onnx.ModelProto:
    """A model whose graph is `text`, in ONNX's textual form; the weights are its initializers."""
    for name in weights or {}:
        text = re.sub(rf"(?<![\w.]){re.escape(name)}(?![\w.])", f'"{name}"', text)
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    model.graph.initializer.extend(tensors)
    return model


def portable(
    text: str, weights: Mapping[str, np.ndarray] | None = None, roles: Mapping[str, Role] | None = None
) -> ir.Model:
    """The graph as a builder takes it; without `roles` every weight is a parameter."""
    model = ir.serde.deserialize_model(proto(text, weights))
    set_roles(model, dict.fromkeys(weights or {}, "parameter") if roles is None else roles)
    return model


def expected(text: str, inputs: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray] | None = None) -> list[Any]:
    """The outputs of ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto(text, weights).SerializeToString(), options)
    return list(session.run(None, dict(inputs)))
