"""Rules of the layout pass for operators that move, join, split, add or drop axes, and for those that read shapes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelport.graph.layout.axis_groups import Group, axis_groups, joined_order
from modelport.graph.layout.axis_rules import int_attribute, nothing, reordered, set_axis
from modelport.graph.layout.relayout import (
    Dims,
    Perm,
    Relayout,
    Rule,
    constant_array,
    dims_of,
    identity,
    inverse,
    movable,
    rank_of,
    renumbered,
    without,
)


def _transpose_perm(node: ir.Node, rank: int) -> Perm:
    given = node.attributes.get("perm")
    return tuple(reversed(range(rank))) if given is None else tuple(given.as_ints())


def transpose(layout: Relayout, node: ir.Node) -> bool:
    """Its output is its input's stored form, read in another order."""
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or rank is None:
        return False
    perm, entry = _transpose_perm(node, rank), layout.entry(value)
    places = inverse(perm)

    def read(stored: Perm) -> Perm:
        return tuple(places[axis] for axis in stored)

    dims = tuple((entry.dims or ())[axis] for axis in perm)
    forms = {read(stored): form for stored, form in entry.forms.items()}
    layout.stand_in(node, forms, read(entry.primary), dims)
    return True


def _transpose_wants(node: ir.Node, out: Perm | None) -> Sequence[tuple[int, Perm]]:
    if out is None:
        return ()
    perm = _transpose_perm(node, len(out))
    return [(0, tuple(perm[axis] for axis in out))]


def _placed(kept: Sequence[int], added: Sequence[int], wanted: Perm | None, dims: Dims) -> Perm:
    """The stored order of an output: axes that come from the input, and new ones of size 1 where they are wanted."""
    order = list(kept)
    for axis in sorted(added):
        before = [place for place, other in enumerate(order) if other == axis - 1]
        order.insert(before[0] + 1 if before else 0, axis)
    if wanted is not None and len(wanted) == len(order) and movable(dims, tuple(order), wanted) is not None:
        return wanted
    return tuple(order)


def unsqueeze(layout: Relayout, node: ir.Node) -> bool:
    value, axes = node.inputs[0], layout.const(node.inputs[1])
    rank = layout.rank(value)
    if value is None or rank is None or axes is None:
        return False
    perm = layout.perm(value)
    out_rank = rank + axes.size
    added = sorted({int(axis) % out_rank for axis in axes.ravel()})
    kept = [axis for axis in range(out_rank) if axis not in added]
    dims: list[int | str | None] = [1] * out_rank
    for axis, dim in zip(kept, layout.entry(value).dims or (), strict=True):
        dims[axis] = dim
    out = _placed([kept[axis] for axis in perm], added, layout.wanted.get(node.outputs[0]), tuple(dims))
    if without(out, added) != tuple(kept[axis] for axis in perm):
        out = _placed([kept[axis] for axis in perm], added, None, tuple(dims))
    if out == identity(out_rank) and perm == identity(rank):
        return False
    layout.take(node, 0, perm)
    layout.replace(node, 1, layout.ints(place for place, axis in enumerate(out) if axis in added))
    layout.give(node, 0, out, tuple(dims))
    return True


def squeeze(layout: Relayout, node: ir.Node) -> bool:
    value = node.inputs[0]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    rank, axes = layout.rank(value), layout.const(given)
    if value is None or not rank or (given is not None and axes is None):
        return False
    dims, perm = layout.entry(value).dims or (), layout.perm(value)
    if perm == identity(rank):
        return False
    if axes is None:
        if not all(isinstance(dim, int) for dim in dims):
            return False
        dropped = {axis for axis, dim in enumerate(dims) if dim == 1}
    else:
        dropped = {int(axis) % rank for axis in axes.ravel()}
    layout.take(node, 0, perm)
    layout.replace(node, 1, layout.ints(place for place, axis in enumerate(perm) if axis in dropped))
    layout.give(node, 0, renumbered(without(perm, dropped)))
    return True


def _target_dims(node: ir.Node, source: Dims) -> Dims | None:
    """The sizes of a Reshape's output, from its shape input where that is fixed, else as inferred."""
    inferred, shape = dims_of(node.outputs[0]), constant_array(node.inputs[1])
    if shape is None:
        return inferred
    known: list[int | str | None] = list(inferred or (None,) * shape.size)
    for axis, number in enumerate(shape.tolist()):
        if number > 0:
            known[axis] = number
        elif number == 0:
            if int_attribute(node, "allowzero", 0) or axis >= len(source):
                return None
            known[axis] = source[axis]
    return tuple(known)


