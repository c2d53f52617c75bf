"""Operators that put channels side by side, take them apart, or pick some."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from modelport.compression.prune.axes import Axis, Block, Digit, Layout, Lost, collapsed, fixed, labelled, merged
from modelport.compression.prune.cut import Cut
from modelport.compression.prune.slots import Ids
from modelport.compression.prune.trace import Rule, Trace


def _along(layout: Layout, axis: int, part: Layout) -> Layout:
    """A layout with another first axis in the place of one of its own."""
    axes = (*layout.axes[:axis], part.axes[0], *layout.axes[axis + 1 :])
    return Layout(axes, {**layout.blocks, **part.blocks})


def _stretch(trace: Trace, node: ir.Node, x: Layout, axis: int, first: int, last: int) -> Layout:
    """The layout with only the positions of an axis from one to another.

    Where an axis is one of several digits that the channels lie in, as the query, key and value of one projection are,
    every part has the slots of its own.
    """
    digits = x.axes[axis]
    if first >= last:
        return _along(collapsed(x, digits, trace.slots), axis, labelled([0]))
    block = x.blocks.get(digits[0]) if len(digits) == 1 else None
    if block is None or len(block.digits) == 1:
        ids = trace.elements(node, x, axis)
        assert ids is not None
        return _along(collapsed(x, digits, trace.slots), axis, _part(trace, node, ids[first:last]))
    place = block.digits.index(digits[0])
    ids = block.ids.take(range(first, last), place)
    new: Axis = () if last - first == 1 else (Digit(last - first),)
    if not new:
        ids = ids.take(0, place)
    part = Block(ids, (*block.digits[:place], *new, *block.digits[place + 1 :]))
    if len(part.digits) > 1:
        trace.blocks.append(part)
    blocks = {digit: other for digit, other in x.blocks.items() if other is not block}
    axes = (*x.axes[:axis], new, *x.axes[axis + 1 :])
    return Layout(axes, {**blocks, **dict.fromkeys(part.digits, part)})


def _part(trace: Trace, node: ir.Node, ids: Ids) -> Layout:
    """An axis of some channels; one that is taken alone stays."""
    if len(ids) == 1:
        trace.slots.pin(ids, trace.reason(node, "it takes this very channel"))
    return labelled([ids])


def concat(trace: Trace, node: ir.Node) -> list[Layout]:
    layouts = [trace.layout(value) for value in node.inputs]
    dims = trace.dims(node.outputs[0])
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if any(_lies_across(layout, axis) for layout in layouts):
        reason = trace.reason(node, "it stands beside numbers of heads")
        layouts = [fixed(layout, layout.axes[axis], trace.slots, reason) for layout in layouts]
    pieces = [trace.elements(node, layout, axis) for layout in layouts]
    total = layouts[0]
    others = [(place, place) for place in range(len(dims)) if place != axis]
    for layout in layouts[1:]:
        total, layout = trace.join(node, total, layout, others)
        total = merged(total, layout, [(place, place) for place in range(len(dims))])
    if all(piece is None for piece in pieces):
        return [_along(total, axis, labelled([dims[axis]]))]
    if not isinstance(dims[axis], int):
        raise Lost("channels stand beside something whose size only the run tells")
    whole = [_standing(trace, node, index) if piece is None else piece for index, piece in enumerate(pieces)]
    bare = collapsed(total, total.axes[axis], trace.slots)
    return [_along(bare, axis, labelled([np.concatenate(whole)]))]


def _lies_across(layout: Layout, axis: int) -> bool:
    """Whether an axis has digits of a block that has others too, as the numbers of a head have the head."""
    digits = set(layout.axes[axis])
    return any(digits & set(block.digits) and set(block.digits) - digits for block in layout.present())


def _standing(trace: Trace, node: ir.Node, index: int) -> Ids:
    """Slots for a piece of a Concat that nothing goes from."""
    value = node.inputs[index]
    assert value is not None
    dims = trace.dims(value)
    size = dims[node.attributes.get_int("axis", 0) % len(dims)]
    ids = trace.slots.fresh(int(size))
    trace.slots.pin(ids, trace.reason(node, f"{value.name!r} keeps its size"))
    return ids


def split(trace: Trace, node: ir.Node) -> list[Layout]:
    x = trace.layout(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % len(x.axes)
    sizes = [trace.dims(value)[axis] for value in node.outputs]
    if x.is_plain(axis):
        return [_along(x, axis, labelled([size])) for size in sizes]
    ends = np.cumsum([int(size) for size in sizes]).tolist()
    starts = [0, *ends[:-1]]

    def correct(cut: Cut) -> None:
        mask = cut.mask(x, axis)
        if mask is None:
            return
        node.attributes.pop("num_outputs", None)
        kept = [int(mask[first:last].sum()) for first, last in zip(starts, ends, strict=True)]
        if node.attributes.pop("split", None) is not None:
            node.attributes["split"] = ir.AttrInt64s("split", kept)
            return
        node.resize_inputs(2)
        cut.rewrite(node, 1, kept)

    trace.fix(correct)
    return [_stretch(trace, node, x, axis, first, last) for first, last in zip(starts, ends, strict=True)]


def slice_(trace: Trace, node: ir.Node) -> list[Layout]:
    """Axes that are cut to a part of them; those with channels need constant bounds."""
    x, after = trace.layout(node.inputs[0]), trace.dims(node.outputs[0])
    before = trace.dims(node.inputs[0])
    bounds = _bounds(node, len(before))
    made = x
    for axis, size in enumerate(before):
        if x.is_plain(axis):
            made = made if size == after[axis] else _along(made, axis, labelled([after[axis]]))
            continue
        if bounds is None or not isinstance(size, int):
            raise Lost("its bounds are computed when the model runs")
        if axis not in bounds:
            continue
        row, (start, end, step) = bounds[axis]
        if step != 1:
            reason = trace.reason(node, "it takes every few channels, or turns them round")
            made = _along(fixed(made, made.axes[axis], trace.slots, reason), axis, labelled([after[axis]]))
            continue
        first, last, _ = slice(start, end, step).indices(size)
        if (first, last) != (0, size):
            made = _stretch(trace, node, made, axis, first, last)
        trace.fix(partial(_move_bounds, node, x, axis, row, first, last))
    return [made]


def _bounds(node: ir.Node, rank: int) -> dict[int, tuple[int, tuple[int, int, int]]] | None:
    """By axis, the place of its bounds among those of a Slice and the bounds; `None` where they are not constant."""
    if "starts" in node.attributes:
        starts, ends = node.attributes.get_ints("starts"), node.attributes.get_ints("ends")
        axes, steps = node.attributes.get_ints("axes"), None
    else:
        starts, ends, axes, steps = (_constant(node, index) for index in range(1, 5))
        missing = [index for index, found in enumerate((starts, ends, axes, steps), 1) if found is None]
        if any(index < len(node.inputs) and node.inputs[index] is not None for index in missing):
            return None
    if starts is None or ends is None:
        return None
    axes, steps = axes or range(len(starts)), steps or [1] * len(starts)
    rows = enumerate(zip(axes, starts, ends, steps, strict=True))
    return {axis % rank: (row, (start, end, step)) for row, (axis, start, end, step) in rows}


def _constant(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy().ravel().tolist()


def _move_bounds(node: ir.Node, x: Layout, axis: int, row: int, first: int, last: int, cut: Cut) -> None:
    mask = cut.mask(x, axis)
    if mask is None:
        return
    for index, name, count in ((1, "starts", mask[:first].sum()), (2, "ends", mask[:last].sum())):
        numbers = list(node.attributes.get_ints(name) or _constant(node, index) or ())
        numbers[row] = int(count)
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, numbers)
        else:
            cut.rewrite(node, index, numbers)


def gather(trace: Trace, node: ir.Node) -> list[Layout]:
    """Rows of a table, or positions along an axis; which channels are taken has to be constant."""
    x, index = trace.layout(node.inputs[0]), node.inputs[1]
    axis = node.attributes.get_int("axis", 0) % len(x.axes)
    picks = None if index is None or index.const_value is None else index.const_value.numpy()
    named = trace.layouts[index].axes if index in trace.layouts and picks is None else labelled(trace.dims(index)).axes
    table = node.inputs[0] is not None and node.inputs[0].is_initializer()
    blocks = [x.blocks[digit] for digit in x.axes[axis] if digit in x.blocks]
    if picks is not None and blocks and not table:
        return [_picked(trace, node, x, axis, picks)]
    rest = fixed(x, x.axes[axis], trace.slots, trace.reason(node, "which channels are taken only the run tells"))
    made = rest.with_axes((*rest.axes[:axis], *named, *rest.axes[axis + 1 :]))
    if table and len(made.axes) > len(named) and axis == 0:
        trace.makes(node, node.inputs[0], made, len(made.axes) - 1)
    return [made]


def _picked(trace: Trace, node: ir.Node, x: Layout, axis: int, picks: np.ndarray) -> Layout:
    """Constant positions of an axis with channels."""
    digits = x.axes[axis]
    size = trace.dims(node.inputs[0])[axis]
    if not isinstance(size, int):
        raise Lost("channels share an axis with a size that only the run tells")
    picks = picks % size
    trace.fix(partial(_move_picks, node, x, axis, picks))
    if picks.ndim == 0 and len(digits) == 1 and len(x.blocks[digits[0]].digits) > 1:
        part = _stretch(trace, node, x, axis, int(picks), int(picks) + 1)
        return part.with_axes((*part.axes[:axis], *part.axes[axis + 1 :]))
    ids = trace.elements(node, x, axis)
    assert ids is not None
    bare = collapsed(x, digits, trace.slots)
    if picks.ndim == 1:
        return _along(bare, axis, _part(trace, node, ids[picks]))
    trace.slots.pin(ids[picks], trace.reason(node, "it takes this very channel"))
    named = labelled(picks.shape).axes
    return bare.with_axes((*bare.axes[:axis], *named, *bare.axes[axis + 1 :]))


def _move_picks(node: ir.Node, x: Layout, axis: int, picks: np.ndarray, cut: Cut) -> None:
    mask = cut.mask(x, axis)
    if mask is None:
        return
    if picks.ndim != 1 and not mask[picks].all():
        raise Lost(f"{node.op_type} {node.name!r} takes a part that is gone")
    left = (np.cumsum(mask) - 1)[picks[mask[picks]] if picks.ndim == 1 else picks]
    cut.rewrite(node, 1, left.tolist())


def shape(trace: Trace, node: ir.Node) -> list[Layout]:
    """Sizes of plain axes are as they were; of others, only what is picked out of them counts."""
    x = trace.layout(node.inputs[0])
    rank = len(x.axes)
    first, last, _ = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", rank), 1).indices(rank)
    said = [axis for axis in range(first, last) if not x.is_plain(axis)]
    picked: set[int] = set()
    for user, _ in node.outputs[0].uses():
        index = _constant(user, 1) if user.op_type == "Gather" else None
        picked.update(range(first, last) if index is None else [first + place % (last - first) for place in index])
    if picked & set(said):
        raise Lost("the model computes with the number of channels")
    return [labelled(trace.dims(node.outputs[0]))]


INDEXING: dict[str, Rule] = {"Concat": concat, "Gather": gather, "Shape": shape, "Slice": slice_, "Split": split}
