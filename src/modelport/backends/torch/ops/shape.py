"""Operators that move elements and compute nothing: shapes, axes, casts and fills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import fx

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Constant, Scalar, Size, Sizes, Tensor, Weight


@op("Identity")
def identity(x: Weight) -> Any:
    return x


@op("Constant")
def constant(*, value: np.ndarray, node: ir.Node) -> Constant:
    return Constant(node.outputs[0], value)


@op("Reshape")
def reshape(x: Tensor, shape: Sizes, *, allowzero: int = 0, node: ir.Node) -> Any:
    if not allowzero:
        shape = [x.size_of(axis) if isinstance(size, int) and size == 0 else size for axis, size in enumerate(shape)]
    inferred = node.outputs[0].shape
    if inferred is not None and len(inferred) == len(shape):
        # A size that inference knows is better given as a number than as arithmetic on other sizes.
        pairs = zip(shape, inferred, strict=True)
        shape = [dim if isinstance(size, fx.Proxy) and isinstance(dim, int) else size for size, dim in pairs]
    return torch.reshape(x, shape)


@op("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Any:
    axis = axis + x.rank if axis < 0 else axis
    if axis == 1 and x.rank > 1:
        return torch.flatten(x, 1)
    rows, columns = _product(x.dims[:axis]), _product(x.dims[axis:])
    if rows is None and columns is None:
        return torch.flatten(torch.flatten(x, axis), 0, axis - 1)
    if rows is None or columns is None:
        return torch.reshape(x, [-1 if rows is None else rows, -1 if columns is None else columns])
    return torch.reshape(x, [rows, columns])


def _product(dims: tuple[int | None, ...]) -> int | None:
    known = [dim for dim in dims if dim is not None]
    return math.prod(known) if len(known) == len(dims) else None


@op("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Any:
    return torch.permute(x, list(perm) if perm is not None else list(range(x.rank))[::-1])


@op("Squeeze")
def squeeze(x: Tensor, axes: Sizes | None = None) -> Any:
    if axes is None:
        axes = [axis for axis, dim in enumerate(x.dims) if dim == 1]
    return torch.squeeze(x, tuple(axes))


@op("Unsqueeze")
def unsqueeze(x: Tensor, axes: Sizes, *, node: ir.Node) -> Any:
    rank = x.rank + len(axes)
    if not all(isinstance(axis, int) for axis in axes):
        shape = node.outputs[0].shape
        if shape is None or not shape.is_static():
            raise CannotBuild("its axes are computed by the model and the shape of its output is not known")
        return torch.reshape(x, [int(dim) for dim in shape])
    for axis in sorted(axis % rank for axis in axes):
        x = torch.unsqueeze(x, axis)
    return x


@op("Expand")
def expand(x: Tensor, shape: Sizes, *, node: ir.Node) -> Any:
    rank = max(len(shape), x.rank)
    sizes = [1] * (rank - len(shape)) + shape
    lead = rank - x.rank
    target = [sizes[axis] if axis < lead else _widest(x, axis - lead, sizes[axis], axis, node) for axis in range(rank)]
    # A function, not a method: unpickling a GraphModule traces its code again with plain tensors for the constants.
    return torch.broadcast_to(x, target)


def _widest(x: Tensor, axis: int, size: Any, out: int, node: ir.Node) -> Any:
    """What to expand an axis to: ONNX broadcasts both ways, torch one way; -1 leaves the axis as it is."""
    dim = x.dims[axis]
    if isinstance(size, int) and size == 1:
        return -1
    if dim is not None:
        return size if dim == 1 else -1
    shape, inner = node.outputs[0].shape, node.inputs[0].shape
    if (
        shape is not None
        and inner is not None
        and str(shape[out]) == str(inner[axis])
        and "None" not in str(shape[out])
    ):
        return -1
    return torch.sym_max(x.size(axis), size)


@op("Tile")
def tile(x: Tensor, repeats: Sizes) -> Any:
    return torch.tile(x, repeats)


@op("Concat")
def concat(*tensors: Tensor, axis: int) -> Any:
    return torch.cat(list(tensors), axis)


@op("Split")
def split(
    x: Tensor, sizes: Sizes | None = None, *, axis: int = 0, num_outputs: int | None = None, node: ir.Node
) -> tuple[Any, ...]:
    if sizes is None:
        count = num_outputs or len(node.outputs)
        total = x.size_of(axis)
        each = (total + count - 1) // count
        sizes = [each] * (count - 1) + [total - each * (count - 1)]
    parts = torch.split(x, sizes, axis)
    return tuple(parts[index] for index in range(len(node.outputs)))


_TO_THE_END = 2**31 - 1


@op("Slice")
def slice_(
    x: Tensor, starts: Weight, ends: Weight, axes: Weight = None, steps: Weight = None, *, operands: Operands
) -> Any:
    if any(isinstance(operand, Tensor) for operand in (axes, steps)):
        return _slice_read(x, *(None if o is None else operands.tensor(o) for o in (starts, ends, axes, steps)))  # type: ignore[arg-type]
    begins, stops = operands.sizes(starts), operands.sizes(ends)
    strides = [1] * len(begins) if steps is None else operands.sizes(steps)
    places = [axis % x.rank for axis in (range(len(begins)) if axes is None else operands.sizes(axes))]
    index: dict[int, slice] = {}
    flipped = [axis for axis, step in zip(places, strides, strict=True) if isinstance(step, int) and step < 0]
    for axis, start, end, step in zip(places, begins, stops, strides, strict=True):
        index[axis] = _mirrored(x, axis, start, end, step) if axis in flipped else _forward(start, end, step)
    y: Any = torch.flip(x, flipped) if flipped else x
    if any(isinstance(bound, fx.Proxy) for part in index.values() for bound in (part.start, part.stop)):
        # Indexing a constant by a traced size cannot be traced again, which unpickling a GraphModule does.
        for axis, part in index.items():
            y = torch.ops.aten.slice.Tensor(y, axis, part.start, part.stop, part.step or 1)
        return y
    return y[tuple(index.get(axis, slice(None)) for axis in range(max(index) + 1))] if index else y


def _slice_read(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None, steps: Tensor | None) -> Any:
    """A slice whose axes or steps are read when the module runs."""
    sizes = torch.stack([x.new_full((), x.size_of(axis), dtype=torch.int64) for axis in range(x.rank)])
    places = torch.arange(starts.size(0), device=x.device)
    places = places if axes is None else torch.remainder(axes.to(torch.int64), x.rank)
    step = torch.ones_like(sizes)
    step = step if steps is None else torch.scatter(step, 0, places, steps.to(torch.int64))
    begin = torch.scatter(torch.zeros_like(sizes), 0, places, starts.to(torch.int64))
    stop = torch.scatter(sizes, 0, places, ends.to(torch.int64))
    begin, stop = (torch.where(bound < 0, bound + sizes, bound) for bound in (begin, stop))
    # Forwards the bounds are in [0, size], backwards in [-1, size - 1]; a slice is never longer than nothing.
    back = (step < 0).to(torch.int64)
    begin, stop = (torch.minimum(torch.maximum(bound, -back), sizes - back) for bound in (begin, stop))
    stop = torch.where(step < 0, torch.minimum(begin, stop), torch.maximum(begin, stop))
    bounds = [bound.tolist() for bound in (begin, stop, step)]
    y: Any = x
    for axis in range(x.rank):
        y = torch.index_select(y, axis, torch.arange(*(bound[axis] for bound in bounds), device=x.device))
    return y


def _forward(start: Any, end: Any, step: Any) -> slice:
    start = None if isinstance(start, int) and start == 0 else start
    end = None if isinstance(end, int) and end >= _TO_THE_END else end
    return slice(start, end, None if isinstance(step, int) and step == 1 else step)


def _mirrored(x: Tensor, axis: int, start: Any, end: Any, step: int) -> slice:
    """A slice that runs backwards, as one that runs forwards over the flipped axis."""
    size = x.size_of(axis)

    def mirror(position: Any) -> Any:
        if isinstance(position, int) and position < 0:
            return -1 - position
        last = size - 1 - position
        return max(last, 0) if isinstance(last, int) else torch.sym_max(last, 0)

    unbounded = isinstance(end, int) and end <= -_TO_THE_END
    return slice(mirror(start), None if unbounded else mirror(end), None if step == -1 else -step)


@op("Pad")
def pad(
    x: Tensor, pads: Weight, value: Scalar = None, axes: Weight = None, *, mode: str = "constant", operands: Operands
) -> Any:
    if isinstance(axes, Tensor):
        amounts, places = _pads_read(x, operands.tensor(pads), axes), list(range(x.rank))
    else:
        amounts = operands.sizes(pads)
        places = [axis % x.rank for axis in (range(x.rank) if axes is None else operands.sizes(axes))]
    begin, end = [0] * x.rank, [0] * x.rank
    for position, axis in enumerate(places):
        begin[axis], end[axis] = amounts[position], amounts[position + len(places)]
    if mode == "constant":
        return _pad_constant(x, begin, end, value)
    for axis in places:
        x = _pad_axis(x, axis, begin[axis], end[axis], mode)
    return x


def _pads_read(x: Tensor, pads: Tensor, axes: Tensor) -> list[Any]:
    """The padding of every axis, where the axes are read when the module runs."""
    places = torch.remainder(axes.to(torch.int64), x.rank)
    both = torch.cat([places, places + x.rank])
    values = torch.scatter(pads.new_zeros((2 * x.rank,)), 0, both, pads).tolist()
    return [values[index] for index in range(2 * x.rank)]


def _pad_constant(x: Tensor, begin: list[Any], end: list[Any], value: Any) -> Any:
    first = next((a for a in range(x.rank) if not (_is_zero(begin[a]) and _is_zero(end[a]))), x.rank)
    pairs = [size for axis in reversed(range(first, x.rank)) for size in (begin[axis], end[axis])]
    if not pairs:
        return x
    fill = value.item() if isinstance(value, Tensor) else value or 0
    if x.element == torch.bool:
        return F.pad(x.to(torch.uint8), pairs, value=fill).to(torch.bool)
    return F.pad(x, pairs, value=fill)


def _is_zero(size: Any) -> bool:
    return isinstance(size, int) and size == 0


def _pad_axis(x: Any, axis: int, begin: Any, end: Any, mode: str) -> Any:
    """One axis by an index, which does for any rank, any dtype and any amount what torch's own modes do for some."""
    if _is_zero(begin) and _is_zero(end):
        return x
    size = x.size(axis)
    position = torch.arange(-begin if isinstance(begin, int) else begin * -1, size + end, device=x.device)
    if mode == "edge":
        position = torch.clamp(position, torch.zeros_like(position), torch.full_like(position, size - 1))
    elif mode == "wrap":
        position = torch.remainder(position, size)
    else:
        period = torch.sym_max(2 * (size - 1), 1)
        position = torch.remainder(position, period)
        position = torch.minimum(position, period - position)
    return torch.index_select(x, axis, position)


