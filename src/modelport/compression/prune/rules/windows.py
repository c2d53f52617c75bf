"""Poolings, resizing and padding: channels stay, places change."""

from __future__ import annotations

import onnx_ir as ir

from modelport.compression.prune.axes import Layout, fixed, plain
from modelport.compression.prune.cut import Cut, Sizes
from modelport.compression.prune.trace import Rule, Trace

POOLS = """
    AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool
""".split()  # noqa: SIM905


def pool(trace: Trace, node: ir.Node) -> list[Layout]:
    x = trace.layout(node.inputs[0])
    places = plain(trace.dims(node.outputs[0])).axes[2:]
    return [Layout((*x.axes[:2], *places), x.blocks)] * len(node.outputs)


def _resized(trace: Trace, node: ir.Node, reason: str) -> Layout:
    """A layout in which axes of another size than the input's are plain."""
    x, after = trace.layout(node.inputs[0]), trace.dims(node.outputs[0])
    before, fresh = trace.dims(node.inputs[0]), plain(after)
    changed = [axis for axis in range(len(after)) if before[axis] != after[axis]]
    gone = [digit for axis in changed for digit in x.axes[axis]]
    x = fixed(x, gone, trace.slots, trace.reason(node, reason))
    return x.with_axes(fresh.axes[axis] if axis in changed else x.axes[axis] for axis in range(len(after)))


def resize(trace: Trace, node: ir.Node) -> list[Layout]:
    made = _resized(trace, node, "it changes how many channels there are")
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        sizes = Sizes(node, 3)
        rank = len(made.axes)
        axes = [axis % rank for axis in node.attributes.get_ints("axes") or range(rank)]
        computed = [axis for entry, axis in enumerate(axes) if sizes.constant(entry) is None]
        gone = [digit for axis in computed for digit in made.axes[axis]]
        made = fixed(made, gone, trace.slots, trace.reason(node, "its sizes are computed when the model runs"))
        trace.fix(lambda cut: _correct(cut, sizes, made, axes))
    return [made]


def _correct(cut: Cut, sizes: Sizes, made: Layout, axes: list[int]) -> None:
    news = {entry: int(cut.size(made, axis)) for entry, axis in enumerate(axes) if cut.touches(made, [axis])}  # type: ignore[arg-type]
    if news:
        sizes.correct(cut, news)


def pad(trace: Trace, node: ir.Node) -> list[Layout]:
    return [_resized(trace, node, "it pads channels")]


WINDOWS: dict[str, Rule] = {**dict.fromkeys(POOLS, pool), "Pad": pad, "Resize": resize}
