"""How a loss depends on the weights of a graph, for the importance that a Taylor term says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.compression.data import observed
from modelport.core import registry
from modelport.core.backend import Trainer
from modelport.core.errors import DataError, MissingBackendError, StepError
from modelport.core.signature import Arrays
from modelport.graph.signature import read_signature

_TRAINERS = ("torch", "keras")


def gradients(graph: ir.Model, data: Any, backend: str) -> Arrays:
    """The gradient of the mean cross-entropy of the first output, by the portable name of the weight.

    Args:
        graph: its first output are logits, (rows, classes).
        data: `(x, y)`: inputs in any form that `predict` takes, and the classes of the rows as integers.
        backend: the one to ask; another one where it has no gradients.

    Raises:
        DataError: the inputs or the classes do not fit the graph.
        StepError: no backend that is installed has gradients.
    """
    trainer = _trainer(backend)
    signature = read_signature(graph)
    try:
        x, y = data
    except (TypeError, ValueError) as error:
        raise DataError("data of a step are a pair (x, y) of inputs and classes.") from error
    inputs, classes = observed(signature, x, what="training"), np.asarray(y)
    native = trainer.build(graph).native
    name = signature.outputs[0].name
    logits = trainer.run(native, inputs, signature)[name]
    rows = len(next(iter(inputs.values())))
    if classes.shape != (rows,) or classes.dtype.kind not in "iu":
        raise DataError(f"classes are {rows} integers, one per row, and not {classes.dtype} {classes.shape}.")
    if logits.ndim != 2 or classes.min() < 0 or classes.max() >= logits.shape[1]:
        raise DataError(f"classes 0 to {classes.max()} do not fit the output {name!r} {logits.shape}: (rows, classes).")
    return trainer.gradients(native, inputs, {name: _slope(logits, classes)}, signature)


def _slope(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The derivative of the mean cross-entropy: softmax less one at the class, over the rows (Bishop 2006, 4.108)."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    slope = powers / powers.sum(-1, keepdims=True)
    slope[np.arange(len(classes)), classes] -= 1
    return (slope / len(classes)).astype(logits.dtype)


def _trainer(backend: str) -> Any:
    for name in dict.fromkeys((backend, *_TRAINERS)):
        try:
            found = registry.backend(name)
        except MissingBackendError:
            continue
        if isinstance(found, Trainer):
            return found
    raise StepError('importance="taylor" needs gradients, and neither PyTorch nor Keras is installed.')
