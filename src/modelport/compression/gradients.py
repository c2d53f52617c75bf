"""How a loss depends on the weights of a graph, for the importance that a Taylor term says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.core.progress import tracked
from modelport.core.signature import Arrays
from modelport.graph.signature import read_signature
from modelport.training.data import Data
from modelport.training.objective import giving, heads
from modelport.training.trainer import trainer

_ROWS = 32
"""Rows that are gone through at once."""


def gradients(graph: ir.Model, data: Any, backend: str) -> Arrays:
    """The gradient of the mean cross-entropy of the first output, by the portable name of the weight.

    Args:
        graph: in normal form; its first output are logits (rows, classes), or what a softmax makes of them.
        data: inputs and classes, as `FineTune` takes them.
        backend: the one to ask; another one where it has no gradients.

    Raises:
        DataError: the inputs or the classes do not fit the graph.
        StepError: no backend that is installed has gradients.
    """
    framework = trainer(backend, 'importance="taylor"')
    (head,) = heads(graph, "cross_entropy", "Prune")
    rows = Data(data, read_signature(graph), batch_size=_ROWS, what="Prune: data")
    part = giving(graph, [head.label])
    native, signature = framework.build(part).native, read_signature(part)
    total: Arrays = {}
    count = 0
    for batch in tracked(rows.in_order(), "gradients", unit="batch"):
        expected = head.expected(batch)
        logits = framework.run(native, batch.inputs, signature)[head.label]
        slope = _slope(logits, expected[head.output]) * expected[head.term().counted][..., np.newaxis]
        count += int(expected[head.term().counted].sum())
        found = framework.gradients(native, batch.inputs, {head.label: slope.astype(logits.dtype)}, signature)
        total = {name: total.get(name, 0) + array for name, array in found.items()}
    return {name: array / max(count, 1) for name, array in total.items()}


def _slope(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The derivative of the cross-entropy of each row: softmax less one at the class (Bishop 2006, 4.106)."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    slope = powers / powers.sum(-1, keepdims=True)
    np.put_along_axis(slope, classes[..., np.newaxis], np.take_along_axis(slope, classes[..., np.newaxis], -1) - 1, -1)
    return slope
