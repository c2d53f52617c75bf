"""Build-only nodes inside a node's graphs, written as the standard's operators again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
import onnx_ir as ir

from modelport.graph.splice import BUILD_DOMAIN


def _linear(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    (result,), (x, weight, *bias) = node.output, node.input
    bias = [name for name in bias if name]
    transposed = any(attribute.name == "transposed" and attribute.i for attribute in node.attribute)
    if not transposed:
        yield onnx.helper.make_node("Transpose", [weight], [f"{result}/weight"], perm=[1, 0])
        weight = f"{result}/weight"
    product = f"{result}/product" if bias else result
    yield onnx.helper.make_node("MatMul", [x, weight], [product], name=node.name)
    if bias:
        yield onnx.helper.make_node("Add", [product, *bias], [result])


def _embedding(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    ids, weight = node.input
    yield onnx.helper.make_node("Gather", [weight, ids], list(node.output), name=node.name)


def _evaluated_dropout(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """What stands inside another node only runs in inference mode."""
    yield onnx.helper.make_node("Identity", node.input[:1], list(node.output), name=node.name)


_FORMS: dict[str, Callable[[onnx.NodeProto], Iterator[onnx.NodeProto]]] = {
    "Linear": _linear,
    "Embedding": _embedding,
    "SpatialDropout": _evaluated_dropout,
}


def has_standard_form(node: ir.Node) -> bool:
    """Whether `write_standard_nodes` leaves nothing build-only in a node and its graphs."""
    inside = (each for graph in _graphs(node) for each in graph.all_nodes())
    return all(each.domain != BUILD_DOMAIN or each.op_type in _FORMS for each in (node, *inside))


def _graphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def write_standard_nodes(node: onnx.NodeProto) -> None:
    """Write Linear, Embedding and SpatialDropout in a node's graphs as the standard's operators, in place."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _write(attribute.g)


def _write(graph: onnx.GraphProto) -> None:
    written: list[onnx.NodeProto] = []
    for node in graph.node:
        write_standard_nodes(node)
        form = _FORMS.get(node.op_type) if node.domain == BUILD_DOMAIN else None
        written.extend([node] if form is None else form(node))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in written]
    del graph.node[:]
    graph.node.extend(copies)
