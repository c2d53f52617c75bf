"""Slicing, gathering and scattering."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.static import Unknown
from modelport.backends.keras.lower.table import op

_END = (1 << 62, -(1 << 62))
"""Beyond the end of any axis, forwards and backwards."""


@op("StridedSlice", needs=(0,))
def strided_slice(g: Context, x: ir.Value) -> ir.Value:
    begin, end, strides = _bounds(g, 1), _bounds(g, 2), g.elements(3)
    if begin is None or end is None or strides is None:
        raise g.fail("how many axes a slice cuts, or in which steps, is computed")
    plan = _StridedPlan(g, begin, end, strides)
    if plan.axes:
        x = plan.slice(g, x)
    if plan.dropped:
        x = g("Squeeze", x, plan.dropped)
    return g("Unsqueeze", x, plan.new) if plan.new else x


def _bounds(g: Context, index: int) -> list[Any] | None:
    """The bounds that an input gives, each a number or one that the run tells; `None` where their number is unknown."""
    found, shape = g.elements(index), g.shape(index)
    if found is None and shape is not None and isinstance(shape[0], int):
        return [Unknown(g.op.inputs[index].name, place) for place in range(shape[0])]
    return found


class _StridedPlan:
    """A strided slice as Slice, Squeeze and Unsqueeze: which axes each works on."""

    def __init__(self, g: Context, begin: list[Any], end: list[Any], strides: list[Any]) -> None:
        masks = {name: g.attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
        self.axes: list[int] = []
        self.starts: list[Any] = []
        self.ends: list[Any] = []
        self.steps: list[int] = []
        self.dropped: list[int] = []
        self.new: list[int] = []
        self._inputs = g.op.inputs
        flags = {name: [bool(mask >> i & 1) for i in range(len(begin))] for name, mask in masks.items()}
        axis = result = 0
        for i in range(len(begin)):
            if flags["ellipsis"][i]:
                later = sum(not flags["new_axis"][j] for j in range(i + 1, len(begin)))
                result += g.rank(0) - axis - later
                axis = g.rank(0) - later
            elif flags["new_axis"][i]:
                self.new.append(result)
                result += 1
            else:
                dropped = flags["shrink_axis"][i]
                open_ends = (flags["begin"][i] and not dropped, flags["end"][i] and not dropped)
                self._axis(i, axis, begin[i], end[i], int(strides[i]), open_ends, dropped)
                result += not dropped
                axis += 1

    def _axis(
        self, place: int, axis: int, begin: Any, end: Any, step: int, open_ends: tuple[bool, bool], dropped: bool
    ) -> None:
        if dropped:
            self.dropped.append(axis)
            start: Any = place if isinstance(begin, Unknown) else begin
            stop: Any = "next" if isinstance(begin, Unknown) else (begin + 1 if begin != -1 else _END[0])
            computed = (isinstance(begin, Unknown), isinstance(begin, Unknown))
        else:
            if all(open_ends) and step == 1:
                return
            start = (0 if step > 0 else _END[0]) if open_ends[0] else place if isinstance(begin, Unknown) else begin
            stop = _END[step < 0] if open_ends[1] else place if isinstance(end, Unknown) else end
            computed = (
                isinstance(begin, Unknown) and not open_ends[0],
                isinstance(end, Unknown) and not open_ends[1],
            )
        self.axes.append(axis)
        self.starts.append((start, computed[0]))
        self.ends.append((stop, computed[1]))
        self.steps.append(step)

    def slice(self, g: Context, x: ir.Value) -> ir.Value:
        starts = self._bounds(g, self.starts, 1)
        ends = self._bounds(g, self.ends, 2)
        steps = [] if all(step == 1 for step in self.steps) else [self.steps]
        return g("Slice", x, starts, ends, self.axes, *steps)

    def _bounds(self, g: Context, bounds: list[Any], index: int) -> Any:
        """Bounds as one constant, or as a Concat of those that are computed and those that are not."""
        if not any(computed for _, computed in bounds):
            return [bound for bound, _ in bounds]
        parts: list[ir.Value] = []
        for position, (bound, computed) in enumerate(bounds):
            if not computed:
                parts.append(g.lowering.constant(np.asarray([bound], np.int64)))
            elif bound == "next":
                start = self._one(g, 1, self.starts[position][0])
                parts.append(g("Add", start, np.asarray([1], np.int64)))
            else:
                parts.append(self._one(g, index, bound))
        return parts[0] if len(parts) == 1 else g("Concat", *parts, axis=0)

    def _one(self, g: Context, index: int, place: int) -> ir.Value:
        whole = g.int64(g.value(self._inputs[index]))
        return g("Gather", whole, np.asarray([place], np.int64), axis=0)


@op("Slice", needs=(0,))
def slice_(g: Context, x: ir.Value) -> ir.Value:
    begin, size, shape = g.elements(1), g.elements(2), g.shape(0)
    if begin is None or size is None or shape is None:
        return _computed_slice(g, x)
    source = g.op.inputs[0].name
    bounds: dict[int, tuple[int, int]] = {}
    for axis, (start, count, whole) in enumerate(zip(begin, size, shape, strict=True)):
        if start == 0 and count in (-1, whole, Unknown(source, axis)):
            continue
        if isinstance(start, Unknown) or isinstance(count, Unknown):
            return _computed_slice(g, x)
        bounds[axis] = (start, _END[0] if count == -1 else start + count)
    if not bounds:
        return x
    return g("Slice", x, [b[0] for b in bounds.values()], [b[1] for b in bounds.values()], list(bounds))


def _computed_slice(g: Context, x: ir.Value) -> ir.Value:
    begin, size = (g.int64(g.value(g.op.inputs[index])) for index in (1, 2))
    beyond = np.asarray(_END[0], np.int64)
    rest = g("Equal", size, np.asarray(-1, np.int64))
    return g("Slice", x, begin, g("Where", rest, beyond, g("Add", begin, size)))


@op("GatherV2", static=(2,))
def gather(g: Context, x: ir.Value, indices: ir.Value, axis: np.ndarray) -> ir.Value:
    if g.attr("batch_dims") == 0:
        return g("Gather", x, indices, axis=int(axis))
    if g.attr("batch_dims") == int(axis) == g.rank(1) - 1 and g.rank(0) == g.rank(1):
        return g("GatherElements", x, indices, axis=int(axis))
    if g.attr("batch_dims") == int(axis):
        last = g("Unsqueeze", g.int64(indices), [-1])
        return g("GatherND", x, last, batch_dims=g.attr("batch_dims"))
    raise g.fail("rows are gathered batch by batch along a later axis")


@op("GatherNd")
def gather_nd(g: Context, x: ir.Value, indices: ir.Value) -> ir.Value:
    return g("GatherND", x, g.int64(indices))


@op("OneHot", static=(1,))
def one_hot(g: Context, indices: ir.Value, depth: np.ndarray, on: ir.Value, off: ir.Value) -> ir.Value:
    values = g("Concat", g("Unsqueeze", off, [0]), g("Unsqueeze", on, [0]), axis=0)
    settled = (g.static(2), g.static(3))
    if settled[0] is not None and settled[1] is not None:
        values = g.operand(np.stack([settled[1], settled[0]]))
    # ONNX counts a negative index from the end; TensorFlow's has no one-hot. Moved past the depth it has none either.
    ids = g.int64(indices)
    inside = g("Where", g("Less", ids, 0), np.asarray(int(depth), np.int64), ids)
    return g("OneHot", inside, np.asarray(int(depth), np.int64), values, axis=g.attr("axis"))


@op("Where")
def where(g: Context, condition: ir.Value) -> ir.Value:
    return g("Transpose", g("NonZero", condition), perm=[1, 0])


@op("ScatterNd", needs=(0, 1))
def scatter_nd(g: Context, indices: ir.Value, updates: ir.Value) -> ir.Value:
    target = g.elements(2)
    known = target is not None and not any(isinstance(n, Unknown) for n in target)
    shape = target if known else g.int64(g.value(g.op.inputs[2]))
    zeros = g("Expand", g.operand(0, (updates,)), shape)
    return g("ScatterND", zeros, g.int64(indices), updates, reduction="add")


_SCATTERS = {
    "TensorScatterUpdate": "none",
    "TensorScatterAdd": "add",
    "TensorScatterMax": "max",
    "TensorScatterMin": "min",
}


@op(*_SCATTERS)
def tensor_scatter(g: Context, x: ir.Value, indices: ir.Value, updates: ir.Value) -> ir.Value:
    return g("ScatterND", x, g.int64(indices), updates, reduction=_SCATTERS[g.op.type])


_SEGMENTS = {"Sum": "add", "Prod": "mul", "Max": "max", "Min": "min"}


@op(*(f"UnsortedSegment{kind}" for kind in _SEGMENTS), static=(2,))
def segments(g: Context, x: ir.Value, ids: ir.Value, count: np.ndarray) -> ir.Value:
    # A number below zero belongs to no segment: what has one goes to a row behind them.
    wide, behind = g.int64(ids), int(count.item())
    places = g("Where", g("Less", wide, 0), np.asarray(behind), wide)
    found = _in_segments(g, x, places, g.operand([behind + 1]), g.op.type.removeprefix("Unsorted"))
    return g("Slice", found, [0], [-1], [0])


@op("SegmentSum", "SegmentMax", "SegmentMin", "SegmentProd")
def sorted_segments(g: Context, x: ir.Value, ids: ir.Value) -> ir.Value:
    """Segments whose numbers grow: the last one says how many there are."""
    places = g.int64(ids)
    count = g("Add", g("Gather", places, np.asarray([-1])), np.asarray([1]))
    found = _in_segments(g, x, places, count, g.op.type)
    if g.op.type in ("SegmentSum", "SegmentProd"):
        return found
    used = g("ReduceMax", g("Cast", g("Equal", _numbers(g, count), g("Unsqueeze", places, [-1])), to=_INT64), [0])
    rank = g.rank(0)
    there = g("Cast", g("Reshape", used, [-1, *[1] * (rank - 1)]), to=ir.DataType.BOOL.value)
    return g("Where", there, found, np.asarray(0, g.dtype(0).numpy()))


_INT64 = ir.DataType.INT64.value


def _numbers(g: Context, count: ir.Value) -> ir.Value:
    return g("Range", np.asarray(0), g("Squeeze", count, [0]), np.asarray(1))


def _in_segments(g: Context, x: ir.Value, places: ir.Value, count: ir.Value | None, name: str) -> ir.Value:
    """The elements of every segment joined; what has none is what joining starts from."""
    kind, dtype, rank = name.removeprefix("Segment"), g.dtype(0), g.rank(1)
    info: Any = np.finfo(dtype.numpy()) if dtype.is_floating_point() else np.iinfo(dtype.numpy())
    start = np.asarray({"Sum": 0, "Prod": 1, "Max": info.min, "Min": info.max}[kind], dtype.numpy())
    sizes = g("Concat", count, g("Shape", x, start=rank), axis=0) if g.rank(0) > rank else count
    return g("ScatterND", g("Expand", start, sizes), g("Unsqueeze", places, [-1]), x, reduction=_SEGMENTS[kind])


@op("LowerBound", "UpperBound")
def bound(g: Context, rows: ir.Value, values: ir.Value) -> ir.Value:
    before = "Less" if g.op.type == "LowerBound" else "LessOrEqual"
    passed = g(before, g("Unsqueeze", rows, [-2]), g("Unsqueeze", values, [-1]))
    return g("ReduceSum", g("Cast", passed, to=g.result_dtype().value), [-1], keepdims=0)


@op("InvertPermutation")
def inverted(g: Context, x: ir.Value) -> ir.Value:
    numbers = _numbers(g, g("Shape", x))
    return g("Cast", g("ScatterElements", numbers, g.int64(x), numbers), to=g.result_dtype().value)


@op("ReverseSequence")
def reversed_(g: Context, x: ir.Value, lengths: ir.Value) -> ir.Value:
    batch, time = g.attr("batch_dim"), g.attr("seq_dim")
    rest = [axis for axis in range(g.rank(0)) if axis not in (batch, time)]
    perm = [batch, time, *rest]
    turned = g("ReverseSequence", g.transpose(x, perm), g.int64(lengths), batch_axis=0, time_axis=1)
    return g.transpose(turned, [perm.index(axis) for axis in range(g.rank(0))])


@op("XlaDynamicUpdateSlice")
def update(g: Context, x: ir.Value, part: ir.Value, starts: ir.Value) -> ir.Value:
    whole, new = g.shape(0), g.shape(1)
    if whole is None or new is None:
        raise g.fail("the ranks of the tensor and of the part to be replaced are not known")
    settled = g.static(2)
    axes = [axis for axis, sizes in enumerate(zip(whole, new, strict=True)) if sizes[0] is None or sizes[0] != sizes[1]]
    axes = [axis for axis in axes if not (settled is not None and settled[axis] == 0 and new[axis] is None)]
    if any(whole[axis] is None or new[axis] is None for axis in axes):
        raise g.fail("a part is replaced along an axis of unknown size")
    return _updated(g, x, part, g.int64(starts), {axis: (int(whole[axis] or 0), int(new[axis] or 0)) for axis in axes})


def _updated(g: Context, x: ir.Value, part: ir.Value, starts: ir.Value, axes: dict[int, tuple[int, int]]) -> ir.Value:
    """What is before the part along an axis, what it becomes along the others, and what is behind it."""
    if not axes:
        return part
    (axis, (size, count)), *rest = axes.items()
    first = g("Clip", g("Gather", starts, np.asarray([axis])), np.asarray(0), np.asarray(size - count))
    end = g("Add", first, np.asarray([count]))
    middle = _updated(g, g("Slice", x, first, end, [axis]), part, starts, dict(rest))
    before, behind = g("Slice", x, [0], first, [axis]), g("Slice", x, end, [size], [axis])
    return g("Concat", before, middle, behind, axis=axis)


@op("Unique", "UniqueWithCounts")
def unique(g: Context, x: ir.Value) -> list[ir.Value]:
    dtype, kind = g.dtype(0), g.result_dtype(1)
    x = x if dtype.is_floating_point() or dtype == ir.DataType.STRING else g.int64(x)
    values, _, places, counts = g.many("Unique", [x], 4, sorted=0)
    found = [g("Cast", each, to=kind.value) for each in (places, counts)]
    return [g("Cast", values, to=dtype.value), *found[: len(g.op.outputs) - 1]]


@op("InTopK", "InTopKV2")
def in_top(g: Context, scores: ir.Value, targets: ir.Value, k: ir.Value) -> ir.Value:
    own = g("GatherElements", scores, g("Unsqueeze", g.int64(targets), [-1]), axis=-1)
    better = g("ReduceSum", g("Cast", g("Greater", scores, own), to=ir.DataType.INT64.value), [-1], keepdims=0)
    return g("Less", better, g.int64(k))


@op("Bucketize")
def bucketize(g: Context, x: ir.Value) -> ir.Value:
    bounds = np.asarray(g.attr("boundaries"), g.dtype(0).numpy())
    reached = g("GreaterOrEqual", g("Unsqueeze", x, [-1]), bounds)
    return g("ReduceSum", g.cast(reached, ir.DataType.INT32), [-1], keepdims=0)
