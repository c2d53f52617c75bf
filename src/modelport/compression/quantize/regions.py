"""Which nodes compute in 8 bits: those that hold weights, and among convolutions what lies between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from modelport.graph.named import Named

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose second input is a weight that they multiply by."""

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


def find_region(model: ir.Model, excluded: Named, *, whole: bool = True) -> Region:
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
        if reason is None and not whole and node.op_type not in ("MatMul", "Gemm", "Gather"):
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
        if node.op_type in _LAYERS and holds_weight(node.inputs[1]):
            alone[str(node.name)] = f"{node.op_type} is inside a branch or a loop, which stay in float"
    return Region(tuple(str(node.name) for node in quantized), alone)


def _refusal(node: ir.Node, excluded: Named) -> str | None:
    """Why a node stays in float; `None` where it does not, empty where nobody would have thought it could."""
    if node.domain:
        return f"{node.domain}::{node.op_type} has no 8-bit form" if _reads_weights(node) else ""
    if node.op_type in _LAYERS:
        if not holds_weight(node.inputs[1]):
            return ""
        return "it is excluded" if _is_excluded(node, excluded) else None
    table = node.inputs[0].const_value if node.op_type == "Gather" and holds_weight(node.inputs[0]) else None
    if table is not None:
        if table.size < _SMALL_TABLE:
            return f"its table has {table.size} elements only"
        return "it is excluded" if _is_excluded(node, excluded) else None
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return f"{node.op_type} has no 8-bit kernel that reads quantized states"
    return ""


def holds_weight(value: ir.Value | None) -> bool:
    """Whether a value is a float32 constant of more than one axis."""
    tensor = None if value is None else value.const_value
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


def _is_excluded(node: ir.Node, excluded: Named) -> bool:
    weights = [value for value in node.inputs if value is not None and value.const_value is not None]
    return excluded.node(node) or any(excluded.weight(value) for value in weights)


def _inner_nodes(model: ir.Model) -> Iterator[ir.Node]:
    outer = set(model.graph)
    return (node for node in model.graph.all_nodes() if node not in outer and not node.domain)
