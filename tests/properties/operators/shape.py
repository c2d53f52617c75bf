"""The same elements at other places: reshapes, transposes, slices, pads; and sizes."""

from __future__ import annotations

import math

import numpy as np

from tests.properties.drawing import ANY, BOOL, F32, FLOATS, I32, I64, NUMBERS, Dim, Scope, Unfit, Value
from tests.properties.operators.registry import operator


def least(dim: Dim) -> int:
    return dim if isinstance(dim, int) else min(dim)


@operator(5, weight=4)
def reshape(s: Scope) -> None:
    """Axes are merged and split; at most one size is left to be found."""
    x = s.value(ANY)
    target: list[int] = []
    free = not s.chance(50)
    for axis, dim in enumerate(x.dims):
        if isinstance(dim, int) and dim > 1 and dim % 2 == 0 and s.chance(25):
            target += [2, dim // 2]
        elif isinstance(dim, int) and target and target[-1] > 0 and s.chance(30):
            target[-1] *= dim
        elif isinstance(dim, int):
            target.append(0 if axis == len(target) and s.chance(20) else dim)
        elif axis == len(target) and s.chance(60):
            target.append(0)
        elif free or -1 in target:
            raise Unfit
        else:
            target.append(-1)
    if s.chance(20):
        target.insert(s.integer(0, len(target)), 1)
    if -1 not in target and target and all(n > 0 for n in target) and s.chance(40):
        target[s.integer(0, len(target) - 1)] = -1
    zero = s.choose([None, 0]) if s.opset >= 14 and s.chance(30) else None
    s.op("Reshape", x, s.ints(target), allowzero=zero)


@operator(5, weight=2)
def reshape_by_sizes(s: Scope) -> None:
    """The way exporters write `x.reshape(x.shape[0], -1)` and `x.reshape(y.shape)`."""
    x = s.value(ANY, (2, 3, 4))
    shape = s.op("Shape", x)
    if s.chance(40):
        flat = s.op("Reshape", x, s.ints([-1]))
        s.op("Reshape", s.op("Identity", flat), shape)
        return
    first = s.op("Gather", shape, s.ints(0 if s.chance(50) else [0]), axis=0)
    if first.rank == 0:
        first = _unsqueezed(s, first, [0])
    s.op("Reshape", x, s.op("Concat", first, s.ints([-1]), axis=0))


def _unsqueezed(s: Scope, x: Value, axes: list[int]) -> Value:
    if s.opset < 13:
        return s.op("Unsqueeze", x, axes=axes)
    return s.op("Unsqueeze", x, s.ints(axes))


@operator(1, weight=4)
def transpose(s: Scope) -> None:
    x = s.value(ANY)
    perm = list(range(x.rank))
    if x.rank == 4 and s.chance(40):
        perm = s.choose([[0, 2, 3, 1], [0, 3, 1, 2]])
    else:
        for place in range(x.rank - 1):
            other = s.integer(place, x.rank - 1)
            perm[place], perm[other] = perm[other], perm[place]
    s.op("Transpose", x, perm=perm if s.chance(85) else None)


@operator(1)
def flatten(s: Scope) -> None:
    x = s.value(ANY if s.opset >= 9 else FLOATS)
    axis = s.integer(-x.rank if s.opset >= 11 else 0, x.rank)
    s.op("Flatten", x, axis=s.maybe(axis))


@operator(1, weight=2)
def squeeze(s: Scope) -> None:
    x = s.value(ANY, None, lambda v: 1 in v.dims)
    units = [axis for axis, dim in enumerate(x.dims) if dim == 1]
    # Without axes the rank would follow from sizes that only the run tells; every unit axis is one that is known.
    axes = [axis for axis in units if s.chance(60)]
    if not axes and not any(value is x for value in s.root().inputs):
        axes = units
    axes = [axis - x.rank if s.opset >= 11 and s.chance(30) else axis for axis in axes]
    if s.opset < 13:
        s.op("Squeeze", x, axes=axes or None)
    else:
        s.op("Squeeze", x, s.ints(axes) if axes else None)


@operator(1, weight=2)
def unsqueeze(s: Scope) -> None:
    x = s.value(ANY, range(5))
    rank = x.rank + s.integer(1, 2)
    axes = [s.integer(0, rank - 1) for _ in range(rank - x.rank)]
    if len(set(axes)) < len(axes):
        raise Unfit
    _unsqueezed(s, x, [axis - rank if s.opset >= 11 and s.chance(30) else axis for axis in axes])


@operator(4, weight=3)
def concat(s: Scope) -> None:
    x = s.value(ANY)
    axis = s.axis(x)
    place = axis % x.rank

    def fits(v: Value) -> bool:
        return all(a == b for i, (a, b) in enumerate(zip(v.dims, x.dims, strict=True)) if i != place)

    def fresh() -> Value:
        return s.leaf([s.choose([1, 2, 3]) if i == place else dim for i, dim in enumerate(x.dims)], x.dtype)

    others = [s.value((x.dtype,), x.rank, fits, fresh) for _ in range(s.integer(0, 2))]
    parts = [*others, x] if s.chance(40) else [x, *others]
    s.op("Concat", *parts, axis=axis)


@operator(2, weight=3)
def split(s: Scope) -> None:
    x = s.value(ANY, range(1, 7))
    axis = s.axis(x)
    size = x.dims[axis]
    if not isinstance(size, int) or not size:
        raise Unfit
    parts = s.integer(1, min(size, 3))
    sizes = [size // parts] * parts
    sizes[-1] += size - sum(sizes)
    given, attributes = None, {}
    if s.opset < 13:
        attributes = {"split": sizes if size % parts or s.chance(60) else None}
    elif s.opset >= 18 and s.chance(50):
        attributes = {"num_outputs": parts}
    elif size % parts or s.chance(60):
        given = s.ints(sizes)
    if s.opset >= 18 and given is None:
        attributes = {"num_outputs": parts}
    s.ops("Split", [x, given], (True,) * parts, axis=s.maybe(axis) if axis == 0 else axis, **attributes)


@operator(1, weight=4)
def slice_(s: Scope) -> None:
    x = s.value(ANY, range(1, 7))
    axes = [axis for axis in range(x.rank) if s.chance(50)] or [x.rank - 1]
    starts, ends, steps = [], [], []
    for axis in axes:
        size = least(x.dims[axis])
        step = s.choose([1, 1, 2, -1, -2]) if s.opset >= 10 else 1
        start, end = s.integer(0, max(size - 1, 0)), s.choose([2**31 - 1, size, -1, 2**63 - 1, 1])
        if step < 0:
            start, end = s.choose([-1, 2**31 - 1, start]), s.choose([-(2**31), 0, -(2**63) + 1, -size - 1])
        elif s.chance(30):
            start -= size
        starts, ends, steps = [*starts, start], [*ends, end], [*steps, step]
    if s.opset < 10:
        given = None if axes == list(range(len(axes))) and s.chance(50) else axes
        s.op("Slice", x, starts=starts, ends=ends, axes=given)
        return
    axes = [axis - x.rank if s.opset >= 11 and s.chance(30) else axis for axis in axes]
    plain = set(steps) == {1} and s.chance(50)
    leading = axes == list(range(len(axes))) and s.chance(50)
    dtype = I32 if s.chance(20) and max(map(abs, (*starts, *ends))) < 2**31 else I64
    given = [starts, ends, None if leading else axes, None if plain else steps]
    s.op("Slice", x, *(None if numbers is None else s.ints(numbers, dtype) for numbers in given))


@operator(10)
def slice_by_sizes(s: Scope) -> None:
    """Up to a size that is known when the graph runs."""
    x = s.value(ANY, range(1, 6))
    axis = s.integer(0, x.rank - 1)
    end = s.op("Gather", s.op("Shape", x), s.ints([axis]), axis=0)
    if least(x.dims[axis]) and s.chance(50):
        end = s.op("Sub", end, s.ints([1]))
    s.op("Slice", x, s.ints([0]), end, s.ints([axis]))


@operator(8, weight=2)
def expand(s: Scope) -> None:
    x = s.value(ANY, range(5))
    target = []
    for dim in x.dims:
        target.append(s.choose([1, 2, 3]) if dim == 1 else 1 if s.chance(40) or not isinstance(dim, int) else dim)
    if s.chance(30):
        target.insert(0, s.choose([1, 2]))
    s.op("Expand", x, s.ints(target[s.integer(0, len(target)) if s.chance(20) else 0 :]))


@operator(8)
def expand_to_another(s: Scope) -> None:
    y = s.value(ANY)
    x = s.beside(y, (F32,))
    s.op("Expand", x, s.op("Shape", y))


@operator(6, weight=2)
def tile(s: Scope) -> None:
    x = s.value(ANY, range(5))
    s.op("Tile", x, s.ints([s.choose([1, 2, 3]) for _ in range(x.rank)]))


@operator(2, weight=4)
def pad(s: Scope) -> None:
    modes = ["constant", "reflect", "edge"] + (["wrap"] if s.opset >= 19 else [])
    mode = s.choose(modes)
    x = s.value(NUMBERS if s.opset >= 11 else FLOATS, range(1, 6))
    axes = [axis for axis in range(x.rank) if s.chance(60)] or [x.rank - 1]
    room = [
        least(x.dims[axis]) - 1 if mode == "reflect" else least(x.dims[axis]) if mode == "wrap" else 3 for axis in axes
    ]
    low = -1 if mode == "constant" else 0
    pads = [s.integer(low, min(max(n, 0), 3)) for n in (*room, *room)]
    value = s.integer(0, 2)
    if s.opset < 18 or s.chance(60):
        half = len(axes)
        full = [0] * (2 * x.rank)
        for place, axis in enumerate(axes):
            full[axis], full[axis + x.rank] = pads[place], pads[place + half]
        pads, axes = full, []
    name = s.maybe(mode) if mode == "constant" else mode
    if s.opset < 11:
        s.op("Pad", x, pads=pads, mode=name, value=s.maybe(float(value)))
        return
    fill = s.given(np.asarray(value, x.dtype)) if s.chance(50) else None
    where = s.ints([axis - x.rank if s.chance(30) else axis for axis in axes]) if axes else None
    s.op("Pad", x, s.ints(pads), fill, where, mode=name)


@operator(1, weight=2)
def sizes(s: Scope) -> None:
    x = s.value(ANY)
    if s.chance(25):
        s.op("Size", x)
    elif s.opset >= 15 and s.chance(60):
        s.op("Shape", x, start=s.maybe(s.integer(-2, 2)), end=s.maybe(s.integer(-2, 4)))
    else:
        s.op("Shape", x)


@operator(9, weight=2)
def fill(s: Scope) -> None:
    """A constant of a size that another value tells."""
    from onnx import numpy_helper

    value = None
    if s.chance(70):
        array = s.array((1,), s.choose([F32, I64, BOOL, I32]))
        value = numpy_helper.from_array(array)
    shape = (
        s.op("Shape", s.value(ANY, range(4)))
        if s.chance(60)
        else s.ints([s.integer(0, 3) or 2 for _ in range(s.integer(0, 3))])
    )
    s.op("ConstantOfShape", shape, value=value)


@operator(11, weight=2)
def range_(s: Scope) -> None:
    """Numbers from a start to an end, or to a size."""
    if s.chance(50):
        x = s.value(ANY, range(1, 5))
        size = s.op("Gather", s.op("Shape", x), s.ints(s.integer(0, x.rank - 1)))
        s.op("Range", s.ints(s.choose([0, 1])), size, s.ints(s.choose([1, 2])))
        return
    dtype = s.choose([I64, F32, I32])
    start, step = s.integer(-3, 3), s.choose([1, 2, -1, -2])
    numbers = (start, start + step * s.integer(0, 5), step)
    s.op("Range", *(s.given(np.asarray(number, dtype)) for number in numbers))


@operator(9)
def eye(s: Scope) -> None:
    x = s.value((F32, I64, I32), 2)
    s.op("EyeLike", x, dtype=s.choose([None, 1, 7, 11]), k=s.maybe(s.integer(-2, 2)))


@operator(14)
def triangle(s: Scope) -> None:
    x = s.value(ANY, (2, 3, 4))
    s.op("Trilu", x, s.ints(s.integer(-2, 2)) if s.chance(50) else None, upper=s.choose([None, 0, 1]))


@operator(1, weight=2)
def blocks(s: Scope) -> None:
    if s.chance(50):
        mode = s.choose([None, "DCR", "CRD"]) if s.opset >= 11 else None
        x = s.value(
            FLOATS,
            4,
            lambda v: isinstance(v.dims[1], int) and v.dims[1] % 4 == 0,
            lambda: s.leaf((s.dim(), 4 * s.integer(1, 2), s.dim(), s.dim())),
        )
        s.op("DepthToSpace", x, blocksize=2, mode=mode)
    else:
        x = s.leaf((s.dim(), s.integer(1, 3), 2 * s.integer(1, 3), 2 * s.integer(1, 3)))
        s.op("SpaceToDepth", x, blocksize=2)


@operator(18)
def crop(s: Scope) -> None:
    x = s.value((F32, I64, I32), range(1, 5))
    axes = [axis for axis in range(x.rank) if s.chance(60)] or [0]
    given = None if axes == list(range(x.rank)) and s.chance(60) else axes
    s.op("CenterCropPad", x, s.ints([s.integer(1, 6) for _ in axes]), axes=given)


@operator(10)
def reverse_sequences(s: Scope) -> None:
    x = s.value(FLOATS, (2, 3, 4))
    batch = s.integer(0, 1)
    if not least(x.dims[1 - batch]):
        # No length fits: the standard's begin at 1.
        raise Unfit
    lengths = s.leaf((x.dims[batch],), I64, 1, least(x.dims[1 - batch]))
    s.op("ReverseSequence", x, lengths, batch_axis=batch, time_axis=1 - batch)


@operator(18)
def columns_to_image(s: Scope) -> None:
    height, width = s.integer(3, 5), s.integer(3, 5)
    kernel = [s.integer(1, 2), s.integer(1, 3)]
    strides, pads = [s.integer(1, 2), s.integer(1, 2)], [s.integer(0, 1) for _ in range(4)]
    counts = [(size + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, size in enumerate((height, width))]
    x = s.leaf((s.dim(), math.prod(kernel) * s.integer(1, 2), math.prod(counts)))
    s.op("Col2Im", x, s.ints([height, width]), s.ints(kernel), strides=strides, pads=pads)