@op("ConstantOfShape")
def constant_of_shape(shape: Sizes, *, value: np.ndarray | None = None, anchor: Tensor) -> Any:
    value = np.zeros(1, np.float32) if value is None else value
    dtype = torch_dtype(ir.DataType.from_numpy(value.dtype))
    return anchor.new_full(tuple(shape), value.reshape(-1)[0].item(), dtype=dtype)


@op("Range")
def range_(start: Size, limit: Size, delta: Size, *, node: ir.Node, anchor: Tensor) -> Any:
    dtype = node.outputs[0].dtype
    assert dtype is not None
    if isinstance(delta, (int, float)):
        limit = _ahead(start, limit, delta)
    return torch.arange(start, limit, delta, dtype=torch_dtype(dtype), device=anchor.device)


def _ahead(start: Any, limit: Any, delta: float) -> Any:
    """Where a range ends; a limit behind the start, of which torch makes an error, leaves nothing between them."""
    if not isinstance(start, fx.Proxy) and not isinstance(limit, fx.Proxy):
        return max(start, limit) if delta > 0 else min(start, limit)
    is_size = isinstance(limit, fx.Proxy) and limit.node.target == "size"
    if is_size and not isinstance(start, fx.Proxy) and start <= 0 < delta:
        return limit
    return (torch.sym_max if delta > 0 else torch.sym_min)(limit, start)


