"""Rules of the layout pass for operators that keep the rank: elementwise ones, and those with an axis or axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from modelport.graph.elementwise import BROADCASTING, UNARY
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.layout.relayout import (
    Perm,
    Relayout,
    Rule,
    dims_of,
    identity,
    inverse,
    is_read,
    rank_of,
    renumbered,
    without,
)
from modelport.graph.splice import BUILD_DOMAIN

REDUCE = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
""".split()  # noqa: SIM905


def nothing(node: ir.Node, out: Perm | None) -> Iterable[tuple[int, Perm]]:
    """No wish for any input."""
    return ()


def like_output(node: ir.Node, out: Perm | None) -> Iterable[tuple[int, Perm]]:
    """Inputs of the output's rank are wanted as the output is."""
    if out is None:
        return ()
    return [(i, out) for i, value in enumerate(node.inputs) if rank_of(value) == len(out)]


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def set_axis(node: ir.Node, name: str, value: int) -> None:
    node.attributes[name] = ir.AttrInt64(name, value)


# Elementwise.


def _choice(layout: Relayout, node: ir.Node, operands: Sequence[ir.Value], rank: int) -> Perm:
    """The order to compute in: the one that takes the fewest Transposes, the one wanted after it among equals."""
    full = [value for value in operands if layout.rank(value) == rank and not layout.is_constant(value)]
    if not full:
        return identity(rank)
    wanted = layout.wanted.get(node.outputs[0])
    candidates = [layout.perm(value) for value in full] + [identity(rank)]
    if wanted is not None and len(wanted) == rank:
        candidates.append(wanted)

    def price(perm: Perm) -> tuple[int, bool]:
        made = sum(layout.cost(value, _aligned(perm, layout.rank(value) or 0)) for value in set(operands))
        unwanted = wanted is not None and perm != wanted
        return made + unwanted, unwanted

    return min(dict.fromkeys(candidates), key=price)


def _aligned(perm: Perm, rank: int) -> Perm:
    """The order of the last axes, for an operand of a lower rank that broadcasts."""
    missing = len(perm) - rank
    return tuple(axis - missing for axis in perm if axis >= missing)


def _operand(layout: Relayout, value: ir.Value, perm: Perm) -> ir.Value:
    """An operand as it broadcasts against tensors stored in an order."""
    rank = layout.rank(value) or 0
    missing = len(perm) - rank
    if layout.is_constant(value) and (small := _weight(layout, value, perm)) is not None:
        return small
    form = layout.form(value, _aligned(perm, rank))
    first = next((place for place, axis in enumerate(perm) if axis >= missing), len(perm))
    gaps = [place - first for place, axis in enumerate(perm) if axis < missing and place > first]
    if not gaps:
        return form
    sizes = list(dims_of(form) or (None,) * rank)
    for gap in gaps:
        sizes.insert(gap, 1)
    return layout.emit("Unsqueeze", [form, layout.ints(gaps)], {}, tuple(sizes))


def _weight(layout: Relayout, value: ir.Value, perm: Perm) -> ir.Value | None:
    """A weight as it broadcasts, without a Transpose: by a Reshape of the initializer it comes from, or as it is."""
    sizes = layout.entry(value).dims
    if sizes is None or not all(isinstance(dim, int) for dim in sizes):
        return None
    full = (1,) * (len(perm) - len(sizes)) + tuple(int(dim) for dim in sizes if dim is not None)
    units = [axis for axis, dim in enumerate(full) if dim == 1]
    if without(perm, units) != without(identity(len(perm)), units):
        return None
    target = [full[axis] for axis in perm]
    while len(target) > min(len(sizes), 1) and target[0] == 1:
        del target[0]
    root = weight_behind(value)
    for known in (value, root):
        if dims_of(known) == tuple(target):
            return known
    if root.is_initializer() and root.name not in layout.weights and root.const_value is not None:
        return layout.constant(root.const_value.numpy().reshape(target), f"{root.name}_broadcast")
    return layout.emit_reshape(root, tuple(target))


