"""Which element of which weight lands where, through a chain of operators that only move elements."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

MOVES = frozenset(
    {"Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators whose output elements are elements of their inputs."""

ZERO = -1
"""The id of an element that is a constant zero."""


@dataclass(frozen=True)
class Provenance:
    """Where the elements of some values come from.

    Attributes:
        ids: one array per value; an element's id is the offset of its source plus its index there, or `ZERO`.
        sources: the initializers.
        offsets: where each source's ids begin.
    """

    ids: tuple[np.ndarray, ...]
    sources: tuple[ir.Value, ...]
    offsets: tuple[int, ...]

    def whole(self, ids: np.ndarray) -> ir.Value | None:
        """The source that an array of ids is, all of it and in its own order."""
        if ids.size == 0 or ids.flat[0] < 0:
            return None
        index = bisect_right(self.offsets, int(ids.flat[0])) - 1
        source = self.sources[index]
        if source.const_value is None or tuple(source.const_value.shape.numpy()) != ids.shape:
            return None
        wanted = np.arange(self.offsets[index], self.offsets[index] + ids.size).reshape(ids.shape)
        return source if np.array_equal(ids, wanted) else None

    def data(self, ids: np.ndarray) -> np.ndarray:
        """The numbers behind an array of ids."""
        arrays = [source.const_value.numpy().ravel() for source in self.sources if source.const_value is not None]
        flat = np.concatenate([*arrays, np.zeros(1, arrays[0].dtype)])
        # The zero stands last, where the id -1 finds it.
        return flat[ids]


def trace(values: Sequence[ir.Value], weights: Collection[str]) -> Provenance | None:
    """Where the elements of values come from; `None` where one depends on more than weights that are moved.

    Args:
        values: of a normalised graph.
        weights: the names of the initializers that are weights; of the others, those of nothing but zeros have no ids.
    """
    chain = _chain(values)
    if chain is None:
        return None
    nodes, leaves = chain
    sources = [leaf for leaf in leaves if leaf.dtype is not None and leaf.dtype.is_floating_point()]
    sizes = [leaf.const_value.size for leaf in sources if leaf.const_value is not None]
    offsets = [0, *np.cumsum(sizes).tolist()][: len(sources)]
    feeds = {leaf.name: leaf.const_value.numpy() for leaf in leaves if leaf.const_value is not None}
    for source, offset in zip(sources, offsets, strict=True):
        array = feeds[source.name]
        ids = np.arange(offset, offset + array.size, dtype=np.int64).reshape(array.shape)
        empty = source.name not in weights and not array.any()
        feeds[source.name] = np.full(array.shape, ZERO, np.int64) if empty else ids
    graph = onnx.GraphProto(name="chain", node=[ir.serde.serialize_node(node) for node in nodes])
    graph.input.extend(onnx.ValueInfoProto(name=leaf.name) for leaf in leaves)
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in values)
    opset = onnx.helper.make_opsetid("", onnx.defs.onnx_opset_version())
    evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[opset]))
    return Provenance(tuple(evaluator.run(None, feeds)), tuple(sources), tuple(offsets))


def _chain(values: Sequence[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]] | None:
    """The nodes that make some values, in order, and the initializers that they start from."""
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    stack: list[tuple[ir.Value, bool]] = [(value, False) for value in values]
    while stack:
        value, ready = stack.pop()
        node = value.producer()
        if value.const_value is not None and node is None:
            leaves[value] = None
        elif node is None or node.domain or node.op_type not in MOVES:
            return None
        elif ready:
            nodes[node] = None
        elif node not in nodes:
            stack.append((value, True))
            stack.extend((source, False) for source in node.inputs if source is not None)
    return list(nodes), list(leaves)


def is_zero(value: ir.Value, weights: Collection[str]) -> bool:
    """Whether every element of a value is a constant zero, a weight never is."""
    while True:
        node = value.producer()
        if value.const_value is not None and node is None:
            return value.name not in weights and not value.const_value.numpy().any()
        if node is None or node.domain:
            return False
        if node.op_type == "ConstantOfShape":
            filling = node.attributes.get_tensor("value")
            return filling is None or not filling.numpy().any()
        if node.op_type == "Concat" or node.op_type not in MOVES | {"Expand", "Tile", "Cast"}:
            return False
        source = node.inputs[0]
        if source is None:
            return False
        value = source
