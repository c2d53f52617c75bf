"""The program that a session opens: a ModelProto without its large weights, so that it may be larger than 2 GB."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx
import onnx_ir as ir

from modelport.backends.onnx.weights import tensor_at

_IR_VERSION = 10
"""What newer IR versions add (metadata, device placement) is not in the program that a session gets."""

_SHARED = 1 << 10
"""Weights of at least as many bytes are given to ONNX Runtime where they lie; smaller ones travel with the program.

A session copies what it is given while it opens, so nothing of it has to stay."""


def without_weights(native: onnx.ModelProto, first: Iterable[onnx.NodeProto] = ()) -> onnx.ModelProto:
    """A copy of a model that has no initializers.

    Args:
        native: the model.
        first: nodes that come before the model's own.
    """
    program = onnx.ModelProto(ir_version=min(native.ir_version, _IR_VERSION))
    program.opset_import.extend(native.opset_import)
    program.functions.extend(native.functions)
    program.graph.name = native.graph.name
    program.graph.node.extend(first)
    for field in ("node", "input", "output", "value_info", "sparse_initializer", "quantization_annotation"):
        getattr(program.graph, field).extend(getattr(native.graph, field))
    return program


def add_weights(
    program: onnx.ModelProto, native: onnx.ModelProto, given: Collection[str] = ()
) -> dict[str, tuple[np.ndarray, int]]:
    """Give a program the weights of its model: the small ones themselves, the others as stand-ins.

    Args:
        program: what `without_weights` made.
        native: the model.
        given: names of weights that the program gets otherwise.

    Returns:
        Array and dtype of every weight that the program has a stand-in for, by name.
    """
    arrays: dict[str, tuple[np.ndarray, int]] = {}
    used, inputs = names_used(native.graph), {value.name for value in native.graph.input}
    for tensor in native.graph.initializer:
        if tensor.name not in used or tensor.name in given:
            continue
        array = None if tensor.name in inputs or nbytes(tensor) < _SHARED else content(native, tensor)
        if array is None:
            program.graph.initializer.append(_inside(native, tensor))
        else:
            arrays[tensor.name] = (array, tensor.data_type)
            program.graph.initializer.append(_stand_in(tensor))
    return arrays


def names_used(graph: onnx.GraphProto) -> set[str]:
    """The names that nodes read, in subgraphs too, or that are outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                names |= names_used(inner)
    return names


def nbytes(tensor: onnx.TensorProto) -> int:
    """How many bytes an initializer's elements take; 0 for strings."""
    dtype = ir.DataType(tensor.data_type)
    return 0 if dtype == ir.DataType.STRING else -(-int(np.prod(tensor.dims, dtype=object)) * dtype.bitwidth // 8)


def content(native: onnx.ModelProto, tensor: onnx.TensorProto) -> np.ndarray | None:
    """An initializer's elements as ONNX Runtime takes them; `None` where they are packed, in typed fields or damaged.

    Mapped ones lie in their file. The bytes inside a ModelProto are copied: protobuf shows them no other way.
    """
    dtype = ir.DataType(tensor.data_type)
    if dtype == ir.DataType.STRING or dtype.bitwidth < 8:
        return None
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return tensor_at(native, tensor).numpy()
    data = tensor.raw_data
    return np.frombuffer(data, dtype.numpy()).reshape(tuple(tensor.dims)) if len(data) == nbytes(tensor) else None


def _inside(native: onnx.ModelProto, tensor: onnx.TensorProto) -> onnx.TensorProto:
    """An initializer with its data inside."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    data = tensor_at(native, tensor).tobytes()
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=data)


def _stand_in(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """An initializer that ONNX Runtime gets the memory of when the session opens."""
    found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    found.data_location = onnx.TensorProto.EXTERNAL
    found.external_data.add(key="location", value="memory")
    return found
