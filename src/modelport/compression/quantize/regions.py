"""Which nodes compute in 8 bits: those that hold weights, and among convolutions what lies between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from modelport.compression.exclude import Excluded

_LAYERS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators that multiply by a weight, and which input it is."""

_TABLES = "Gather"

_CARRY = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad",
    "Relu", "Reshape", "Resize", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that have 8-bit kernels, and are worth it where what they read is in 8 bits already."""

_SMALL_TABLE = 4096
"""Elements of a table that is not worth the rounding."""


@dataclass(frozen=True)
class Region:
    """Nodes that are quantized, and those with weights that are not.

    Attributes:
        nodes: the names of the quantized nodes.
        alone: why a node with weights stays in float, by its name.
    """

    nodes: tuple[str, ...]
    alone: dict[str, str]


def find_region(model: ir.Model, excluded: Excluded, *, whole: bool = True) -> Region:
    """The nodes of a graph in normal form that are computed in 8 bits.

    Layers with weights are. What lies between convolutions is too (residual sums, poolings, concatenations), so that
    the whole stretch stays in 8 bits; beside the matrix products of a transformer, sums and normalizations stay in
    float, where they cost nothing and round nothing.

    Args:
        model: the graph.
        excluded: the layers that stay in float.
        whole: whether the ranges of activations are known. Where each call has to measure them, only matrix products
            gain by it: convolutions on integers have no fast kernels that also measure.
    """
    quantized: dict[ir.Node, None] = {}
    spatial: set[ir.Node] = set()
    alone: dict[str, str] = {}
    for node in model.graph:
        reason = _refusal(node, excluded)
        if reason is None and not whole and node.op_type not in ("MatMul", "Gemm", _TABLES):
            reason = f"{node.op_type} needs calibration="
        if reason is None:
            quantized[node] = None
            if node.op_type in ("Conv", "ConvTranspose"):
                spatial.add(node)
        elif reason:
            alone[str(node.name)] = reason
        elif whole and _carries(node, spatial) and not _is_excluded(node, excluded):
            quantized[node] = None
            spatial.add(node)
    for node in _inner_nodes(model):
        if node.op_type in _LAYERS and _holds_weight(node):
            alone[str(node.name)] = f"{node.op_type} is inside a branch or a loop, which stay in float"
    return Region(tuple(str(node.name) for node in quantized), alone)


def _refusal(node: ir.Node, excluded: Excluded) -> str | None:
    """Why a node stays in float; `None` where it does not, empty where nobody would have thought it could."""
    if node.domain:
        return f"{node.domain}::{node.op_type} has no 8-bit form" if _reads_weights(node) else ""
    if node.op_type in _LAYERS:
        if not _holds_weight(node):
            return ""
        return "it is excluded" if _is_excluded(node, excluded) else None
    if node.op_type == _TABLES and _holds_weight(node, 0):
        table = node.inputs[0]
        assert table is not None
        assert table.const_value is not None
        if table.const_value.size < _SMALL_TABLE:
            return f"its table has {table.const_value.size} elements only"
        return "it is excluded" if _is_excluded(node, excluded) else None
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return f"{node.op_type} has no 8-bit kernel that reads quantized states"
    return ""


def _holds_weight(node: ir.Node, place: int | None = None) -> bool:
    value = node.inputs[_LAYERS[node.op_type] if place is None else place]
    return value is not None and holds_weight(value)


def holds_weight(value: ir.Value) -> bool:
    """Whether a value is a float32 constant of more than one axis."""
    tensor = value.const_value
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) > 1


def _reads_weights(node: ir.Node) -> bool:
    return any(
        value is not None and value.const_value is not None and value.const_value.size > 1 for value in node.inputs
    )


def _carries(node: ir.Node, spatial: Collection[ir.Node]) -> bool:
    if node.op_type not in _CARRY:
        return False
    makers = [value.producer() for value in node.inputs if value is not None and value.const_value is None]
    return bool(makers) and all(maker in spatial for maker in makers)


def _is_excluded(node: ir.Node, excluded: Excluded) -> bool:
    weights = [value for value in node.inputs if value is not None and value.const_value is not None]
    return excluded.node(node) or any(excluded.weight(value) for value in weights)


def _inner_nodes(model: ir.Model) -> Iterator[ir.Node]:
    outer = set(model.graph)
    return (node for node in model.graph.all_nodes() if node not in outer and not node.domain)
