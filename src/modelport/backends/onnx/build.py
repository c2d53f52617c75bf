"""Portable graph -> ModelProto."""

from __future__ import annotations

import onnx_ir as ir

from modelport.backends.onnx.ops import support
from modelport.backends.onnx.opset import settle_opset
from modelport.backends.onnx.weights import refer
from modelport.core.backend import Built
from modelport.core.errors import UnsupportedOpError
from modelport.graph.external import MappedFile, mapping_of


def build(graph: ir.Model) -> Built:
    """A ModelProto of the graph; weights that lie in mapped files stay there and are not copied.

    Its opset is one that ONNX Runtime takes, where no operator of the graph has changed since.

    Raises:
        UnsupportedOpError: ONNX Runtime does not know an operator.
    """
    _check_operators(graph)
    places = {
        name: mapping
        for name, value in graph.graph.initializers.items()
        if value.const_value is not None and (mapping := mapping_of(value.const_value)) is not None
    }
    native = ir.to_proto(_with_placeholders(graph, places) if places else graph)
    settle_opset(native)
    if places:
        refer(native, places)
    return Built(native)


def _check_operators(graph: ir.Model) -> None:
    local = {(function.domain, function.name) for function in graph.functions.values()}
    for node in graph.graph.all_nodes():
        operator = (node.domain, node.op_type)
        if operator not in local and support(node.op_type, node.domain) == "unsupported":
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            where = node.name or node.outputs[0].name or ""
            raise UnsupportedOpError(
                f"ONNX Runtime has no kernel for the operator {name} (node {where!r}): run it on another backend, "
                "or export it without this operator.",
                op_type=node.op_type,
                node=where,
            )


def _with_placeholders(graph: ir.Model, places: dict[str, tuple[MappedFile, int, int]]) -> ir.Model:
    """A copy whose mapped weights are external tensors, which are written as references."""
    copy = graph.clone()
    for name, (file, offset, length) in places.items():
        value = copy.graph.initializers[name]
        tensor = graph.graph.initializers[name].const_value
        value.const_value = ir.ExternalTensor(
            file.path.name, offset, length, tensor.dtype, shape=tensor.shape, name=name
        )
    return copy
