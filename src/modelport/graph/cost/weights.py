"""Which node a weight belongs to, what a weight counts, and which layer a node belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from modelport.graph.chance import RANDOM
from modelport.graph.names import scoped, split_name
from modelport.graph.subgraphs import captured, subgraphs
from modelport.graph.weights import roles, set_roles

_PACKED = frozenset(
    dtype for dtype in ir.DataType if dtype.name.startswith(("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"))
) | frozenset(dtype for dtype in ir.DataType if dtype.name.startswith(("FLOAT8", "FLOAT6", "FLOAT4")))

_SCALES = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "MatMulInteger": (2, 3),
    "ConvInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "MatMulNBits": (2, 3, 4),
}
"""Inputs that say in which steps a quantized tensor counts, by operator."""

_BIASES = {"DequantizeLinear": 0, "QLinearConv": 8}
"""Where a bias of 32-bit integers stands, by operator."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What one initializer counts.

    Attributes:
        name: its portable name.
        parameters: how many numbers are trained, or were before they were quantized; 0 for buffers and scales.
        nbytes: what it takes, packed as it is.
    """

    name: str
    parameters: int
    nbytes: int


def keep_packed(model: ir.Model) -> None:
    """Say in a graph that its quantized weights are weights, so that the normal form does not fold them, in place."""
    found = roles(model)
    packed = {name for name, value in model.graph.initializers.items() if is_packed(value)}
    set_roles(model, {**found, **{name: "frozen" for name in packed if name not in found}})


def is_packed(value: ir.Value) -> bool:
    """Whether an initializer holds a quantized weight or bias."""
    dtype = None if value.const_value is None else value.const_value.dtype
    uses = value.uses()
    if dtype == ir.DataType.INT32:
        return any(_BIASES.get(node.op_type) == index for node, index in uses)
    return dtype in _PACKED and bool(uses) and not _is_scale(value)


def _is_scale(value: ir.Value) -> bool:
    uses = value.uses()
    return bool(uses) and all(index in _SCALES.get(node.op_type, ()) for node, index in uses)


def weights(model: ir.Model) -> dict[ir.Value, Weight]:
    """The weights of a graph: parameters, buffers and the scales of quantized tensors; constants are none."""
    known = roles(model)
    found = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not (name in known or is_packed(value) or _is_scale(value)):
            continue
        trained = known.get(name) in ("parameter", "frozen") or is_packed(value)
        elements = _elements(value) if trained and not _is_scale(value) else 0
        found[value] = Weight(name, elements, -(-tensor.size * tensor.dtype.bitwidth // 8))
    return found


def _elements(value: ir.Value) -> int:
    """The numbers in a weight; bytes that hold several hold what their operator says."""
    for node, index in value.uses():
        if node.op_type == "MatMulNBits" and index == 1:
            return int(node.attributes["N"].as_int() * node.attributes["K"].as_int())
    assert value.const_value is not None
    return int(value.const_value.size)


def follows_from_weights(graph: ir.Graph) -> set[ir.Value]:
    """The initializers of a graph and everything in it that is computed from them alone."""
    found = set(graph.initializers.values())
    for node in graph.all_nodes():
        if node.op_type not in RANDOM and all(value is None or value in found for value in _read(node)):
            found.update(node.outputs)
    return found


def _read(node: ir.Node) -> Iterator[ir.Value | None]:
    yield from node.inputs
    yield from captured(*subgraphs(node))


class Claim(NamedTuple):
    """What belongs to a node, because it reads it first.

    Attributes:
        weights: the initializers that it reads, itself or through what follows from weights alone.
        nodes: the nodes between.
    """

    weights: list[ir.Value]
    nodes: list[ir.Node]


def claimed(graph: ir.Graph, constant: set[ir.Value]) -> list[tuple[ir.Node, Claim]]:
    """What belongs to each node that computes on the inputs.

    Args:
        graph: the graph.
        constant: what `follows_from_weights` finds in it.
    """
    seen: set[ir.Value] = set()
    found = []
    for node in graph.all_nodes():
        if not node.outputs or not all(value in constant for value in node.outputs):
            claim = Claim([], [])
            _claim(node, constant, seen, claim)
            found.append((node, claim))
    return found


def _claim(node: ir.Node, constant: set[ir.Value], seen: set[ir.Value], claim: Claim) -> None:
    for value in node.inputs:
        if value is None or value not in constant or value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if producer is None:
            claim.weights.append(value)
        else:
            claim.nodes.append(producer)
            _claim(producer, constant, seen, claim)


class Layers:
    """Which layer each node of a graph belongs to.

    A node with weights is of the module whose names they have, where its own name allows it; a node without is of the
    module or the call that its name says; every other node is a layer of its own.
    """

    def __init__(self, reads: dict[ir.Node, list[str]], before: dict[ir.Node, ir.Node]) -> None:
        """
        Args:
            reads: the names of the weights of every node that computes on the inputs.
            before: which of them reads what a node makes of weights alone.
        """
        self._before = before
        self._own = {node: _module(scoped(str(node.name)), names) for node, names in reads.items()}
        self._modules = {path for path in self._own.values() if path}
        self._nodes = {scoped(str(node.name)) for node in reads}

    def of(self, node: ir.Node) -> str:
        """The dotted path of a node's layer."""
        node = self._before.get(node, node)
        return self._own.get(node) or self._above(scoped(str(node.name)))

    def _above(self, name: str) -> str:
        while name not in self._modules:
            path, _ = split_name(name)
            if not path or not (path in self._modules or path in self._nodes):
                break
            name = path
        return name


def _module(node: str, names: list[str]) -> str:
    """The module that a node with weights belongs to; empty where their names tell nothing of it."""
    parent, _ = split_name(node)
    for name in names:
        path, _ = split_name(name)
        near = node == path or node.startswith(f"{path}.") or path.startswith(f"{parent}." if parent else "")
        if path and near and "::" not in name and "/" not in name:
            return path
    return ""
