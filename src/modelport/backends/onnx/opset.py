"""The opset that a program is run under."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import onnx
import onnx.version_converter
import onnxruntime

from modelport.core.errors import UnsupportedOpError

_STANDARD = ("", "ai.onnx")


def standard_opset(program: onnx.ModelProto) -> int:
    """The version of ONNX's own operators in a program; 0 where it has none of them."""
    return max((opset.version for opset in program.opset_import if opset.domain in _STANDARD), default=0)


def runnable(program: onnx.ModelProto) -> onnx.ModelProto:
    """The program under an opset that the installed ONNX Runtime takes.

    ONNX Runtime refuses a standard opset that is newer than it, even where no operator of the program has changed since
    the newest one that it knows: then that one is the program's too. Else onnx's version converter goes back to it.

    Raises:
        UnsupportedOpError: an operator cannot go back.
    """
    changed = settle_opset(program)
    if not changed:
        return program
    newest, version = newest_opset(), standard_opset(program)
    try:
        return onnx.version_converter.convert_version(program, newest)
    except RuntimeError as error:  # the C++ converter's ConvertError and its failed assertions
        node = changed[0]
        raise UnsupportedOpError(
            f"ONNX Runtime takes opsets up to {newest}, and {node.op_type} (node {node.name!r}) of opset {version} "
            f"does not go back to it: {_reason(error)}. Export the model at opset {newest}, or run it elsewhere.",
            op_type=node.op_type,
            node=node.name,
        ) from error


def settle_opset(program: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Let a program say the newest opset that ONNX Runtime takes, in place, where its nodes mean the same there.

    Returns:
        The nodes whose operators have changed since; the program then stays as it is.
    """
    newest, version = newest_opset(), standard_opset(program)
    if version <= newest:
        return []
    changed = [node for node in _all_nodes(program) if _since(node, version) > newest]
    if changed and not _goes_back(program, newest):
        return changed
    for opset in program.opset_import:
        if opset.domain in _STANDARD:
            opset.version = newest
    return []


def _goes_back(program: onnx.ModelProto, version: int) -> bool:
    """Whether onnx's version converter leaves every node as it is."""
    skeleton = onnx.ModelProto(ir_version=program.ir_version)
    skeleton.opset_import.extend(program.opset_import)
    graph = skeleton.graph
    graph.name = "skeleton"
    graph.node.extend(program.graph.node)
    graph.input.extend(program.graph.input)
    graph.output.extend(program.graph.output)
    given = {value.name for value in program.graph.input}
    for tensor in program.graph.initializer:
        if tensor.name not in given:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        converted = onnx.version_converter.convert_version(skeleton, version)
    except (RuntimeError, ValueError):  # the C++ converter's ConvertError and its failed assertions
        return False
    return [_essence(node) for node in graph.node] == [_essence(node) for node in converted.graph.node]


def _essence(node: onnx.NodeProto) -> tuple[object, ...]:
    settings = sorted((each.name, each.SerializeToString(deterministic=True)) for each in node.attribute)
    return node.domain, node.op_type, tuple(node.input), tuple(node.output), settings


def _reason(error: Exception) -> str:
    return str(error).strip().rpartition("failed: ")[2].rstrip(".")


def _since(node: onnx.NodeProto, version: int) -> int:
    if node.domain not in _STANDARD or not onnx.defs.has(node.op_type, version):
        return 0
    return int(onnx.defs.get_schema(node.op_type, version).since_version)


def _all_nodes(program: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes(program.graph)
    for function in program.functions:
        yield from function.node


@cache
def newest_opset() -> int:
    """The newest standard opset that the installed ONNX Runtime takes."""
    for version in range(onnx.defs.onnx_opset_version(), 0, -1):
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", [value], [other])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)], ir_version=10)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            continue
        return version
    raise AssertionError("ONNX Runtime runs no opset of the installed onnx")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _nodes(inner)