def weight_behind(value: ir.Value) -> ir.Value:
    """The value that a chain of Reshape, Unsqueeze and Squeeze starts from."""
    while (node := value.producer()) is not None and node.op_type in ("Reshape", "Unsqueeze", "Squeeze", "Identity"):
        source = node.inputs[0]
        if source is None or node.domain not in ("", "ai.onnx"):
            break
        value = source
    return value


def elementwise(layout: Relayout, node: ir.Node, data: slice = slice(None)) -> bool:
    """Operands that broadcast; `data` says which inputs they are, the others are scalars."""
    operands = [value for value in node.inputs[data] if value is not None]
    ranks = [layout.rank(value) for value in operands]
    if None in ranks:
        return False
    rank = max(r for r in ranks if r is not None)
    perm = _choice(layout, node, operands, rank)
    if perm == identity(rank):
        return False
    for index, value in enumerate(node.inputs):
        if value is not None and value in operands:
            layout.replace(node, index, _operand(layout, value, perm))
    for index in range(len(node.outputs)):
        layout.give(node, index, perm)
    return True


unary = partial(elementwise, data=slice(1))


def quantize(layout: Relayout, node: ir.Node) -> bool:
    """QuantizeLinear and DequantizeLinear, by tensor or along an axis."""
    value, scale = node.inputs[0], node.inputs[1]
    rank = layout.rank(value)
    if value is None or rank is None or layout.rank(scale) not in (0, 1):
        return False
    axis = int_attribute(node, "axis", 1) % max(rank, 1)
    if not unary(layout, node):
        return False
    if layout.rank(scale) == 1:
        set_axis(node, "axis", inverse(layout.perm(node.outputs[0]))[axis])
    return True


# One axis.


def _common(layout: Relayout, node: ir.Node, values: Sequence[ir.Value | None]) -> Perm | None:
    """The order in which inputs of one rank meet; `None` where a rank is not known or they differ."""
    present = [value for value in values if value is not None]
    ranks = {layout.rank(value) for value in present}
    if len(ranks) != 1 or (rank := ranks.pop()) is None:
        return None
    return _choice(layout, node, present, rank)


def along(layout: Relayout, node: ir.Node, default: int | None, data: slice = slice(1)) -> bool:
    """Operators with an attribute `axis` whose outputs keep the axes of the data inputs."""
    if default is None and "axis" not in node.attributes:
        return False
    perm = _common(layout, node, node.inputs[data])
    if perm is None or perm == identity(len(perm)):
        return False
    axis = int_attribute(node, "axis", default or 0) % len(perm)
    for index in range(*data.indices(len(node.inputs))):
        layout.take(node, index, perm)
    set_axis(node, "axis", inverse(perm)[axis])
    for index in range(len(node.outputs)):
        layout.give(node, index, perm)
    return True


def arg_reduce(layout: Relayout, node: ir.Node) -> bool:
    """ArgMax and ArgMin."""
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or not rank or layout.perm(value) == identity(rank):
        return False
    perm, axis = layout.perm(value), int_attribute(node, "axis", 0) % rank
    layout.take(node, 0, perm)
    set_axis(node, "axis", inverse(perm)[axis])
    keep = int_attribute(node, "keepdims", 1)
    layout.give(node, 0, perm if keep else renumbered(without(perm, (axis,))))
    return True


def cumulate(layout: Relayout, node: ir.Node) -> bool:
    """CumSum and CumProd, whose axis is an input."""
    value, axis = node.inputs[0], layout.const(node.inputs[1])
    rank = layout.rank(value)
    if value is None or axis is None or not rank or not unary(layout, node):
        return False
    place = inverse(layout.perm(node.outputs[0]))[int(axis.item()) % rank]
    layout.replace(node, 1, layout.constant(np.asarray(place, np.int64).reshape(axis.shape), "axis"))
    return True


# Several axes.


def spatial_dropout(layout: Relayout, node: ir.Node) -> bool:
    """Dropout of whole slices along the attribute `axes`."""
    if not unary(layout, node):
        return False
    places = inverse(layout.perm(node.outputs[0]))
    axes = sorted(places[axis] for axis in node.attributes["axes"].as_ints())
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    return True


