"""Which graph optimizers of ONNX Runtime 1.31 break a program that runs without them."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper

from modelport.backends.onnx.opset import standard_opset

_Broken = Callable[[onnx.ModelProto], bool]


def unsound_optimizers(program: onnx.ModelProto) -> list[str]:
    """The names of the optimizers to leave out, as a session takes them (`disabled_optimizers`)."""
    return [name for name, is_broken in _BROKEN.items() if is_broken(program)]


def _has_half(program: onnx.ModelProto) -> bool:
    half = onnx.TensorProto.FLOAT16
    given = any(value.type.tensor_type.elem_type == half for value in program.graph.input)
    return given or any(tensor.data_type == half for tensor in program.graph.initializer)


def _has_signed_quantization(program: onnx.ModelProto) -> bool:
    if standard_opset(program) < 21:
        return False
    int8 = onnx.TensorProto.INT8
    signed = {tensor.name for tensor in program.graph.initializer if tensor.data_type == int8}
    signed |= {value.name for value in program.graph.input if value.type.tensor_type.elem_type == int8}
    nodes = [node for node in program.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return any(name in signed for node in nodes for name in (node.input[0], *node.input[2:]))


def _has_float_layer_between_quantized(program: onnx.ModelProto) -> bool:
    stored = {tensor.name for tensor in program.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    dequantized = {node.output[0] for node in program.graph.node if node.op_type == "DequantizeLinear"}
    layers = (node for node in program.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm"))
    return any(node.input[0] in dequantized and node.input[1] in stored for node in layers)


def _resizes_what_is_transposed(program: onnx.ModelProto) -> bool:
    made_by = {name: node for node in program.graph.node for name in node.output}
    resized = [node for node in program.graph.node if node.op_type == "Resize" and _mode(node) != b"nearest"]
    return any(_moves_resized_axes(node) for start in resized for node in _ahead(start, made_by))


def _mode(node: onnx.NodeProto) -> bytes:
    found = (helper.get_attribute_value(each) for each in node.attribute if each.name == "mode")
    return next(found, b"nearest")


_STOPS = {"Conv", "ConvTranspose", "Flatten", "Gemm", "MatMul", "Reshape"}
"""Operators that no transposition is moved through."""


def _ahead(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that the input of a node is computed by, back to those in `_STOPS`."""
    seen: dict[str, onnx.NodeProto] = {}
    names = [node.input[0]]
    while names:
        found = made_by.get(names.pop())
        if found is not None and found.output[0] not in seen and found.op_type not in _STOPS:
            seen[found.output[0]] = found
            names.extend(found.input)
    return list(seen.values())


def _moves_resized_axes(node: onnx.NodeProto) -> bool:
    """Whether the last two axes of an image, once moved back, are others than those that a kernel can resize."""
    if node.op_type != "Transpose":
        return False
    perm = next((list(each.ints) for each in node.attribute if each.name == "perm"), None)
    return perm is None or (len(perm) > 3 and set(perm[-2:]) not in ({len(perm) - 2, len(perm) - 1}, {1, 2}))


_BROKEN: dict[str, _Broken] = {
    # It crashes on attention in float16.
    "NchwcTransformer": _has_half,
    # What it writes for int8 is no longer valid once the zero points have become uint8.
    "QDQPropagationTransformer": _has_signed_quantization,
    # It quantizes the weights of layers that were left in float for a reason.
    "WeightBiasQuantization": _has_float_layer_between_quantized,
    # It moves a transposition behind a Resize that then scales axes for which there is no kernel.
    "TransposeOptimizer_CPUExecutionProvider": _resizes_what_is_transposed,
}
