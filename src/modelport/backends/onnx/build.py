"""Portable graph -> ModelProto."""

from __future__ import annotations

import onnx_ir as ir

from modelport.backends.onnx.weights import refer
from modelport.core.backend import Built
from modelport.graph.external import MappedFile, mapping_of


def build(graph: ir.Model) -> Built:
    """A ModelProto of the graph; weights that lie in mapped files stay there and are not copied."""
    places = {
        name: mapping
        for name, value in graph.graph.initializers.items()
        if value.const_value is not None and (mapping := mapping_of(value.const_value)) is not None
    }
    native = ir.to_proto(_with_placeholders(graph, places) if places else graph)
    if places:
        refer(native, places)
    return Built(native)


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
