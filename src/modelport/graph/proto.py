"""ONNX's protobuf message and the graph that onnx_ir reads from it."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from modelport.core.errors import IntegrityError
from modelport.graph.external import MappedFile


def parse(file: MappedFile) -> onnx.ModelProto:
    """The ONNX model in a mapped file; external data is not looked at.

    Raises:
        IntegrityError: it holds none.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(file.data.tobytes())
    except Exception as error:  # protobuf's DecodeError is another class in each of its implementations
        raise IntegrityError(
            f"{file.path} is not an ONNX model, or is truncated or damaged: {first_line(error)}. Get it again from its "
            "source."
        ) from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise IntegrityError(f"{file.path} is not an ONNX model: it holds no graph. Get it again from its source.")
    return proto


def to_graph(proto: onnx.ModelProto, where: object = "the ONNX model") -> ir.Model:
    """The model as a graph; external data is not looked at.

    Raises:
        IntegrityError: the model contradicts itself.
    """
    try:
        return ir.from_proto(proto)
    except Exception as error:  # whatever onnx_ir stumbles on in a model that no exporter made
        raise IntegrityError(f"{where} is not valid: {first_line(error)}. Export it again.") from error


def first_line(error: Exception) -> str:
    """The first line of an error's text; onnx_ir and protobuf append the whole message that they could not read."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