@op("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Any:
    rows = torch.arange(x.size_of(0), device=x.device).unsqueeze(1)
    columns = torch.arange(x.size_of(1), device=x.device)
    return (columns - rows == k).to(x.element if dtype is None else torch_dtype(dtype))


@op("Trilu")
def trilu(x: Tensor, k: Size = 0, *, upper: int = 1) -> Any:
    return (torch.triu if upper else torch.tril)(x, k)


@op("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Any:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = (x.size_of(axis) for axis in range(4))
    depth = c // (blocksize * blocksize)
    y = torch.reshape(x, [n, blocksize, blocksize, depth, h, w]).permute(0, 3, 4, 1, 5, 2)
    return torch.reshape(y, [n, depth, h * blocksize, w * blocksize])


@op("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Any:
    n, c, h, w = (x.size_of(axis) for axis in range(4))
    rows, columns = h // blocksize, w // blocksize
    y = torch.reshape(x, [n, c, rows, blocksize, columns, blocksize])
    y = y.permute(0, 1, 3, 5, 2, 4) if mode == "CRD" else y.permute(0, 3, 5, 1, 2, 4)
    return torch.reshape(y, [n, c * blocksize * blocksize, rows, columns])


@op("CenterCropPad")
def center_crop_pad(x: Tensor, shape: Sizes, *, axes: Sequence[int] | None = None, node: ir.Node) -> Any:
    axes = [axis % x.rank for axis in axes] if axes is not None else list(range(x.rank))
    pairs = [0] * (2 * x.rank)
    inferred = node.outputs[0].shape
    for axis, size in zip(axes, shape, strict=True):
        have = x.dims[axis]
        want = inferred[axis] if inferred is not None and isinstance(inferred[axis], int) else size
        if have is None or not isinstance(want, int):
            raise CannotBuild(f"the size of axis {axis} or its target is not known; make both static")
        if want >= have:
            before = (want - have) // 2
            after = want - have - before
        else:
            # A crop leaves the larger part of an odd remainder at the end.
            before = -((have - want) // 2)
            after = want - have - before
        place = 2 * (x.rank - 1 - axis)
        pairs[place : place + 2] = [before, after]
    return F.pad(x, pairs)


@op("ReverseSequence")
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    steps = torch.arange(x.size_of(time_axis), device=x.device)
    ends = lengths.unsqueeze(1)
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    y = torch.movedim(x, (batch_axis, time_axis), (0, 1))
    source = torch.reshape(source, [source.size(0), source.size(1)] + [1] * (x.rank - 2)).expand_as(y)
    return torch.movedim(torch.gather(y, 1, source), (0, 1), (batch_axis, time_axis))
