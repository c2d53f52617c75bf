"""Layers that make channels out of channels: convolutions and products of matrices."""

from __future__ import annotations

import onnx_ir as ir

from modelport.compression.prune.axes import Layout, collapsed, labelled, merged
from modelport.compression.prune.rules.elementwise import aligned, broadcast
from modelport.compression.prune.slots import Ids
from modelport.compression.prune.trace import Rule, Trace


def set_int(node: ir.Node, name: str, value: int) -> None:
    node.attributes[name] = ir.AttrInt64(name, value)


def _with_channels(trace: Trace, node: ir.Node, x: Layout, ids: Ids | None) -> Layout:
    """The layout of a convolution's output: the batch of its input, channels, places."""
    dims = trace.dims(node.outputs[0])
    fresh = labelled([dims[0], dims[1] if ids is None else ids, *dims[2:]])
    return Layout((x.axes[0], *fresh.axes[1:]), {**x.blocks, **fresh.blocks})


def _bias(trace: Trace, node: ir.Node, ids: Ids | None) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        trace.meet(node, trace.elements(node, trace.layout(node.inputs[2]), 0), ids)


def conv(trace: Trace, node: ir.Node) -> list[Layout]:
    """Every output channel takes all inputs; with groups, whole groups go."""
    x, weight = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    group = node.attributes.get_int("group", 1)
    inputs, made = trace.elements(node, x, 1), trace.elements(node, weight, 0)
    if group == 1:
        trace.meet(node, inputs, trace.elements(node, weight, 1))
        trace.makes(node, node.inputs[1], weight, 0)
    elif made is not None:
        _grouped(trace, node, inputs, weight, group)
    _bias(trace, node, made)
    return [_with_channels(trace, node, x, made)]


def _grouped(trace: Trace, node: ir.Node, inputs: Ids | None, weight: Layout, group: int) -> None:
    made = trace.elements(node, weight, 0)
    assert made is not None
    rows = made.reshape(group, -1)
    first = trace.slots.unite_along(rows, [1])
    if inputs is None:
        trace.meet(node, None, first)
        return
    trace.slots.unite(inputs.reshape(group, -1), first[:, None])
    if len(inputs) > group:
        trace.makes(node, node.inputs[1], weight, 0)
    trace.fix(lambda cut: set_int(node, "group", cut.kept(first)))


def conv_transpose(trace: Trace, node: ir.Node) -> list[Layout]:
    """As `conv`, with a weight of (inputs, outputs per group)."""
    x, weight = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    group = node.attributes.get_int("group", 1)
    inputs, taken = trace.elements(node, x, 1), trace.elements(node, weight, 0)
    trace.meet(node, inputs, taken)
    if group == 1 or taken is None:
        made = trace.elements(node, weight, 1)
        trace.makes(node, node.inputs[1], weight, 1)
    else:
        first = trace.slots.unite_along(taken.reshape(group, -1), [1])
        made = first.repeat(int(node.inputs[1].shape[1]))
        trace.fix(lambda cut: set_int(node, "group", cut.kept(first)))
    _bias(trace, node, made)
    given = _with_channels(trace, node, x, made)
    if group > 1 and taken is not None and len(taken) > group:
        trace.makes(node, node.inputs[1], given, 1)
    return [given]


def _product(
    trace: Trace, node: ir.Node, left: Layout, right: Layout, batch: list[tuple[int | None, int | None]]
) -> Layout:
    """The layout of a product of matrices, of (…, rows, inner) and (…, inner, columns)."""
    rows, inner, columns = len(left.axes) - 2, len(right.axes) - 2, len(right.axes) - 1
    meeting = [(i, j) for i, j in batch if i is not None and j is not None]
    left, right = trace.join(node, left, right, [*meeting, (rows + 1, inner)])
    left = collapsed(left, left.axes[rows + 1], trace.slots)
    right = collapsed(right, right.axes[inner], trace.slots)
    trace.makes(node, node.inputs[1], right, columns)
    trace.makes(node, node.inputs[0], left, rows)
    return merged(left, right, [*batch, (rows, None), (None, columns)])


def matmul(trace: Trace, node: ir.Node) -> list[Layout]:
    """The axes of a batch broadcast, the inner one is gone; a vector is a matrix of one row or column."""
    left, right = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    is_row, is_column = len(left.axes) == 1, len(right.axes) == 1
    left = left.with_axes(((), *left.axes)) if is_row else left
    right = right.with_axes((*right.axes, ())) if is_column else right
    a, b = len(left.axes) - 2, len(right.axes) - 2
    rank = max(a, b)
    made = _product(trace, node, left, right, aligned(a, b))
    kept = [axis for axis in range(rank + 2) if not (is_row and axis == rank) and not (is_column and axis == rank + 1)]
    return [made.with_axes(made.axes[axis] for axis in kept)]


def gemm(trace: Trace, node: ir.Node) -> list[Layout]:
    left, right = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    left = left.with_axes(reversed(left.axes)) if node.attributes.get_int("transA", 0) else left
    right = right.with_axes(reversed(right.axes)) if node.attributes.get_int("transB", 0) else right
    made = _product(trace, node, left, right, [])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        made = broadcast(trace, node, [made, trace.layout(node.inputs[2])])
    return [made]


LINEAR: dict[str, Rule] = {"Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul}
