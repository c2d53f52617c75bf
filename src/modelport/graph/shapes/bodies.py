"""The shapes of operators that hold graphs: If, Loop, Scan, SequenceMap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from modelport.graph.shapes.expr import Size
from modelport.graph.shapes.info import ShapeInfo, record

Walk = Callable[[ir.Graph], None]
"""Infers the nodes of a graph whose inputs are recorded."""

Rule = Callable[[ir.Node, ShapeInfo, Walk], None]


Typed = tuple[ir.TypeProtocol | None, Sequence[Size | None] | None]


def _if(node: ir.Node, info: ShapeInfo, walk: Walk) -> None:
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for branch in branches:
        _enter(branch, info, walk)
    for index, value in enumerate(node.outputs):
        ends = [branch.outputs[index] for branch in branches]
        dims = _agreed([_dims(end, info) for end in ends])
        _record_merged(value, info, ends[0], dims)


def _loop(node: ir.Node, info: ShapeInfo, walk: Walk) -> None:
    body = node.attributes["body"].as_graph()
    states = len(node.inputs) - 2
    scalar = [ir.TensorType(ir.DataType.INT64), ir.TensorType(ir.DataType.BOOL)]
    for value, kind in zip(body.inputs[:2], scalar, strict=True):
        info.set(value, kind, ())
    starts = [_of(node.inputs[2 + index], info) for index in range(states)]
    empty = [info.is_empty(source) for source in node.inputs[2:]]
    while True:
        for value, (kind, dims), is_empty in zip(body.inputs[2:], starts, empty, strict=True):
            info.set(value, kind or value.type, dims)
            info.set_empty(value, is_empty)
        _enter(body, info, walk)
        ends = body.outputs[1 : 1 + states]
        # A size that changes from one round to the next is not known; the body is inferred again without it. A sequence
        # that is empty in the first round tells nothing of the elements that it gets.
        settled = [_settled(*each, info) for each in zip(starts, empty, ends, strict=True)]
        still_empty = [was and info.is_empty(end) for was, end in zip(empty, ends, strict=True)]
        if [dims for _, dims in settled] == [dims for _, dims in starts] and still_empty == empty:
            break
        starts, empty = settled, still_empty
    for index, value in enumerate(node.outputs):
        end = body.outputs[1 + index]
        dims = _dims(end, info)
        stacked = index >= states and dims is not None
        own: Sequence[Size | None] | None = (None, *dims) if stacked and dims is not None else dims
        _record_merged(value, info, end, starts[index][1] if index < states else own)


def _settled(start: Typed, is_empty: bool, end: ir.Value, info: ShapeInfo) -> Typed:
    """What is known of a state in every round, of which this is what it starts with and what a round makes of it."""
    kind, dims = start
    after = _dims(end, info)
    if is_empty:
        return kind, after
    return kind, dims if info.is_empty(end) else _agreed([dims, after])


def _scan(node: ir.Node, info: ShapeInfo, walk: Walk) -> None:
    body = node.attributes["body"].as_graph()
    scanned = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - scanned
    axes = node.attributes["scan_input_axes"].as_ints() if "scan_input_axes" in node.attributes else (0,) * scanned
    if len(body.inputs) != len(node.inputs):
        # The Scan of opset 8 has sequence lengths and a batch axis; `upgrade` writes it anew.
        return
    length: Size | None = None
    for index, (value, source) in enumerate(zip(body.inputs, node.inputs, strict=True)):
        kind, dims = _of(source, info)
        if index >= states and dims is not None:
            axis = axes[index - states] % len(dims)
            length = dims[axis] if length is None else length
            dims = (*dims[:axis], *dims[axis + 1 :])
        info.set(value, kind or value.type, dims)
    _enter(body, info, walk)
    out_axes = node.attributes.get("scan_output_axes")
    for index, value in enumerate(node.outputs):
        end = body.outputs[index]
        dims = _dims(end, info)
        if index >= states and dims is not None:
            axis = 0 if out_axes is None else out_axes.as_ints()[index - states] % (len(dims) + 1)
            dims = (*dims[:axis], length, *dims[axis:])
        _record_merged(value, info, end, dims)


def _sequence_map(node: ir.Node, info: ShapeInfo, walk: Walk) -> None:
    body = node.attributes["body"].as_graph()
    for value, source in zip(body.inputs, node.inputs, strict=True):
        kind = None if source is None else info.type(source)
        held = None if source is None else _dims(source, info)
        info.set(value, kind.elem_type if isinstance(kind, ir.SequenceType) else kind or value.type, held)
    _enter(body, info, walk)
    for value in node.outputs:
        record(value, info, (None, None))


def _enter(graph: ir.Graph, info: ShapeInfo, walk: Walk) -> None:
    for value in graph.initializers.values():
        if value.const_value is not None:
            info.set(value, ir.TensorType(value.const_value.dtype), [int(d) for d in value.const_value.shape.numpy()])
    walk(graph)


def _dims(value: ir.Value, info: ShapeInfo) -> Sequence[Size | None] | None:
    """The dims of a tensor, or of the elements of a sequence."""
    dims = info.dims(value)
    return info.held(value) if dims is None else dims


def _of(value: ir.Value | None, info: ShapeInfo) -> tuple[ir.TypeProtocol | None, Sequence[Size | None] | None]:
    return (None, None) if value is None else (info.type(value), _dims(value, info))


def _agreed(shapes: Sequence[Sequence[Size | None] | None]) -> tuple[Size | None, ...] | None:
    """The sizes that all shapes have; `None` where they differ."""
    first, *rest = shapes
    if first is None or any(shape is None or len(shape) != len(first) for shape in rest):
        return None
    columns = zip(*(shape for shape in shapes if shape is not None), strict=True)
    return tuple(column[0] if all(size == column[0] for size in column) else None for column in columns)


def _record_merged(value: ir.Value, info: ShapeInfo, end: ir.Value, dims: Sequence[Size | None] | None) -> None:
    record(value, info, (info.type(end), dims))
    info.set_elements(value, None)


SUBGRAPHS: dict[str, Rule] = {"If": _if, "Loop": _loop, "Scan": _scan, "SequenceMap": _sequence_map}
"""Rules by operator; each records the node's outputs and everything in its graphs."""
