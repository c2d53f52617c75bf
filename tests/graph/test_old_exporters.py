"""What old exporters wrote, and how it comes in: names, inputs, constants and operators of their time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelport.core.errors import UnsupportedOpError
from modelport.core.registry import backend
from modelport.graph.normal import NORMAL_OPSET, normalize
from modelport.graph.signature import read_signature
from modelport.graph.weights import roles

X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)


def parsed(text: str, opset: int, ir_version: int = 3) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}')


def evaluate(model: ir.Model, **feed: np.ndarray) -> list[Any]:
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feed)


def in_onnxruntime(proto: onnx.ModelProto, **feed: np.ndarray) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feed)


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


# What a graph says of itself.


def test_weights_among_the_inputs_are_weights_and_unused_ones_stay() -> None:
    proto = parsed(
        "g (float[N, 3] x, float[3] w, float[2] spare) => (float[N, 3] y) "
        "<float[3] w = {1, 2, 3}, float[2] spare = {4, 5}> { y = Mul(x, w) }",
        opset=8,
    )
    normal = normalize(ir.from_proto(proto))

    assert [value.name for value in normal.graph.inputs] == ["x"]
    assert roles(normal) == {"w": "parameter", "spare": "parameter"}


def test_nodes_without_names_are_called_after_what_they_make_and_doubles_are_told_apart() -> None:
    proto = parsed(
        "g (float[N, 3] x) => (float[N, 3] y) { a = Softmax<axis = 0>(x)  b = Softmax<axis = 0>(a)  y = Relu(b) }",
        opset=9,
    )
    proto.graph.node[0].name = proto.graph.node[1].name = "twice"
    normal = normalize(ir.from_proto(proto))

    names = [node.name for node in normal.graph]
    assert len(set(names)) == len(names)
    assert names[-1] == "y"
    assert {"twice", "twice_1"} <= set(names)
    once = np.exp(X) / np.exp(X).sum()
    want = np.exp(once) / np.exp(once).sum()
    np.testing.assert_allclose(evaluate(normal, x=X)[0], want, rtol=1e-5)


def test_wrong_shapes_in_the_graph_are_not_believed() -> None:
    proto = parsed("g (float[2, 3] x) => (float[7, 7] y) { t = Relu(x)  y = Flatten<axis = 0>(t) }", opset=9)
    proto.graph.value_info.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, [5, 5, 5]))
    normal = normalize(ir.from_proto(proto))

    assert [tuple(node.outputs[0].shape) for node in normal.graph] == [(2, 3), (1, 6)]


def test_the_other_name_of_the_standard_domain_is_understood() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 7, opset_import: ["ai.onnx" : 12]> '
        "g (float[N, 3] x) => (float[N, 3, 1] y) { y = ai.onnx.Unsqueeze<axes = [2]>(x) }"
    )
    assert evaluate(normalize(ir.from_proto(proto)), x=X)[0].shape == (2, 3, 1)


def test_a_function_of_an_older_opset_than_the_model_is_brought_up_by_its_own() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13, "local" : 1]>
        g (float[N, 3] x) => (float[N, 3, 1] y) { t = local.old(x)  axes = Constant<value_ints = [2]>()
            y = Unsqueeze(t, axes) }
        <domain: "local", opset_import: ["" : 11]> old (a) => (c) { b = Unsqueeze<axes = [0]>(a)
            c = Squeeze<axes = [0]>(b) }"""
    )
    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Unsqueeze", "Squeeze", "Unsqueeze"]
    np.testing.assert_array_equal(evaluate(normal, x=X)[0], X[..., None])


def test_an_input_left_out_is_left_out() -> None:
    proto = parsed("g (float[N, 3] x) => (float[N, 3] y) <float high = {0.5}> { y = Clip(x, , high) }", opset=11)
    np.testing.assert_array_equal(evaluate(normalize(ir.from_proto(proto)), x=X)[0], np.minimum(X, 0.5))


