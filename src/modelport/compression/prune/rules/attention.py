"""Attention as one operator, and what is written with it: whole heads go."""

from __future__ import annotations

import onnx_ir as ir

from modelport.compression.prune.axes import Axis, Layout, Lost, collapsed, merged, plain
from modelport.compression.prune.rules.linear import set_int
from modelport.compression.prune.trace import Rule, Trace


def _heads(trace: Trace, value: ir.Value | None, heads: int, groups: int) -> Layout:
    """Queries, keys or values as (batch, heads, groups of queries per head, sequence, numbers)."""
    x = trace.layout(value)
    dims = trace.dims(value)
    parts = trace.split(x)
    if len(dims) == 3:
        batch, sequence, hidden = dims
        width = hidden // (heads * groups)
        [a, s, h, g, d] = parts.regroup([q for axis in x.axes for q in axis], (batch, sequence, heads, groups, width))
    else:
        batch, _, sequence, width = dims
        [a, h, g, s, d] = parts.regroup([q for axis in x.axes for q in axis], (batch, heads, groups, sequence, width))
    return Layout((a, h, g, s, d), parts.blocks)


def attention(trace: Trace, node: ir.Node) -> list[Layout]:
    query, key = trace.dims(node.inputs[0]), trace.dims(node.inputs[1])
    flat = len(query) == 3
    many, few = (node.attributes.get_int(f"{who}_num_heads", 0) for who in ("q", "kv")) if flat else (query[1], key[1])
    if not isinstance(many, int) or not isinstance(few, int) or not few or many % few:
        raise Lost("how many heads it has is not known")
    q = _heads(trace, node.inputs[0], few, many // few)
    k, v = _heads(trace, node.inputs[1], few, 1), _heads(trace, node.inputs[2], few, 1)
    q, k = trace.join(node, q, k, [(1, 1), (4, 4)])
    q, k = collapsed(q, q.axes[4], trace.slots), collapsed(k, k.axes[4], trace.slots)
    q, v = trace.join(node, collapsed(q, q.axes[2], trace.slots), v, [(1, 1)])
    q, k = trace.join(node, q, k, [(1, 1)])
    _further(trace, node, q, k, v)
    if flat:
        for name, layout in (("q_num_heads", q), ("kv_num_heads", k)):
            _count(trace, node, name, layout)
    both = merged(q, v, [(0, 0), (1, 1), (2, None), (3, None), (None, 4)])
    a, h, g, s, d = both.axes
    axes: tuple[Axis, ...] = (a, s, (*h, *g, *d)) if flat else (a, (*h, *g), s, d)
    made = [both.with_axes(axes)]
    for layout, value in zip((k, v, q), node.outputs[1:], strict=False):
        a, h, g, _, d = layout.axes
        lengths = plain(trace.info.dims(value) or (1, 1, 1, 1)).axes
        made.append(layout.with_axes((a, (*h, *g), lengths[2], lengths[3] if layout is q else d)))
    return made


def _further(trace: Trace, node: ir.Node, q: Layout, k: Layout, v: Layout) -> None:
    """The mask has the heads of the queries or one for all, what is remembered those of keys and values."""
    a, h, g, s, d = q.axes
    heads = trace.elements(node, q.with_axes((a, (*h, *g), s, d)), 1)
    for index, ids in ((3, heads), (4, trace.elements(node, k, 1)), (5, None)):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        layout = trace.layout(value)
        axis = len(layout.axes) - 3
        if index == 5:
            trace.join(node, v, layout, [(1, 1), (4, 3)])
        elif axis >= 0 and layout.axes[axis]:
            trace.meet(node, ids, trace.elements(node, layout, axis))


def _count(trace: Trace, node: ir.Node, name: str, layout: Layout) -> None:
    a, h, g, s, d = layout.axes
    flat = layout.with_axes((a, (*h, *g), s, d))
    trace.fix(lambda cut: set_int(node, name, int(cut.size(flat, 1))))  # type: ignore[arg-type]


def rotary(trace: Trace, node: ir.Node) -> list[Layout]:
    """RotaryEmbedding turns the numbers of a head; all heads alike."""
    x = trace.layout(node.inputs[0])
    if len(x.axes) == 4:
        return [collapsed(x, x.axes[3], trace.slots)]
    heads = node.attributes.get_int("num_heads", 0)
    dims = trace.dims(node.inputs[0])
    if not heads:
        raise Lost("how many heads it has is not known")
    parts = trace.split(x)
    inner = parts.regroup(x.axes[2], (heads, dims[2] // heads))
    fine = collapsed(Layout((*x.axes[:2], *inner), parts.blocks), inner[1], trace.slots)
    trace.fix(lambda cut: set_int(node, "num_heads", int(cut.size(fine, 2))))  # type: ignore[arg-type]
    return [fine.with_axes((*fine.axes[:2], (*inner[0], *inner[1])))]


def einsum(trace: Trace, node: ir.Node) -> list[Layout]:
    """Letters that both operands have meet; those that the result has not are gone."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    if len(node.inputs) != 2 or not arrow or "." in equation or any(len(set(t)) < len(t) for t in terms.split(",")):
        raise Lost(f"no rule follows channels through {equation!r}")
    one, other = terms.split(",")
    left, right = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    left, right = trace.join(
        node, left, right, [(one.index(letter), other.index(letter)) for letter in one if letter in other]
    )
    for letter in {*one, *other} - {*result}:
        if letter in one:
            left = collapsed(left, left.axes[one.index(letter)], trace.slots)
        if letter in other:
            right = collapsed(right, right.axes[other.index(letter)], trace.slots)
    for layout, mine, theirs, value in ((left, one, other, node.inputs[0]), (right, other, one, node.inputs[1])):
        for axis, letter in enumerate(mine):
            if letter in result and letter not in theirs:
                trace.makes(node, value, layout, axis)
    pairs = [
        (one.index(letter) if letter in one else None, other.index(letter) if letter in other else None)
        for letter in result
    ]
    return [merged(left, right, pairs)]


ATTENTION: dict[str, Rule] = {"Attention": attention, "Einsum": einsum, "RotaryEmbedding": rotary}
