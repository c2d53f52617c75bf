"""Shapes and the arrangement of elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.static import Size, Unknown
from modelport.backends.keras.lower.table import op


@op("Shape", "ShapeN")
def shape(g: Context, *inputs: ir.Value) -> list[ir.Value]:
    return [g.cast(g("Shape", x), g.result_dtype()) for x in inputs]


@op("Size")
def size(g: Context, x: ir.Value) -> ir.Value:
    return g.cast(g("Size", x), g.result_dtype())


@op("Rank")
def rank(g: Context, x: ir.Value) -> ir.Value:
    return g.cast(g("Size", g("Shape", x)), g.result_dtype())


@op("Reshape", needs=(0,))
def reshape(g: Context, x: ir.Value) -> ir.Value:
    return reshaped(g, x, g.op.inputs[0], g.elements(1), g.op.inputs[1])


def reshaped(g: Context, x: ir.Value, source: Any, target: list[Size] | None, tensor: Any) -> ir.Value:
    """A Reshape whose target is a constant wherever at most one size has to be found at run time."""
    known = g.op.outputs[0].shape
    if target is not None and known.rank == len(target):
        # A -1 that TensorFlow could resolve is a size like any other.
        sizes: list[Size] = [n if n is not None else t for n, t in zip(known.as_list(), target, strict=True)]
        kept = [_kept(size, axis, source, known.rank) for axis, size in enumerate(sizes)]
        free = [axis for axis, n in enumerate(kept) if n is None]
        if len(free) <= 1:
            return g("Reshape", x, [-1 if n is None else n for n in kept])
    return g("Reshape", x, g.int64(g.value(tensor)))


def _kept(size: Size, axis: int, source: Any, rank: int) -> int | None:
    """A size as a Reshape writes it: 0 is that of the input's axis of the same number; `None` is not known."""
    if isinstance(size, Unknown):
        return 0 if size == Unknown(source.name, axis) else None
    return None if size == -1 else size


@op("Transpose", static=(1,))
def transpose(g: Context, x: ir.Value, perm: np.ndarray) -> ir.Value:
    return g.transpose(x, [int(axis) for axis in perm])


@op("ExpandDims", static=(1,))
def expand_dims(g: Context, x: ir.Value, axis: np.ndarray) -> ir.Value:
    return g("Unsqueeze", x, [int(axis)])


@op("Squeeze")
def squeeze(g: Context, x: ir.Value) -> ir.Value:
    axes = list(g.attr("squeeze_dims"))
    if not axes:
        shape = g.shape(0)
        if shape is None or None in shape:
            raise g.fail("the axes of size 1 are not known")
        axes = [axis for axis, n in enumerate(shape) if n == 1]
    return g("Squeeze", x, axes) if axes else x


@op("ConcatV2", static=(-1,))
def concat(g: Context, *inputs: Any) -> ir.Value:
    *parts, axis = inputs
    return parts[0] if len(parts) == 1 else g("Concat", *parts, axis=int(axis))


@op("Pack")
def pack(g: Context, *inputs: ir.Value) -> ir.Value:
    axis = g.attr("axis")
    rows = [g("Unsqueeze", x, [axis]) for x in inputs]
    return rows[0] if len(rows) == 1 else g("Concat", *rows, axis=axis)


@op("Unpack")
def unpack(g: Context, x: ir.Value) -> list[ir.Value]:
    count, axis = g.attr("num"), g.attr("axis")
    parts = [x] if count == 1 else g.many("Split", [x], count, axis=axis, num_outputs=count)
    return [g("Squeeze", part, [axis]) for part in parts]


@op("Split", static=(0,))
def split(g: Context, axis: np.ndarray, x: ir.Value) -> list[ir.Value]:
    count = g.attr("num_split")
    return [x] if count == 1 else list(g.many("Split", [x], count, axis=int(axis), num_outputs=count))


@op("SplitV", static=(1, 2))
def split_sizes(g: Context, x: ir.Value, sizes: np.ndarray, axis: np.ndarray) -> list[ir.Value]:
    parts = [int(n) for n in sizes]
    if -1 in parts:
        known = g.shape(0)
        whole = None if known is None else known[int(axis)]
        if whole is None:
            raise g.fail("the size of one part is not known")
        parts[parts.index(-1)] = whole - sum(parts) - 1
    return list(g.many("Split", [x, parts], len(parts), axis=int(axis)))


@op("Tile", needs=(0,))
def tile(g: Context, x: ir.Value) -> ir.Value:
    repeats = g.elements(1)
    if repeats is not None and all(isinstance(n, int) for n in repeats):
        return x if all(n == 1 for n in repeats) else g("Tile", x, repeats)
    return g("Tile", x, g.int64(g.value(g.op.inputs[1])))