def reshape(layout: Relayout, node: ir.Node) -> bool:
    """A Reshape joins axes that stand together in the stored order, too, and splits axes in place."""
    value = node.inputs[0]
    entry = None if value is None else layout.entry(value)
    if value is None or entry is None or entry.dims is None:
        return False
    target = _target_dims(node, entry.dims)
    groups = None if target is None else axis_groups(entry.dims, target)
    if groups is None or target is None:
        return False
    perm = joined_order(entry.primary, groups)
    if layout.cost(value, perm):
        perm = _order_for(layout.wanted.get(node.outputs[0]), groups, entry.dims)
    grouped = [axis for group in sorted(groups, key=lambda g: perm.index(g.source[0])) for axis in group.target]
    units = [axis for axis in range(len(target)) if axis not in grouped]
    out = _placed(grouped, units, layout.wanted.get(node.outputs[0]), target)
    if perm == identity(len(perm)) and out == identity(len(out)):
        return False
    shape = _stored_shape(layout, node, [target[axis] for axis in out], _kept_places(perm, out, groups), out)
    if shape is None:
        return False
    layout.take(node, 0, perm)
    layout.replace(node, 1, shape)
    layout.give(node, 0, out, target)
    return True


def _order_for(out: Perm | None, groups: Sequence[Group], dims: Dims) -> Perm:
    """The input order from which a Reshape comes nearest to the wanted order of its output; its own where none is."""
    if out is None:
        return identity(len(dims))
    order = sorted(groups, key=lambda group: out.index(group.target[0]))
    used = tuple(axis for group in order for axis in group.source)
    return used + without(identity(len(dims)), used)


def _reshape_wants(node: ir.Node, out: Perm | None) -> Sequence[tuple[int, Perm]]:
    source = None if node.inputs[0] is None else dims_of(node.inputs[0])
    target = None if source is None else _target_dims(node, source)
    if source is None or target is None or out is None or len(out) != len(target):
        return ()
    groups = axis_groups(source, target)
    return () if groups is None else [(0, _order_for(out, groups, source))]


def _kept_places(perm: Perm, out: Perm, groups: Sequence[Group]) -> set[int]:
    """Places at which the stored input and the stored output have one axis in common."""
    same = {(group.source[0], group.target[0]) for group in groups if len(group.source) == len(group.target) == 1}
    return {place for place, pair in enumerate(zip(perm, out, strict=False)) if pair in same}


def _stored_shape(
    layout: Relayout, node: ir.Node, sizes: Sequence[int | str | None], kept: set[int], out: Perm
) -> ir.Value | None:
    """The shape input for the stored order: fixed up to one -1 and sizes that are copied, else gathered."""
    open_places = [place for place, size in enumerate(sizes) if not isinstance(size, int)]
    numbers = [size if isinstance(size, int) else -1 for size in sizes]
    for place in open_places:
        if numbers.count(-1) > 1 and place in kept:
            numbers[place] = 0
    if numbers.count(-1) <= 1:
        node.attributes.pop("allowzero", None)
        return layout.ints(numbers, "shape")
    given = node.inputs[1]
    if given is None or layout.const(given) is not None or layout.entry(given).dims != (len(sizes),):
        return None
    return reordered(layout, given, out)


def flatten(layout: Relayout, node: ir.Node) -> bool:
    """Flatten needs its axes in their own order, those of size 1 excepted."""
    value = node.inputs[0]
    entry = None if value is None else layout.entry(value)
    if value is None or entry is None or entry.dims is None or entry.primary == identity(len(entry.dims)):
        return False
    rank, perm = len(entry.dims), entry.primary
    if movable(entry.dims, perm, identity(rank)) is None:
        return False
    axis = int_attribute(node, "axis", 1)
    axis = axis % rank if axis < 0 else axis
    before = [place for place, a in enumerate(perm) if a < axis and entry.dims[a] != 1]
    layout.take(node, 0, perm)
    set_axis(node, "axis", max(before, default=-1) + 1)
    layout.give(node, 0, (0, 1))
    return True


