"""The oracle of the export tests: ONNX Runtime on the portable graph against Keras itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from modelport.backends.keras import BACKEND
from modelport.core.backend import Exported
from modelport.core.signature import Arrays, Signature


def exported(model: Any, example: Any = None) -> tuple[Exported, Signature, Arrays]:
    """A model's export, its signature and an example by input name."""
    signature = BACKEND.signature(model, example)
    arrays = signature.draw({}) if example is None else BACKEND.flatten(model, example, signature)
    return BACKEND.export(model, arrays, signature), signature, arrays


def error(model: Any, example: Any = None, *, batches: tuple[int, ...] = (1, 2, 7)) -> float:
    """The largest relative error of any output at some batch sizes; shapes and dtypes must be equal."""
    result, signature, arrays = exported(model, example)
    proto = ir.serde.serialize_model(result.graph)
    onnx.checker.check_model(proto, full_check=True)
    assert {(entry.domain, entry.version) for entry in proto.opset_import} <= {("", 21), ("ai.onnx.ml", 3)}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    assert names == [spec.name for spec in signature.outputs]
    worst = 0.0
    for batch in batches:
        inputs = signature.draw({**signature.sizes(arrays), "batch": batch}, like=arrays, seed=batch)
        expected = BACKEND.run(model, inputs, signature)
        found = dict(zip(names, session.run(None, inputs), strict=True))
        worst = max(worst, *(_difference(expected[name], found[name]) for name in names))
    return worst


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    assert (expected.shape, expected.dtype) == (found.shape, found.dtype)
    if expected.dtype.kind in "biu":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(expected.astype("float64") - found).max(initial=0.0)) / scale


def operators(model: Any, example: Any = None) -> Counter[str]:
    """How many nodes of each operator the export has."""
    return Counter(node.op_type for node in exported(model, example)[0].graph.graph)