def test_a_weight_that_has_the_name_of_a_node_stays_a_weight() -> None:
    proto = parsed("g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] dense = {1, 2, 3, 4, 5, 6}> {"
                   " y = MatMul(x, dense) }", opset=9)  # fmt: skip
    proto.graph.node[0].name = "dense"
    for name in ("torch", "keras"):
        graph = ir.from_proto(proto)
        built = backend(name).build(graph)
        got = backend(name).run(built.native, {"x": X}, read_signature(graph))["y"]
        np.testing.assert_allclose(got, X @ np.array([[1, 2], [3, 4], [5, 6]], np.float32), rtol=1e-5)


# Weights elsewhere than in the initializers.


def test_weights_in_constant_nodes_are_used_as_weights() -> None:
    weight = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["1"], value=numpy_helper.from_array(weight)),
        helper.make_node("Transpose", ["1"], ["2"], perm=[1, 0]),
        helper.make_node("Constant", [], ["3"], value=numpy_helper.from_array(weight[:, 0].copy())),
        helper.make_node("Gemm", ["x", "2", "3"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 3])], [value("y", 1, ["N", 4])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)

    framework, source = backend("torch"), ir.from_proto(proto)
    native = framework.build(source).native
    got = framework.run(native, {"x": X}, read_signature(source))["y"]
    np.testing.assert_allclose(got, X @ weight.T + weight[:, 0], rtol=1e-5)
    assert sum(p.numel() for p in native.parameters()) == weight.size + 4


def test_doubles_among_the_constants_keep_their_dtype() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(0.1))),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["wide", "c"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["N", 3])], [value("y", 1, ["N", 3])])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    normal = normalize(ir.from_proto(proto))

    assert normal.graph.initializers["c"].const_value.dtype == ir.DataType.DOUBLE
    np.testing.assert_array_equal(evaluate(normal, x=X)[0], (X.astype(np.float64) + 0.1).astype(np.float32))


