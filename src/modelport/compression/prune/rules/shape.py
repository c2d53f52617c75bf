"""Operators that move, split and merge axes."""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from modelport.compression.prune.axes import Axis, Block, Digit, Layout, Lost
from modelport.compression.prune.cut import Cut, Sizes, template
from modelport.compression.prune.trace import Rule, Trace
from modelport.graph.shapes.expr import Size


def transpose(trace: Trace, node: ir.Node) -> list[Layout]:
    x = trace.layout(node.inputs[0])
    perm = node.attributes.get_ints("perm") or tuple(reversed(range(len(x.axes))))
    return [x.with_axes(x.axes[axis] for axis in perm)]


def regrouped(trace: Trace, x: Layout, dims: tuple[Size, ...]) -> Layout:
    """The layout with its digits as axes of other sizes."""
    parts = trace.split(x)
    axes = parts.regroup([digit for axis in x.axes for digit in axis], dims)
    return Layout(axes, parts.blocks)


def reshape(trace: Trace, node: ir.Node) -> list[Layout]:
    x = trace.layout(node.inputs[0])
    before, after = trace.dims(node.inputs[0]), trace.dims(node.outputs[0])
    made = regrouped(trace, x, after)
    sizes = Sizes(node, 1)
    followed = [axis for axis in range(len(after)) if not made.is_plain(axis)]
    if followed and _corrections(sizes, followed, list(after)) is None and template(list(before), list(after)) is None:
        raise Lost("its target is computed when the model runs")
    trace.fix(partial(_retarget, node, sizes, x, made))
    return [made]


def _retarget(node: ir.Node, sizes: Sizes, before: Layout, after: Layout, cut: Cut) -> None:
    """Say the new sizes in a target, where one of them is another."""
    touched = [axis for axis in range(len(after.axes)) if cut.touches(after, [axis])]
    if not touched:
        return
    found = _corrections(sizes, touched, _dims(cut, after))
    if found is not None:
        sizes.correct(cut, found)
        return
    target = template(_dims(cut, before), _dims(cut, after))
    if target is None:
        raise Lost("its target is computed when the model runs")
    cut.rewrite(node, 1, target)
    node.attributes.pop("allowzero", None)


def _corrections(sizes: Sizes, touched: list[int], dims: list[Size]) -> dict[int, int] | None:
    """Entries of a target to overwrite, where the sizes of some axes are new; `None` where that cannot be said so.

    A size that only the run tells is left to ONNX (-1), which works out one.
    """
    news = {}
    for axis in touched:
        size = dims[axis]
        if sizes.constant(axis) not in (0, -1):
            news[axis] = size if isinstance(size, int) else -1
    for axis, size in enumerate(dims):
        if -1 in news.values() and sizes.constant(axis) == -1 and isinstance(size, int):
            news[axis] = size
    left = [axis for axis in range(len(dims)) if news.get(axis, sizes.constant(axis)) == -1]
    return news if len(left) < 2 and all(sizes.can(axis) for axis in news) else None


def _dims(cut: Cut, layout: Layout) -> list[Size]:
    return [cut.size(layout, axis) for axis in range(len(layout.axes))]


def flatten(trace: Trace, node: ir.Node) -> list[Layout]:
    return [regrouped(trace, trace.layout(node.inputs[0]), trace.dims(node.outputs[0]))]


def drop_or_add(trace: Trace, node: ir.Node) -> list[Layout]:
    """Squeeze and Unsqueeze: axes of size 1 come and go."""
    return [regrouped(trace, trace.layout(node.inputs[0]), trace.dims(node.outputs[0]))]