def reduce(layout: Relayout, node: ir.Node) -> bool:
    """The Reduce operators, whose axes are an input."""
    value = node.inputs[0]
    rank = layout.rank(value)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = layout.const(given)
    if value is None or not rank or "axes" in node.attributes or (given is not None and axes is None):
        return False
    every = axes is None or axes.size == 0
    if every and int_attribute(node, "noop_with_empty_axes", 0):
        return unary(layout, node)
    perm = layout.perm(value)
    if perm == identity(rank):
        return False
    reduced = set(range(rank)) if every or axes is None else {int(axis) % rank for axis in axes.ravel()}
    layout.take(node, 0, perm)
    if not every:
        places = inverse(perm)
        layout.replace(node, 1, layout.ints(sorted(places[axis] for axis in reduced)))
    keep = int_attribute(node, "keepdims", 1)
    layout.give(node, 0, perm if keep else renumbered(without(perm, reduced)))
    return True


def _axes_input(layout: Relayout, node: ir.Node, index: int, rank: int, count: int | None) -> list[int] | None:
    """The axes that an optional input names, all or the first `count` where it is absent."""
    given = node.inputs[index] if len(node.inputs) > index else None
    if given is None:
        return None if count is None else list(range(count))
    axes = layout.const(given)
    return None if axes is None else [int(axis) % rank for axis in axes.ravel()]


def slices(layout: Relayout, node: ir.Node) -> bool:
    value, starts = node.inputs[0], node.inputs[1]
    rank = layout.rank(value)
    if value is None or starts is None or not rank or layout.perm(value) == identity(rank):
        return False
    count = (layout.entry(starts).dims or (None,))[0]
    axes = _axes_input(layout, node, 3, rank, count if isinstance(count, int) else None)
    if axes is None:
        return False
    perm = layout.perm(value)
    layout.take(node, 0, perm)
    layout.replace(node, 3, layout.ints(inverse(perm)[axis] for axis in axes))
    layout.give(node, 0, perm)
    return True


def pad(layout: Relayout, node: ir.Node) -> bool:
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or not rank or len(node.inputs) < 2 or layout.perm(value) == identity(rank):
        return False
    axes = _axes_input(layout, node, 3, rank, rank)
    if axes is None:
        return False
    perm, pads = layout.perm(value), layout.const(node.inputs[1])
    layout.take(node, 0, perm)
    if pads is None:
        layout.replace(node, 3, layout.ints(inverse(perm)[axis] for axis in axes))
    else:
        around = dict(zip(axes, pads.reshape(2, -1).T.tolist(), strict=True))
        stored = [around.get(axis, (0, 0)) for axis in perm]
        layout.replace(node, 1, layout.ints([p[0] for p in stored] + [p[1] for p in stored], "pads"))
        if len(node.inputs) > 3:
            node.resize_inputs(3)
    layout.give(node, 0, perm)
    return True


def per_axis(layout: Relayout, node: ir.Node) -> bool:
    """Expand and Tile: the second input has one number per axis."""
    value, numbers = node.inputs[0], node.inputs[1]
    rank = layout.rank(value)
    if value is None or numbers is None or not rank or layout.perm(value) == identity(rank):
        return False
    if layout.entry(numbers).dims != (rank,) or rank_of(node.outputs[0]) not in (None, rank):
        return False
    perm = layout.perm(value)
    layout.take(node, 0, perm)
    layout.replace(node, 1, reordered(layout, numbers, perm))
    layout.give(node, 0, perm)
    return True


def reordered(layout: Relayout, numbers: ir.Value, perm: Perm) -> ir.Value:
    """A vector with one number per axis, in the stored order."""
    known = layout.const(numbers)
    if known is not None:
        return layout.constant(known[list(perm)], numbers.name or "shape")
    return layout.emit("Gather", [layout.own(numbers), layout.ints(perm, "order")], {"axis": 0}, (len(perm),))