def test_weights_in_a_file_beside_the_graph_are_read_from_there(tmp_path: Path) -> None:
    proto = parsed("g (float[N, 3] x) => (float[N, 2] y) { y = MatMul(x, w) }", opset=9, ir_version=4)
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    normal = normalize(ir.load(path))

    assert isinstance(normal.graph.initializers["w"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(normal.graph.initializers["w"].const_value.numpy(), weight)


# The habits of single exporters.


def test_the_transposes_of_tf2onnx_are_cancelled_in_keras() -> None:
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t0", "conv/kernel:0"], ["c0"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Transpose", ["c0"], ["t1"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["t1", "conv/bias:0"], ["a0"]),
        helper.make_node("Relu", ["a0"], ["r0"]),
        helper.make_node("Transpose", ["r0"], ["t2"], perm=[0, 3, 1, 2]),
        helper.make_node("MaxPool", ["t2"], ["p0"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p0"], ["y"], perm=[0, 2, 3, 1]),
    ]
    weights = [
        numpy_helper.from_array(rng.normal(size=(5, 3, 3, 3)).astype(np.float32), "conv/kernel:0"),
        numpy_helper.from_array(rng.normal(size=5).astype(np.float32), "conv/bias:0"),
    ]
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", 1, ["N", 4, 4, 3])], [value("y", 1, ["N", 2, 2, 5])]
    graph = helper.make_graph(nodes, "tf2onnx", inputs, outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    x = np.moveaxis(IMAGE, 1, -1)

    framework, source = backend("keras"), ir.from_proto(proto)
    built = framework.build(source)
    got = framework.run(built.native, {"x": x}, read_signature(source))["y"]
    np.testing.assert_allclose(got, in_onnxruntime(proto, x=x)[0], rtol=1e-4, atol=1e-5)
    assert not any("transpose" in operation.name for operation in built.native.operations)


def test_chains_of_identities_are_gone() -> None:
    proto = parsed(
        "g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {1, 2, 3}> {"
        " a = Identity(x)  v = Identity(w)  u = Identity(v)  b = Mul(a, u)  c = Identity(b)  y = Identity(c) }",
        opset=11,
    )
    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Mul"]
    assert [value.name for value in normal.graph.outputs] == ["y"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_the_flatten_of_old_torch_works_for_any_batch(opset: int) -> None:
    unsqueeze = (
        "a = Unsqueeze<axes = [0]>(n)" if opset < 13 else "zeros = Constant<value_ints = [0]>() a = Unsqueeze(n, zeros)"
    )
    proto = parsed(
        "g (float[N, 3, 4, 4] x) => (float[N, M] y) <int64 zero = {0}, int64[1] rest = {-1}> {"
        f" s = Shape(x)  n = Gather<axis = 0>(s, zero)  {unsqueeze}  t = Concat<axis = 0>(a, rest)"
        "  y = Reshape(x, t) }",
        opset=opset,
    )
    for name in ("torch", "keras"):
        graph = ir.from_proto(proto)
        native = backend(name).build(graph).native
        got = backend(name).run(native, {"x": IMAGE}, read_signature(graph))["y"]
        np.testing.assert_array_equal(got, IMAGE.reshape(2, -1))


# Operators of their time.


def test_softmax_over_several_axes_at_once_works_where_no_shape_is_known() -> None:
    proto = parsed("g (float[] x) => (float[] y) { y = Softmax<axis = 1>(x) }", opset=11)
    want = np.exp(IMAGE) / np.exp(IMAGE).sum((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(evaluate(normalize(ir.from_proto(proto)), x=IMAGE)[0], want, rtol=1e-5)


@pytest.mark.parametrize(("shape", "axis"), [("N, 5", 3 - 2), ("N, 5, 1, 1", 1), ("N, 1, 1, 5", 1), ("N, T, 5", 2)])
def test_softmax_over_one_axis_stays_one_operator(shape: str, axis: int) -> None:
    proto = parsed(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Softmax<axis = {axis}>(x) }}", opset=11)
    assert op_types(normalize(ir.from_proto(proto))) == ["Softmax"]


def test_a_batch_norm_that_lists_its_statistics_trains_as_it_did() -> None:
    names = "float[3] s, float[3] b, float[3] m, float[3] v"
    proto = parsed(
        f"g (float[2, 3, 4, 4] x, {names}) => (float[2, 3, 4, 4] y) {{"
        " y, m1, v1, m2, v2 = BatchNormalization<epsilon = 0.01>(x, s, b, m, v) }",
        opset=7,
    )
    feed = {name: np.array([0.5, 1, 2], np.float32) for name in "sbmv"}
    got = evaluate(normalize(ir.from_proto(proto)), x=IMAGE, **feed)
    np.testing.assert_allclose(got[0], in_onnxruntime(proto, x=IMAGE, **feed)[0], rtol=1e-4, atol=1e-5)


def test_a_batch_norm_with_statistics_for_every_pixel_is_written_out() -> None:
    names = ", ".join(f"float[3, 4, 4] {name}" for name in "sbmv")
    proto = parsed(
        f"g (float[2, 3, 4, 4] x, {names}) => (float[2, 3, 4, 4] y) {{"
        " y = BatchNormalization<epsilon = 0.01, spatial = 0>(x, s, b, m, v) }",
        opset=7,
    )
    feed = {name: np.abs(IMAGE[0]) + index for index, name in enumerate("sbmv")}
    got = evaluate(normalize(ir.from_proto(proto)), x=IMAGE, **feed)
    np.testing.assert_allclose(got[0], in_onnxruntime(proto, x=IMAGE, **feed)[0], rtol=1e-4, atol=1e-5)


def test_upsample_counts_from_the_corner() -> None:
    proto = parsed(
        "g (float[N, 3, H, W] x) => (float[N, 3, A, B] y) <float[4] s = {1, 1, 2, 2}> {"
        ' y = Upsample<mode = "linear">(x, s) }',
        opset=9,
    )
    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Resize"]
    np.testing.assert_allclose(evaluate(normal, x=IMAGE)[0], in_onnxruntime(proto, x=IMAGE)[0], rtol=1e-4, atol=1e-5)


def test_the_scales_of_upsample_may_be_computed() -> None:
    proto = parsed(
        "g (float[N, 3, H, W] x, float[4] s) => (float[N, 3, A, B] y) { y = Upsample(x, s) }",
        opset=9,
    )
    scales = np.array([1, 1, 2, 3], np.float32)
    got = evaluate(normalize(ir.from_proto(proto)), x=IMAGE, s=scales)[0]
    np.testing.assert_array_equal(got, IMAGE.repeat(2, axis=2).repeat(3, axis=3))


def test_the_slopes_of_an_old_prelu_belong_to_the_channels() -> None:
    proto = parsed(
        "g (float[2, 3, 4, 3] x, float[3] s) => (float[2, 3, 4, 3] y) { y = PRelu (x, s) }",
        opset=6,
    )
    x, slope = np.random.default_rng(0).standard_normal((2, 3, 4, 3)).astype("f"), np.array([0.5, 2, -1], np.float32)
    (found,) = evaluate(normalize(ir.from_proto(proto)), x=x, s=slope)
    np.testing.assert_allclose(found, np.where(x < 0, x * slope[:, None, None], x), rtol=1e-6)


def test_opset_6_broadcasts_where_it_was_told_to() -> None:
    proto = parsed(
        "g (float[2, 3, 4, 4] x, float[3] b) => (float[2, 3, 4, 4] y) { y = Add<broadcast = 1, axis = 1>(x, b) }",
        opset=6,
    )
    bias = np.array([1, 2, 3], np.float32)
    got = evaluate(normalize(ir.from_proto(proto)), x=IMAGE, b=bias)[0]
    np.testing.assert_array_equal(got, IMAGE + bias[:, None, None])


def test_opset_5_names_the_dtype_of_a_cast() -> None:
    proto = parsed('g (float[2, 3] x) => (int64[2, 3] y) { y = Cast<to = "INT64">(x) }', opset=5)
    np.testing.assert_array_equal(evaluate(normalize(ir.from_proto(proto)), x=X)[0], X.astype(np.int64))


def test_dropout_of_opset_6_in_inference_is_a_dropout() -> None:
    proto = parsed("g (float[2, 3] x) => (float[2, 3] y) { y = Dropout<is_test = 1, ratio = 0.3>(x) }", opset=6)
    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Dropout"]
    assert normal.graph[0].inputs[1].const_value.numpy() == np.float32(0.3)


def test_what_has_no_way_up_is_refused_with_its_place() -> None:
    proto = parsed(
        "g (float[2, 3, 4, 4] x, float[3] s, float[3] b, float[3] m, float[3] v) => (float[3] kept) {"
        " y, mean, var, kept, saved = BatchNormalization(x, s, b, m, v) }",
        opset=7,
    )
    with pytest.raises(
        UnsupportedOpError, match=r"BatchNormalization \(node 'y'\) of opset 7 cannot be brought to opset"
    ):
        normalize(ir.from_proto(proto))


def test_the_loops_of_old_opsets_have_their_bodies_brought_up_too() -> None:
    proto = parsed(
        """g (float[2, 3] x, int64 n, bool go) => (float[2, 3] y) {
            y = Loop<body = b (int64 i, bool c, float[2, 3] a) => (bool d, float[2, 3] e) {
                d = Identity(c)
                t = Unsqueeze<axes = [0]>(a)
                u = Squeeze<axes = [0]>(t)
                e = Clip<max = 1.0>(u)
            }>(n, go, x)
        }""",
        opset=9,
    )
    normal = normalize(ir.from_proto(proto))

    assert normal.graph.opset_imports[""] == NORMAL_OPSET
    got = evaluate(normal, x=X, n=np.array(2), go=np.array(True))[0]
    np.testing.assert_array_equal(got, np.minimum(X, 1))