def expand(trace: Trace, node: ir.Node) -> list[Layout]:
    """An axis that comes out of one number can be of any size, where the size is said by a constant."""
    x, dims = trace.layout(node.inputs[0]), trace.dims(node.outputs[0])
    sizes = Sizes(node, 1)
    missing = len(dims) - len(x.axes)
    axes, blocks = [() for _ in range(missing)] + list(x.axes), dict(x.blocks)
    for axis, size in enumerate(dims):
        if axes[axis] or size == 1:
            continue
        digit = Digit(size)
        axes[axis] = (digit,)
        if isinstance(size, int) and sizes.constant(axis) is not None:
            blocks[digit] = Block(trace.slots.fresh(size), (digit,))
    for axis in range(missing, len(dims)):
        if not x.is_plain(axis - missing) and sizes.constant(axis) is None and node.op_type == "Expand":
            raise Lost("its sizes are computed when the model runs")
    made = Layout(tuple(axes), blocks)
    trace.fix(lambda cut: _resize(cut, sizes, made))
    return [made]


def _resize(cut: Cut, sizes: Sizes, made: Layout) -> None:
    touched = [axis for axis in range(len(made.axes)) if cut.touches(made, [axis])]
    news = {axis: int(cut.size(made, axis)) for axis in touched if sizes.constant(axis) not in (1, None)}  # type: ignore[arg-type]
    if news:
        sizes.correct(cut, news)


def tile(trace: Trace, node: ir.Node) -> list[Layout]:
    """An axis stands several times behind itself."""
    x, repeats = trace.layout(node.inputs[0]), Sizes(node, 1)
    times = [repeats.constant(axis) for axis in range(len(x.axes))]
    if any(count is None and not x.is_plain(axis) for axis, count in enumerate(times)):
        raise Lost("how often is computed when the model runs")
    dims = trace.dims(node.outputs[0])
    axes: list[Axis] = []
    for axis, count in enumerate(times):
        if count is None:
            axes.append(() if dims[axis] == 1 else (Digit(dims[axis]),))
        else:
            axes.append(x.axes[axis] if count == 1 else (Digit(count), *x.axes[axis]))
    return [x.with_axes(axes)]


def constant_of_shape(trace: Trace, node: ir.Node) -> list[Layout]:
    """A tensor of one number can be of any size, where the size is said by a constant."""
    sizes, axes, blocks = Sizes(node, 0), [], {}
    for axis, size in enumerate(trace.dims(node.outputs[0])):
        digit = Digit(size)
        axes.append((digit,) if size != 1 else ())
        if isinstance(size, int) and size != 1 and sizes.constant(axis) is not None:
            blocks[digit] = Block(trace.slots.fresh(size), (digit,))
    made = Layout(tuple(axes), blocks)
    trace.fix(lambda cut: _resize(cut, sizes, made))
    return [made]


def depth_to_space(trace: Trace, node: ir.Node) -> list[Layout]:
    """A Reshape, a Transpose and a Reshape: of blocks of channels to blocks of places."""
    x, block = trace.layout(node.inputs[0]), node.attributes.get_int("blocksize", 1)
    batch, channels, height, width = trace.dims(node.inputs[0])
    left = channels // (block * block)
    if node.attributes.get_string("mode", "DCR") == "DCR":
        sizes, order = (batch, block, block, left, height, width), ((0,), (3,), (4, 1), (5, 2))
    else:
        sizes, order = (batch, left, block, block, height, width), ((0,), (1,), (4, 2), (5, 3))
    return [_spread(trace, x, sizes, order)]


def space_to_depth(trace: Trace, node: ir.Node) -> list[Layout]:
    """The other way round."""
    x, block = trace.layout(node.inputs[0]), node.attributes.get_int("blocksize", 1)
    batch, channels, height, width = trace.dims(node.inputs[0])
    sizes = (batch, channels, height // block, block, width // block, block)
    return [_spread(trace, x, sizes, ((0,), (3, 5, 1), (2,), (4,)))]


def _spread(trace: Trace, x: Layout, sizes: tuple[Size, ...], order: tuple[tuple[int, ...], ...]) -> Layout:
    fine = regrouped(trace, x, sizes)
    return fine.with_axes(tuple(digit for place in places for digit in fine.axes[place]) for places in order)


SHAPE: dict[str, Rule] = {
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Reshape": reshape,
    "SpaceToDepth": space_to_depth,
    "Squeeze": drop_or_add,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": drop_or_add,
}
