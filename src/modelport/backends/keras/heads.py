"""Linear layers whose features are split into heads, or joined from them: `EinsumDense`, as in Keras' attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from string import ascii_lowercase
from typing import Any

import onnx_ir as ir
from keras import layers

from modelport.backends.keras.absorb import Owned
from modelport.backends.keras.build_layers import Place
from modelport.backends.keras.ops.tensors import rank, sizes
from modelport.graph.shapes.expr import Size
from modelport.graph.shapes.infer import ShapeInfo


@dataclass(frozen=True)
class Heads:
    """A Linear and the Reshape that makes it one about heads.

    Attributes:
        reshape: the node.
        splits: whether it splits the features after the Linear; otherwise it joins them before it.
    """

    reshape: ir.Node
    splits: bool


def find_heads(owned: Mapping[ir.Node, Owned], info: ShapeInfo) -> dict[ir.Node, Heads]:
    """The Linears of tokens (batch, sequence, features) whose only neighbour on one side is such a Reshape.

    A Linear of rows (batch, features) is left alone: its Reshape makes an image of them, say.
    """
    calls = Counter(each.key for each in owned.values())
    found = {}
    for node, each in owned.items():
        if (node.domain, node.op_type) != ("modelport", "Linear") or calls[each.key] > 1:
            continue
        heads = _after(node, info) or _before(node, info)
        if heads is not None:
            found[node] = heads
    return found


def _after(node: ir.Node, info: ShapeInfo) -> Heads | None:
    value = node.outputs[0]
    uses = tuple(value.uses())
    if value.is_graph_output() or len(uses) != 1 or not _is_reshape(uses[0].node) or uses[0].idx != 0:
        return None
    reshape = uses[0].node
    return Heads(reshape, True) if _is_split(info.dims(value), info.dims(reshape.outputs[0])) else None


def _before(node: ir.Node, info: ShapeInfo) -> Heads | None:
    value = node.inputs[0]
    reshape = None if value is None else value.producer()
    if value is None or reshape is None or not _is_reshape(reshape):
        return None
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    source = reshape.inputs[0]
    return Heads(reshape, False) if source is not None and _is_split(info.dims(value), info.dims(source)) else None


def _is_reshape(node: ir.Node) -> bool:
    return node.op_type == "Reshape" and node.domain in ("", "ai.onnx")


def _is_split(flat: tuple[Size, ...] | None, split: tuple[Size, ...] | None) -> bool:
    """Whether shapes are (..., heads * features) and (..., heads, features), with two axes or more in front."""
    if flat is None or split is None or len(flat) < 3 or len(split) != len(flat) + 1 or flat[:-1] != split[:-2]:
        return False
    return all(isinstance(size, int) for size in (flat[-1], *split[-2:]))


def einsum_dense(place: Place, x: Any, heads: Heads, info: ShapeInfo) -> Any:
    """The Linear with its Reshape as one layer; its kernel is (features, heads, width) or (heads, width, features)."""
    if heads.splits:
        front, inner, new = _letters(rank(x) - 1, 1, 2)
        tail = (info.dims(heads.reshape.outputs[0]) or ())[-2:]
    else:
        front, inner, new = _letters(rank(x) - 2, 2, 1)
        tail = (info.dims(place.node.outputs[0]) or ())[-1:]
    equation = f"{front}{inner},{inner}{new}->{front}{new}"
    built = place.layer(
        layers.EinsumDense,
        equation,
        output_shape=(*sizes(x)[1 : len(front)], *tail),
        bias_axes=new if place.has("bias") else None,
        like=x,
    )
    return built(x)


def _letters(*counts: int) -> list[str]:
    """Letters for groups of axes, each axis its own."""
    ends = list(accumulate(counts))
    return [ascii_lowercase[end - count : end] for end, count in zip(ends, counts, strict=True)]
