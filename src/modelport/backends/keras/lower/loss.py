"""Losses, and quantization that is simulated for training."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op


@op("SoftmaxCrossEntropyWithLogits")
def cross_entropy(g: Context, logits: ir.Value, labels: ir.Value) -> list[ir.Value]:
    """The loss of each row, and its gradient by the logits."""
    terms = g("Mul", labels, g("LogSoftmax", logits, axis=-1))
    return [g("Neg", g("ReduceSum", terms, [-1], keepdims=0)), g("Sub", g("Softmax", logits, axis=-1), labels)]


@op("SparseSoftmaxCrossEntropyWithLogits")
def sparse_cross_entropy(g: Context, logits: ir.Value, labels: ir.Value) -> list[ir.Value]:
    """The same for rows whose label is one class."""
    shape = g.shape(0)
    if shape is None or shape[-1] is None:
        raise g.fail("the number of classes is not known")
    places = g("Unsqueeze", g.int64(labels), [-1])
    found = g("GatherElements", g("LogSoftmax", logits, axis=-1), places, axis=-1)
    one_hot = g("Cast", g("Equal", places, np.arange(shape[-1])), to=g.dtype(0).value)
    return [g("Neg", g("Squeeze", found, [-1])), g("Sub", g("Softmax", logits, axis=-1), one_hot)]


@op("FakeQuantWithMinMaxArgs")
def fake_quantized(g: Context, x: ir.Value) -> ir.Value:
    low, high = (np.asarray(g.attr(name), np.float32) for name in ("min", "max"))
    return _simulated(g, x, g.operand(low), g.operand(high))


@op("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def fake_quantized_between(g: Context, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    return _simulated(g, x, low, high)


def _simulated(g: Context, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """The range is moved so that zero is one of the steps, as TensorFlow's op says."""
    bits, first = int(g.attr("num_bits")), int(bool(g.attr("narrow_range")))
    last = float(2**bits - 1)
    scale = g("Div", g("Sub", high, low), last - first)
    zero = g("Sub", float(first), g("Div", low, scale))
    zero = g("Clip", g("Floor", g("Add", zero, 0.5)), np.float32(first), np.float32(last))
    lowest, highest = (g("Mul", g("Sub", edge, zero), scale) for edge in (float(first), last))
    inside = g("Min", g("Max", x, lowest), highest)
    steps = g("Floor", g("Add", g("Div", g("Sub", inside, lowest), scale), 0.5))
    return g("Add", g("Mul", steps, scale), lowest)