@op("BroadcastTo", needs=(0,))
def broadcast_to(g: Context, x: ir.Value) -> ir.Value:
    target = g.elements(1)
    if target is not None and not any(isinstance(n, Unknown) for n in target):
        return g("Expand", x, target)
    return g("Expand", x, g.int64(g.value(g.op.inputs[1])))


@op("Fill", needs=(1,))
def fill(g: Context, number: ir.Value) -> ir.Value:
    target = g.elements(0)
    if target is not None and not any(isinstance(n, Unknown) for n in target):
        return g("Expand", number, target)
    return g("Expand", number, g.int64(g.value(g.op.inputs[0])))


@op("ZerosLike")
def zeros_like(g: Context, x: ir.Value) -> ir.Value:
    return g("Expand", g.operand(0, (x,)), g("Shape", x))


@op("OnesLike")
def ones_like(g: Context, x: ir.Value) -> ir.Value:
    return g("Expand", g.operand(1, (x,)), g("Shape", x))


@op("Range")
def range_(g: Context, start: ir.Value, limit: ir.Value, delta: ir.Value) -> ir.Value:
    return g("Range", start, limit, delta)


@op("Pad", "PadV2", static=(1,))
def pad(g: Context, x: ir.Value, pads: np.ndarray, number: ir.Value | None = None) -> ir.Value:
    return g("Pad", x, _pads(pads), number) if number is not None else g("Pad", x, _pads(pads))


@op("MirrorPad", static=(1,))
def mirror_pad(g: Context, x: ir.Value, pads: np.ndarray) -> ir.Value:
    if g.attr("mode") == "REFLECT":
        return g("Pad", x, _pads(pads), mode="reflect")
    # ONNX has no symmetric padding: each edge is a reversed slice of its own.
    for axis, (before, after) in enumerate(pads.astype(int)):
        parts = [x]
        if before:
            parts.insert(0, g("Slice", x, [before - 1], [-(1 << 62)], [axis], [-1]))
        if after:
            parts.append(g("Slice", x, [-1], [-after - 1], [axis], [-1]))
        x = g("Concat", *parts, axis=axis) if len(parts) > 1 else x
    return x


def _pads(pads: np.ndarray) -> list[int]:
    return [int(n) for n in pads[:, 0]] + [int(n) for n in pads[:, 1]]


@op("ReverseV2", static=(1,))
def reverse(g: Context, x: ir.Value, axes: np.ndarray) -> ir.Value:
    wanted = [int(n) for n in np.atleast_1d(axes)]
    if not wanted:
        return x
    count = len(wanted)
    return g("Slice", x, [-1] * count, [-(1 << 62)] * count, wanted, [-1] * count)


@op("Roll", static=(1, 2))
def roll(g: Context, x: ir.Value, shifts: np.ndarray, axes: np.ndarray) -> ir.Value:
    for shift, axis in zip(np.atleast_1d(shifts), np.atleast_1d(axes), strict=True):
        known = g.shape(0)
        size = None if known is None else known[int(axis)]
        if size is None:
            raise g.fail("the size of an axis that is rolled is not known")
        cut = int(-shift) % size
        if cut:
            head = g("Slice", x, [cut], [1 << 62], [int(axis)])
            x = g("Concat", head, g("Slice", x, [0], [cut], [int(axis)]), axis=int(axis))
    return x


@op("MatrixBandPart", static=(1, 2))
def band_part(g: Context, x: ir.Value, lower: np.ndarray, upper: np.ndarray) -> ir.Value:
    if g.dtype(0) == ir.DataType.INT32:
        # ONNX Runtime has no Trilu of int32.
        return g.cast(_band(g, g.cast(x, ir.DataType.INT64), int(lower), int(upper)), ir.DataType.INT32)
    return _band(g, x, int(lower), int(upper))


def _band(g: Context, x: ir.Value, lower: int, upper: int) -> ir.Value:
    if lower >= 0:
        x = g("Trilu", x, np.asarray(-lower, np.int64), upper=1)
    return g("Trilu", x, np.asarray(upper, np.int64), upper=0) if upper >= 0 else x


@op("BroadcastArgs")
def broadcast_args(g: Context, a: ir.Value, b: ir.Value) -> ir.Value:
    """The shape that two shapes stretch to."""
    counts = [None if (known := g.shape(i)) is None else known[0] for i in range(2)]
    if counts[0] is None or counts[1] is None:
        raise g.fail("the ranks of the shapes that are joined are not known")
    rank = max(counts[0], counts[1])
    sides = []
    for value, count in zip((a, b), (counts[0], counts[1]), strict=True):
        ones = np.ones(rank - count, g.dtype(0).numpy())
        sides.append(g("Concat", ones, value, axis=0) if count < rank else value)
    return g("Max", *sides)