def resize(layout: Relayout, node: ir.Node) -> bool:
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or not rank:
        return False
    perm = layout.perm(value)
    named = node.attributes.get("axes")
    axes = range(rank) if named is None else [axis % rank for axis in named.as_ints()]
    if perm == identity(rank):
        return False
    layout.take(node, 0, perm)
    node.attributes["axes"] = ir.AttrInt64s("axes", [inverse(perm)[axis] for axis in axes])
    layout.give(node, 0, perm)
    return True


# The last axes.


def _keeps_last(perm: Perm, first: int) -> bool:
    """Whether the axes from `first` on are stored last and in order."""
    return perm[first:] == tuple(range(first, len(perm)))


def _last_in_order(layout: Relayout, node: ir.Node, value: ir.Value, first: int) -> Perm:
    """A stored order with the axes from `first` on last: one there is, the wanted one, or the value's own."""
    wanted = layout.wanted.get(node.outputs[0])
    known = [layout.perm(value), *layout.entry(value).forms, *([] if wanted is None else [wanted])]
    rank = len(known[0])
    return next((perm for perm in known if len(perm) == rank and _keeps_last(perm, first)), identity(rank))


def _last_wants(node: ir.Node, out: Perm | None) -> Iterable[tuple[int, Perm]]:
    first = -1 if node.op_type in ("MatMul", "Linear") else int_attribute(node, "axis", -1)
    if out is None or rank_of(node.inputs[0]) != len(out) or not _keeps_last(out, first % max(len(out), 1)):
        return ()
    return [(0, out)]


def normalize_last(layout: Relayout, node: ir.Node) -> bool:
    """LayerNormalization and RMSNormalization: the axes from `axis` on stay last and in order."""
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or not rank or any(is_read(output) for output in node.outputs[1:]):
        return False
    axis = int_attribute(node, "axis", -1) % rank
    perm = _last_in_order(layout, node, value, axis)
    if perm == identity(rank):
        return False
    layout.take(node, 0, perm)
    layout.give(node, 0, perm)
    return True


def by_matrix(layout: Relayout, node: ir.Node) -> bool:
    """A product with one matrix, MatMul or Linear: the last axis stays last."""
    value = node.inputs[0]
    rank = layout.rank(value)
    if value is None or rank is None or rank < 2 or (node.domain == "" and layout.rank(node.inputs[1]) != 2):
        return False
    perm = _last_in_order(layout, node, value, rank - 1)
    if perm == identity(rank):
        return False
    layout.take(node, 0, perm)
    layout.give(node, 0, perm)
    return True


def _rows() -> dict[tuple[str, str], Rule]:
    applied: dict[str, Callable[[Relayout, ir.Node], bool]] = {
        **dict.fromkeys(UNARY, unary),
        **dict.fromkeys(BROADCASTING, elementwise),
        **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantize),
        **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK"), partial(along, default=-1)),
        **dict.fromkeys(("Concat", "GatherElements", "ScatterElements"), partial(along, default=0, data=slice(None))),
        "Split": partial(along, default=0),
        "Compress": partial(along, default=None),
        **dict.fromkeys(("CumSum", "CumProd"), cumulate),
        **dict.fromkeys(("Expand", "Tile"), per_axis),
        "Slice": slices,
        "Pad": pad,
        "Resize": resize,
    }
    rows = {("", op_type): Rule(apply, like_output) for op_type, apply in applied.items()}
    rows |= {("", op_type): Rule(reduce, nothing) for op_type in REDUCE}
    rows |= {("", op_type): Rule(arg_reduce, nothing) for op_type in ("ArgMax", "ArgMin")}
    rows |= {("", op_type): Rule(normalize_last, _last_wants) for op_type in ("LayerNormalization", "RMSNormalization")}
    rows[BUILD_DOMAIN, SPATIAL_DROPOUT] = Rule(spatial_dropout, like_output)
    return rows | {key: Rule(by_matrix, nothing) for key in (("", "MatMul"), (BUILD_DOMAIN, "Linear"))}


AXIS_RULES = _rows()
"""Rules by domain and operator."""
