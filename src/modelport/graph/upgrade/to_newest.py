"""Bringing the nodes of a graph to the newest opset, with ONNX's version converter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from modelport.core.errors import UnsupportedOpError
from modelport.graph.shapes.infer import infer
from modelport.graph.shapes.info import ShapeInfo
from modelport.graph.upgrade import old_ops
from modelport.graph.upgrade.old_scan import nest_batched_scans
from modelport.graph.upgrade.rewriting import NORMAL_OPSET, Rewrite, apply

__all__ = ["NORMAL_OPSET", "STABLE_OPSET", "upgrade"]

STABLE_OPSET = 21
"""From this opset on the standard has only widened the types that its operators take."""

_HOLDS_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})

_FIRST_PLAIN_SCAN = 9
"""The opset from which on a Scan has no batch axis."""

_MAX_CONSTANT = 1024
"""The converter reads the scales, axes and shapes that became inputs; no larger constant matters to it."""


@dataclass
class _Call:
    """A node that has to change, and the names that it has inside the converter."""

    node: ir.Node
    index: int

    def input(self, place: int) -> str:
        return f"n{self.index}_i{place}" if self.node.inputs[place] is not None else ""

    def output(self, place: int) -> str:
        return f"n{self.index}_o{place}" if self.node.outputs[place].name else ""


def upgrade(model: ir.Model) -> None:
    """Upgrade a graph to `NORMAL_OPSET` in place; nodes whose operator has not changed stay the same objects.

    What the converter gets wrong is written anew by `old_ops`. All other nodes that change go through the converter in
    one model that holds them side by side, without their weights; so it is fast, and names, metadata and large weights
    never pass through it.

    Args:
        model: local functions inlined; a node with a `version` is of that opset.

    Raises:
        UnsupportedOpError: there is no way for a node.
    """
    opset = model.graph.opset_imports.get("", STABLE_OPSET)
    if opset < _FIRST_PLAIN_SCAN:
        nest_batched_scans(model)
    by_version: dict[int, list[ir.Node]] = {}
    info: ShapeInfo | None = None
    for node in list(model.graph.all_nodes()):
        version = opset if node.version is None else node.version
        rewriter = None if node.domain else old_ops.rewriter(node.op_type, version)
        if rewriter is not None:
            info = info or infer(model)
            apply(rewriter, Rewrite(model, node, version, info), info)
        elif version < STABLE_OPSET and _changes(node, version):
            by_version.setdefault(version, []).append(node)
    for version, nodes in by_version.items():
        info = info or infer(model)  # some adapters read shapes
        for node, (new, results) in zip(nodes, _convert(nodes, version, info), strict=True):
            _replace(node, new, results)
    for graph in model.graphs():
        graph.opset_imports[""] = NORMAL_OPSET
    for node in model.graph.all_nodes():
        node.version = None


def _changes(node: ir.Node, old: int) -> bool:
    if node.domain or node.op_type == "Constant" or not onnx.defs.has(node.op_type):
        return False
    try:
        before = onnx.defs.get_schema(node.op_type, old)
        after = onnx.defs.get_schema(node.op_type, STABLE_OPSET)
    except onnx.defs.SchemaError:
        return True
    if node.op_type in _HOLDS_GRAPHS:
        # Their graphs are converted node by node; only Scan ever changed itself, and that is done.
        return False
    return before.since_version != after.since_version or before.deprecated


Converted = tuple[list[ir.Node], list[ir.Value | None]]


def _convert(nodes: Sequence[ir.Node], old: int, info: ShapeInfo) -> list[Converted]:
    calls = [_Call(node, index) for index, node in enumerate(nodes)]
    try:
        proto = onnx.version_converter.convert_version(_side_by_side(calls, old, info), STABLE_OPSET)
    except (onnx.version_converter.ConvertError, RuntimeError, IndexError) as error:
        culprit, reason = _culprit(calls, old, info) or (nodes[0], str(error))
        raise _refused(culprit, old, reason or repr(error)) from error
    graph = ir.from_proto(proto).graph
    values = {value.name: value for node in graph for value in node.outputs}
    values.update({value.name: value for value in graph.inputs})
    # The values go on to another graph, so this one must own none of them.
    graph.outputs.clear()
    graph.initializers.clear()
    return [_extract(call, values) for call in calls]


def _refused(node: ir.Node, old: int, reason: str) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"{node.op_type} (node {node.name!r}) of opset {old} cannot be brought to opset {NORMAL_OPSET}: "
        f"{_told(reason)}. Export the model with opset {STABLE_OPSET} or newer.",
        op_type=node.op_type,
        node=node.name or "",
    )


def _told(reason: str) -> str:
    """What the converter says, less where in its source code it says it."""
    return reason.splitlines()[0].rpartition("failed: ")[2].strip().rstrip(".")


def _culprit(calls: Sequence[_Call], old: int, info: ShapeInfo) -> tuple[ir.Node, str] | None:
    """The node that the converter refuses, and what it says."""
    for call in calls:
        try:
            onnx.version_converter.convert_version(_side_by_side([call], old, info), STABLE_OPSET)
        except (onnx.version_converter.ConvertError, RuntimeError, IndexError) as error:
            return call.node, str(error)
    return None


def _side_by_side(calls: Iterable[_Call], old: int, info: ShapeInfo) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="nodes")
    for call in calls:
        node = ir.serde.serialize_node(call.node)
        del node.input[:], node.output[:], node.metadata_props[:]
        node.input.extend(call.input(place) for place in range(len(call.node.inputs)))
        node.output.extend(call.output(place) for place in range(len(call.node.outputs)))
        graph.node.append(node)
        for place, value in enumerate(call.node.inputs):
            if value is not None:
                graph.input.append(_value_info(call.input(place), value, info))
                graph.initializer.extend(_constant(call.input(place), value, info))
        for place, value in enumerate(call.node.outputs):
            if value.name:
                graph.output.append(_value_info(call.output(place), value, info))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", old)], ir_version=8)


def _value_info(name: str, value: ir.Value, info: ShapeInfo) -> onnx.ValueInfoProto:
    proto = onnx.ValueInfoProto(name=name)
    kind = info.type(value)
    if kind is not None:
        ir.serde.serialize_type_into(proto.type, kind)
    dims = info.dims(value)
    if dims is not None and isinstance(kind, ir.TensorType):
        ir.serde.serialize_shape_into(proto.type, ir.Shape(d if isinstance(d, int) else str(d) for d in dims))
    return proto


def _constant(name: str, value: ir.Value, info: ShapeInfo) -> Iterable[onnx.TensorProto]:
    tensor = value.const_value
    if tensor is not None and tensor.size <= _MAX_CONSTANT and tensor.dtype != ir.DataType.STRING:
        yield onnx.numpy_helper.from_array(np.asarray(tensor.numpy()), name)


def _extract(call: _Call, values: dict[str | None, ir.Value]) -> Converted:
    """The nodes that stand for one call, in order, reading the original inputs; and its results."""
    results = [values[call.output(place)] if value.name else None for place, value in enumerate(call.node.outputs)]
    originals = {call.input(place): value for place, value in enumerate(call.node.inputs) if value is not None}
    nodes: dict[ir.Node, None] = {}
    stack = [(value.producer(), False) for value in results if value is not None]
    while stack:
        node, ready = stack.pop()
        if node is None or node in nodes:
            continue
        if ready:
            nodes[node] = None
            continue
        stack.append((node, True))
        for place, value in enumerate(node.inputs):
            if value is None:
                continue
            if value.name in originals:
                node.replace_input_with(place, originals[value.name])
            elif value.producer() is not None:
                stack.append((value.producer(), False))
    return list(nodes), results


def _replace(node: ir.Node, new: list[ir.Node], results: list[ir.Value | None]) -> None:
    graph = node.graph
    assert graph is not None
    for created in new:
        if created.graph is not None:
            created.graph.remove(created)
        created.name = node.name if created.op_type == node.op_type else f"{node.name}/{created.op_type}"
        created.metadata_props.update(node.metadata_props)
        for value in created.outputs:
            if value not in results and value.name:
                value.name = f"{node.name}/{value.name}"
        for value in created.inputs:
            if value is not None and value.producer() is None and value.const_value is not None and value.graph is None:
                value.name = f"{node.name}/{value.name}"
                graph.register_initializer(value)
    graph.insert_before(node, new)
    for before, after in zip(node.outputs, results, strict=True):
        if after is not None:
            name = before.name
            before.replace_all_uses_with(after, replace_graph_outputs=True)
            before.name = None if name is None else f"{name}/replaced"
            after.name, after.type, after.shape = name, before.type, before.shape
    graph.remove(node, safe=True)