def _gather_wants(node: ir.Node, out: Perm | None) -> Sequence[tuple[int, Perm]]:
    """One index of an axis is taken best where the axis comes first: then it is one piece of memory."""
    rank = rank_of(node.inputs[0])
    if out is None or rank is None or rank_of(node.inputs[1]) != 0 or len(out) != rank - 1:
        return ()
    axis = int_attribute(node, "axis", 0) % rank
    return [(0, (axis, *(other if other < axis else other + 1 for other in out)))]


def _gathered_from(layout: Relayout, value: ir.Value) -> Perm:
    """The order to gather from: that which all readers want, where several do or it is there already."""
    wanted, entry = layout.wanted.get(value), layout.entry(value)
    fits = wanted is not None and entry.dims is not None and len(wanted) == len(entry.dims)
    if wanted is not None and fits and (wanted in entry.forms or len(value.uses()) > 1):
        return wanted
    return entry.primary


def gather(layout: Relayout, node: ir.Node) -> bool:
    """The axis of the data is replaced by those of the indices."""
    value, indices = node.inputs[0], node.inputs[1]
    rank, count = layout.rank(value), layout.rank(indices)
    if value is None or indices is None or not rank or count is None:
        return False
    perm, axis = _gathered_from(layout, value), int_attribute(node, "axis", 0) % rank
    if perm == identity(rank) == layout.perm(value):
        return False
    out: list[int] = []
    for other in perm:
        if other == axis:
            out += range(axis, axis + count)
        else:
            out.append(other if other < axis else other + count - 1)
    layout.take(node, 0, perm)
    set_axis(node, "axis", perm.index(axis))
    layout.give(node, 0, tuple(out))
    return True


def embedding(layout: Relayout, node: ir.Node) -> bool:
    """The ids in any order; the features are last."""
    ids = node.inputs[0]
    rank = layout.rank(ids)
    if ids is None or rank is None or layout.perm(ids) == identity(rank):
        return False
    perm = layout.perm(ids)
    layout.take(node, 0, perm)
    layout.give(node, 0, (*perm, rank))
    return True


def shape(layout: Relayout, node: ir.Node) -> bool:
    """The sizes of a stored form, put back in order."""
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or rank is None or identity(rank) in layout.entry(value).forms:
        return False
    start, end = (_bounded(int_attribute(node, name, last), rank) for name, last in (("start", 0), ("end", rank)))
    perm = layout.perm(value)
    sizes = layout.emit("Shape", [layout.form(value, perm)], {}, (rank,))
    sizes.type = ir.TensorType(ir.DataType.INT64)
    order = layout.ints(inverse(perm)[start:end], "order")
    picked = layout.emit("Gather", [sizes, order], {"axis": 0}, (max(end - start, 0),))
    layout.stand_in(node, {(0,): picked}, (0,))
    return True


def _bounded(axis: int, rank: int) -> int:
    return min(max(axis + rank if axis < 0 else axis, 0), rank)


def size(layout: Relayout, node: ir.Node) -> bool:
    value = node.inputs[0]
    if value is None or layout.rank(value) is None:
        return False
    layout.take(node, 0, layout.perm(value))
    layout.give(node, 0, ())
    return True


def einsum(layout: Relayout, node: ir.Node) -> bool:
    """The letters of an operand follow its stored order."""
    left, arrow, right = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    terms = left.split(",")
    values = [value for value in node.inputs if value is not None]
    if not arrow or "." in left or len(values) != len(terms):
        return False
    orders = [layout.perm(v) if layout.rank(v) == len(t) else None for v, t in zip(values, terms, strict=True)]
    if all(order is None or order == identity(len(order)) for order in orders):
        return False
    for index, (order, term) in enumerate(zip(orders, terms, strict=True)):
        if order is not None:
            layout.take(node, index, order)
            terms[index] = "".join(term[axis] for axis in order)
    node.attributes["equation"] = ir.AttrString("equation", f"{','.join(terms)}->{right}")
    layout.give(node, 0, identity(len(right)))
    return True


RANK_RULES = {
    ("", "Gather"): Rule(gather, _gather_wants),
    ("", "Transpose"): Rule(transpose, _transpose_wants),
    ("", "Reshape"): Rule(reshape, _reshape_wants),
    ("modelport", "Embedding"): Rule(embedding, nothing),
    **{
        ("", op_type): Rule(apply, nothing)
        for op_type, apply in {
            "Einsum": einsum,
            "Flatten": flatten,
            "Shape": shape,
            "Size": size,
            "Squeeze": squeeze,
            "Unsqueeze": unsqueeze,
        }.items()
    },
}
"""Rules by domain and operator."""
