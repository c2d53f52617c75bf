"""Weights of recurrent layers in 8 bits: no kernel multiplies by them so, but they take a quarter of the bytes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from modelport.compression.quantize.floats import store_scaled
from modelport.compression.quantize.regions import holds_weight
from modelport.graph.named import Named
from modelport.graph.weights import RECURRENT, parts


def store_recurrent(model: ir.Model, excluded: Named) -> dict[str, str]:
    """Store the matrices of LSTM, GRU and RNN as int8 with a scale per row, in place.

    Returns:
        What is said of a layer whose weights were stored, by the name of its node.
    """
    told: dict[str, str] = {}
    for node in list(model.graph):
        if node.domain or node.op_type not in RECURRENT or excluded.node(node):
            continue
        for value in list(_matrices(node)):
            if not excluded.weight(value) and value.name in model.graph.initializers:
                store_scaled(model, value, len(value.shape or ()) - 2, ir.DataType.INT8)
                told[str(node.name)] = f"{node.op_type} computes in float32; its weights are stored in 8 bits"
    return told


def _matrices(node: ir.Node) -> Iterator[ir.Value]:
    """The weights that a layer multiplies inputs and states by, and that it alone reads."""
    for value in node.inputs[1:3]:
        for weight in parts(value):
            if holds_weight(weight) and len(weight.uses()) == 1:
                yield weight
