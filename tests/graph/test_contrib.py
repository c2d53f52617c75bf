"""ONNX Runtime's own operators, written with the standard's, compute what ONNX Runtime computes with its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from modelport.core.errors import UnsupportedOpError
from modelport.graph.normal import normalize

_rng = np.random.default_rng(3)


def _floats(*shape: int) -> np.ndarray:
    return _rng.normal(size=shape).astype(np.float32)


def _bytes(*shape: int) -> np.ndarray:
    return _rng.integers(0, 256, shape).astype(np.uint8)


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _zero(value: int, dtype: type = np.uint8) -> np.ndarray:
    return np.array(value, dtype)


class Node(NamedTuple):
    """One operator: its inputs (those not in `variable` are constants), its attributes, which outputs it gives."""

    op_type: str
    inputs: list[np.ndarray | None]
    attributes: dict[str, Any] | None = None
    outputs: tuple[bool, ...] = (True,)
    variable: tuple[int, ...] = (0,)
    domain: str = "com.microsoft"


ATTENTION_WEIGHT = [_floats(2, 5, 8), _floats(8, 24), _floats(24)]
QUERY_KEY_VALUE = [_floats(2, 5, 8), _floats(2, 6, 8), _floats(2, 6, 8)]
SKIP = [_floats(2, 3, 8), _floats(2, 3, 8), _floats(8), _floats(8), _floats(8)]
IMAGE = _floats(1, 2, 5, 5)
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
QUANTIZED = [_bytes(2, 3), _number(0.1), _zero(100)]
IMAGE_STEPS = [_bytes(1, 2, 4, 4), _number(0.1), _zero(120)]
TO = [_number(0.05), _zero(90)]
TABLES = [_floats(20, 8), _floats(6, 8), _floats(2, 8), _floats(8), _floats(8)]
IDS = [_rng.integers(0, 20, (2, 5)).astype(np.int32), _rng.integers(0, 2, (2, 5)).astype(np.int32)]

NODES = {
    "Gelu": Node("Gelu", [_floats(2, 3)]),
    "BiasGelu": Node("BiasGelu", [_floats(2, 3), _floats(3)]),
    "FastGelu": Node("FastGelu", [_floats(2, 3)]),
    "FastGelu with bias": Node("FastGelu", [_floats(2, 3), _floats(3)]),
    "QuickGelu": Node("QuickGelu", [_floats(2, 3)], {"alpha": 1.5}),
    "FusedMatMul": Node(
        "FusedMatMul", [_floats(2, 3, 4), _floats(2, 5, 4)], {"transB": 1, "alpha": 0.5}, variable=(0, 1)
    ),
    "FusedMatMul transA": Node("FusedMatMul", [_floats(4, 3), _floats(4, 5)], {"transA": 1}),
    "FusedGemm": Node("FusedGemm", [_floats(2, 3), _floats(4, 3), _floats(4)], {"transB": 1, "activation": "Relu"}),
    "FusedGemm LeakyRelu": Node(
        "FusedGemm", [_floats(2, 3), _floats(3, 4)], {"activation": "LeakyRelu", "activation_alpha": 0.3}
    ),
    "FusedConv": Node("FusedConv", [IMAGE, _floats(3, 2, 3, 3), _floats(3)], {"activation": "Relu"}),
    "FusedConv Clip": Node(
        "FusedConv", [IMAGE, _floats(3, 2, 3, 3)], {"activation": "Clip", "activation_params": [0.0, 6.0]}
    ),
    "FusedConv and sum": Node(
        "FusedConv", [IMAGE, _floats(3, 2, 3, 3), _floats(3), _floats(1, 3, 3, 3)], {"activation": "Relu"}
    ),
    "SkipLayerNormalization": Node("SkipLayerNormalization", [*SKIP], {"epsilon": 1e-5}, variable=(0, 1)),
    "SkipLayerNormalization with sum": Node(
        "SkipLayerNormalization", SKIP[:4], {"epsilon": 1e-5}, (True, False, False, True), variable=(0, 1)
    ),
    "SkipSimplifiedLayerNormalization": Node(
        "SkipSimplifiedLayerNormalization", SKIP[:3], {"epsilon": 1e-5}, (True, False, False, True), variable=(0, 1)
    ),
    "SimplifiedLayerNormalization": Node(
        "SimplifiedLayerNormalization", SKIP[1:3], {"epsilon": 1e-5, "axis": -1}, domain=""
    ),
    "LayerNormalization before it was standard": Node(
        "LayerNormalization", SKIP[1:4], {"epsilon": 1e-5, "axis": -1}, domain=""
    ),
    "EmbedLayerNormalization": Node("EmbedLayerNormalization", [*IDS, *TABLES], outputs=(True, False), variable=(0, 1)),
    "EmbedLayerNormalization with mask": Node(
        "EmbedLayerNormalization", [*IDS, *TABLES, MASK], outputs=(True, True), variable=(0, 1)
    ),
    "EmbedLayerNormalization without segments": Node(
        "EmbedLayerNormalization", [IDS[0], None, *TABLES[:2], None, *TABLES[3:]], outputs=(True, False)
    ),
    "Attention": Node("Attention", ATTENTION_WEIGHT, {"num_heads": 2}),
    "Attention causal": Node("Attention", ATTENTION_WEIGHT, {"num_heads": 2, "unidirectional": 1}),
    "Attention with mask": Node("Attention", [*ATTENTION_WEIGHT, MASK], {"num_heads": 2}),
    "Attention with lengths": Node(
        "Attention", [*ATTENTION_WEIGHT, np.array([3, 5], np.int32)], {"num_heads": 2}, variable=(0, 3)
    ),
    "Attention with two masks": Node(
        "Attention", [*ATTENTION_WEIGHT, MASK, None, _floats(2, 2, 5, 5)], {"num_heads": 2, "scale": 0.3}
    ),
    "MultiHeadAttention": Node("MultiHeadAttention", QUERY_KEY_VALUE, {"num_heads": 2}, variable=(0, 1, 2)),
    "MultiHeadAttention with bias": Node(
        "MultiHeadAttention", [*QUERY_KEY_VALUE, _floats(24)], {"num_heads": 2}, variable=(0, 1, 2)
    ),
    "RotaryEmbedding": Node(
        "RotaryEmbedding", [_floats(1, 3, 8), np.array([[0, 1, 2]]), _floats(5, 2), _floats(5, 2)], {"num_heads": 2}
    ),
    "QLinearAdd": Node("QLinearAdd", [*QUANTIZED, _bytes(2, 3), _number(0.2), _zero(3), *TO]),
    "QLinearMul": Node("QLinearMul", [*QUANTIZED, _bytes(3), _number(0.2), _zero(3), *TO]),
    "QLinearSigmoid": Node("QLinearSigmoid", [*QUANTIZED, *TO]),
    "QLinearLeakyRelu": Node("QLinearLeakyRelu", [*QUANTIZED, *TO], {"alpha": 0.2}),
    "QLinearSoftmax": Node("QLinearSoftmax", [*QUANTIZED, _number(1 / 256), _zero(0)], {"axis": -1, "opset": 13}),
    "QLinearGlobalAveragePool": Node("QLinearGlobalAveragePool", [*IMAGE_STEPS, *TO]),
    "QLinearAveragePool": Node("QLinearAveragePool", [*IMAGE_STEPS, *TO], {"kernel_shape": [2, 2]}),
    "QLinearConcat": Node(
        "QLinearConcat", [*TO, *QUANTIZED, _bytes(2, 1), _number(0.2), _zero(3)], {"axis": 1}, variable=()
    ),
    "QuantizeLinear": Node("QuantizeLinear", [_floats(2, 3), _number(0.1), _zero(9, np.int8)]),
    "DequantizeLinear": Node("DequantizeLinear", QUANTIZED),
    "DynamicQuantizeMatMul": Node(
        "DynamicQuantizeMatMul", [_floats(2, 3), _bytes(3, 4), _number(0.1), _zero(120), _floats(4)]
    ),
    "MatMulIntegerToFloat": Node(
        "MatMulIntegerToFloat",
        [_bytes(2, 3), _bytes(3, 4), _number(0.1), _number(0.2), _zero(120), _zero(99), _floats(4)],
    ),
    "MatMulNBits": Node(
        "MatMulNBits",
        [_floats(2, 32), _bytes(3, 2, 8), abs(_floats(3, 2))],
        {"K": 32, "N": 3, "bits": 4, "block_size": 16},
    ),
    "MatMulNBits with zero points": Node(
        "MatMulNBits",
        [_floats(2, 24), _bytes(3, 2, 8), abs(_floats(3, 2)), _bytes(3, 1)],
        {"K": 24, "N": 3, "bits": 4, "block_size": 16},
    ),
}


def model_of(node: Node) -> onnx.ModelProto:
    names = ["" if array is None else f"x{i}" for i, array in enumerate(node.inputs)]
    results = [f"y{i}" if used else "" for i, used in enumerate(node.outputs)]
    proto = helper.make_node(node.op_type, names, results, "the_node", domain=node.domain, **(node.attributes or {}))
    graph = helper.make_graph([proto], "g", [], [onnx.ValueInfoProto(name=name) for name in results if name])
    for i, (name, array) in enumerate(zip(names, node.inputs, strict=True)):
        if array is not None and i not in node.variable:
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        elif array is not None:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, ["batch", *array.shape[1:]]))
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def feed_of(node: Node) -> dict[str, np.ndarray]:
    arrays = {f"x{i}": node.inputs[i] for i in node.variable}
    return {name: array for name, array in arrays.items() if array is not None}


def in_onnxruntime(node: Node) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model_of(node).SerializeToString(), options).run(None, feed_of(node))


@pytest.mark.parametrize("name", NODES)
def test_an_operator_of_onnxruntime_is_written_with_the_standard(name: str) -> None:
    node = NODES[name]
    normal = normalize(ir.from_proto(model_of(node)))

    assert {each.domain for each in normal.graph.all_nodes()} <= {""}
    got = ReferenceEvaluator(ir.to_proto(normal)).run(None, feed_of(node))
    for mine, theirs in zip(got, in_onnxruntime(node), strict=True):
        if theirs.dtype == np.uint8:  # one step at a tie: ONNX Runtime rounds in another order
            assert np.abs(mine.astype(int) - theirs).max() <= 1
        else:
            np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)


def test_what_the_standard_cannot_say_is_refused_by_name() -> None:
    past = _floats(2, 2, 2, 3, 4)
    node = Node("Attention", [*ATTENTION_WEIGHT, None, past], {"num_heads": 2}, (True, True), variable=(0, 4))
    with pytest.raises(UnsupportedOpError, match=r"com.microsoft::Attention \(node 'the_node'\).*past"):
        normalize(ir.from_proto(model_of(node)))
