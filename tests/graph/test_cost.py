"""What a graph costs: operations, weights and memory, against arithmetic by hand."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.graph.cost.count import GraphCost, count
from modelport.testing.onnx_cases import Case, all_cases


def parsed(signature: str, body: str, opset: int = 23) -> ir.Model:
    """A graph in the text syntax of onnx; the shapes of what it computes are left to inference."""
    imports = f'"" : {opset}, "com.microsoft" : 1'
    proto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]> g {signature} {{ {body} }}")
    for value in proto.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return ir.from_proto(proto)


def with_weights(model: ir.Model, **arrays: np.ndarray | ir.TensorProtocol) -> ir.Model:
    """The graph with some of its inputs as initializers; `fc_weight` is the weight `fc.weight`."""
    for value in list(model.graph.inputs):
        if value.name in arrays:
            model.graph.inputs.remove(value)
            array = arrays[value.name]
            value.name = value.name.replace("_", ".", 1)
            value.const_value = ir.tensor(array, name=value.name) if isinstance(array, np.ndarray) else array
            value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(value.const_value.shape)
            model.graph.register_initializer(value)
    return model


def cost_of(signature: str, body: str, **shapes: tuple[int, ...]) -> GraphCost:
    return count(parsed(signature, body), shapes)


F = "float"
OPERATORS = {
    "Conv": (
        "(float[2, 6, 8, 8] x, float[4, 3, 3, 3] w, float[4] b) => (float y)",
        "y = Conv<group = 2, pads = [1, 1, 1, 1], strides = [2, 2]>(x, w, b)",
        2 * 4 * 4 * 4 * 27,
        2 * 4 * 4 * 4,
    ),
    "ConvTranspose": (
        "(float[2, 6, 5, 5] x, float[6, 4, 2, 2] w) => (float y)",
        "y = ConvTranspose<strides = [2, 2]>(x, w)",
        2 * 6 * 25 * 4 * 4,
        0,
    ),
    "Gemm": (
        "(float[7, 3] x, float[7, 5] w, float[5] b) => (float y)",
        "y = Gemm<transA = 1>(x, w, b)",
        3 * 5 * 7,
        3 * 5,
    ),
    "MatMul": ("(float[2, 1, 4, 6] x, float[3, 6, 5] w) => (float y)", "y = MatMul(x, w)", 2 * 3 * 4 * 5 * 6, 0),
    "MatMulInteger": ("(int8[4, 6] x, int8[6, 5] w) => (int32 y)", "y = MatMulInteger(x, w)", 4 * 5 * 6, 0),
    "Einsum of two": (
        "(float[2, 4, 6] x, float[2, 5, 6] w) => (float y)",
        'y = Einsum<equation = "bik,bjk->bij">(x, w)',
        2 * 4 * 5 * 6,
        0,
    ),
    "Einsum with any axes": (
        "(float[2, 3, 4, 6] x, float[6, 5] w) => (float y)",
        'y = Einsum<equation = "...k,kj->...j">(x, w)',
        2 * 3 * 4 * 5 * 6,
        0,
    ),
    "Einsum of three": (
        "(float[3, 4] x, float[4, 5] w, float[5, 6] v) => (float y)",
        'y = Einsum<equation = "ab,bc,cd->ad">(x, w, v)',
        3 * 4 * 5 + 3 * 5 * 6,
        0,
    ),
    "Einsum that sums nothing": (
        "(float[3] x, float[4] w) => (float y)",
        'y = Einsum<equation = "a,b->ab">(x, w)',
        0,
        12,
    ),
    "Attention": (
        "(float[2, 5, 24] q, float[2, 7, 12] k, float[2, 7, 16] v) => (float y)",
        "y = Attention<q_num_heads = 4, kv_num_heads = 2>(q, k, v)",
        2 * 4 * 5 * 7 * (6 + 8),
        2 * 4 * 5 * 7 * 4,
    ),
    "LSTM": (
        "(float[7, 2, 6] x, float[2, 40, 6] w, float[2, 40, 10] r) => (float y)",
        'y = LSTM<hidden_size = 10, direction = "bidirectional">(x, w, r)',
        2 * 7 * 2 * 4 * 10 * (6 + 10),
        2 * 7 * 2 * 10 * 13,
    ),
    "GRU": (
        "(float[7, 2, 6] x, float[1, 30, 6] w, float[1, 30, 10] r, float[1, 60] b) => (float y)",
        "y = GRU<hidden_size = 10>(x, w, r, b)",
        7 * 2 * 3 * 10 * (6 + 10),
        7 * 2 * 10 * (11 + 3),
    ),
    "Add that broadcasts": ("(float[2, 1, 4] x, float[3, 1] w) => (float y)", "y = Add(x, w)", 0, 2 * 3 * 4),
    "Softmax": ("(float[2, 9] x) => (float y)", "y = Softmax(x)", 0, 3 * 18),
    "MaxPool": ("(float[1, 2, 8, 8] x) => (float y)", "y = MaxPool<kernel_shape = [3, 3]>(x)", 0, 2 * 36 * 9),
    "ReduceMean": ("(float[4, 8] x) => (float y)", "y = ReduceMean<keepdims = 0>(x)", 0, 32),
    "Transpose": ("(float[4, 8] x) => (float y)", "y = Transpose<perm = [1, 0]>(x)", 0, 0),
    "Arithmetic on indices": ("(int64[4] x) => (int64 y)", "y = Add(x, x)", 0, 0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_counts_what_its_definition_says(name: str) -> None:
    signature, body, macs, others = OPERATORS[name]
    cost = cost_of(signature, body)
    assert (cost.macs, cost.flops) == (macs, 2 * macs + others)
    assert not cost.uncounted


NET = (
    "(float[batch, 3, height, height] x, float[8, 3, 3, 3] w, float[8, 5] v) => (float y)",
    "c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, v)",
)


@settings(max_examples=10, deadline=None)
@given(batch=st.integers(1, 9), height=st.integers(3, 9))
def test_costs_grow_with_the_batch_and_the_weights_do_not(batch: int, height: int) -> None:
    model = with_weights(parsed(*NET), w=np.ones((8, 3, 3, 3), "float32"), v=np.ones((8, 5), "float32"))
    one, many = (count(model, {"x": (rows, 3, height, height)}) for rows in (1, batch))
    assert one.macs == 8 * height**2 * 27 + 40
    assert (many.macs, many.flops, many.peak.nbytes) == (batch * one.macs, batch * one.flops, batch * one.peak.nbytes)
    assert one.parameters == many.parameters == 8 * 27 + 40


def test_the_graph_stays_as_it_was() -> None:
    model = with_weights(parsed(*NET), w=np.ones((8, 3, 3, 3), "float32"), v=np.ones((8, 5), "float32"))
    before = ir.to_proto(model).SerializeToString()
    count(model, {"x": (1, 3, 8, 8)})
    assert ir.to_proto(model).SerializeToString() == before


def test_memory_is_what_lives_at_once_and_a_view_is_not_counted_twice() -> None:
    signature = "(float[4, 256] x, int64[2] s) => (float y)"
    model = with_weights(
        parsed(signature, "a = Relu(x) r = Reshape(a, s) c = Concat<axis = 0>(r, r) y = ReduceMax<keepdims = 0>(c)"),
        s=np.array([2, 512]),
    )
    # x and a are 4 kB each; the reshaped a is a; c is 8 kB beside it; y is one number.
    assert count(model, {}).peak.nbytes == 12 * 1024


@pytest.mark.parametrize(("body", "peak"), [
    ("a = Relu(x) b = Exp(a) c = Sqrt(b) y = Neg(c)", 2 * 4096),
    # a waits for the sum at the end.
    ("a = Relu(x) b = Exp(a) c = Sqrt(b) y = Add(c, a)", 3 * 4096),
    ("a = Relu(x) b = Exp(x) c = Sqrt(x) y = Sum(a, b, c)", 4 * 4096),
    ("m = IsNaN(x) y = Not(m)", 4096 + 1024),
])  # fmt: skip
def test_a_value_lives_from_its_producer_to_its_last_reader(body: str, peak: int) -> None:
    kind = "bool" if "Not" in body else F
    assert cost_of(f"(float[4, 256] x) => ({kind} y)", body).peak.nbytes == peak


def test_what_is_made_of_weights_alone_is_no_activation() -> None:
    signature, body = "(float[1, 64] x, float[64, 64] fc_weight) => (float y)", "t = Neg(fc_weight) y = MatMul(x, t)"
    cost = count(with_weights(parsed(signature, body), fc_weight=np.ones((64, 64), "float32")), {})
    assert cost.peak.nbytes == 2 * 64 * 4
    assert cost.flops == 2 * 64**2 + 64**2


def test_a_shared_weight_counts_once_in_its_first_layer() -> None:
    signature = "(float[1, 8] x, float[8, 8] tied_weight, float[3] spare_weight) => (float y)"
    model = with_weights(
        parsed(signature, "a = MatMul(x, tied_weight) y = MatMul(a, tied_weight)"),
        tied_weight=np.ones((8, 8), "float32"),
        spare_weight=np.ones(3, "float32"),
    )
    cost = count(model, {})
    assert [node.parameters for node in cost.nodes] == [64, 0, 3]
    assert cost.nodes[-1].layer == "spare.weight"


def test_running_statistics_take_bytes_and_are_no_parameters() -> None:
    names = "float[8] bn_weight, float[8] bn_bias, float[8] bn_mean, float[8] bn_var"
    body = "y = BatchNormalization(x, bn_weight, bn_bias, bn_mean, bn_var)"
    arrays = {f"bn_{name}": np.ones(8, "float32") for name in ("weight", "bias", "mean", "var")}
    cost = count(with_weights(parsed(f"(float[1, 8, 4, 4] x, {names}) => (float y)", body), **arrays), {})
    assert (cost.parameters, cost.nbytes, cost.flops) == (16, 4 * 32, 2 * 8 * 16)
    assert [layer.name for layer in cost.layers()] == ["bn"]


def test_quantized_weights_count_their_numbers_and_take_their_packed_bytes() -> None:
    signature = "(float[1, 64] x, int8[64, 32] fc_weight, float[32] fc_scale) => (float y)"
    model = with_weights(
        parsed(signature, "w = DequantizeLinear<axis = 1>(fc_weight, fc_scale) y = MatMul(x, w)"),
        fc_weight=np.ones((64, 32), "int8"),
        fc_scale=np.ones(32, "float32"),
    )
    cost = count(model, {})
    assert (cost.macs, cost.flops, cost.parameters, cost.nbytes) == (2048, 4096, 2048, 2048 + 4 * 32)


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.UINT4])
def test_weights_of_four_bits_take_half_a_byte(dtype: ir.DataType) -> None:
    signature = "(float[1, 64] x, int8[64, 32] fc_weight, float[2, 32] fc_scale) => (float y)"
    packed = ir.Tensor(np.ones((64, 32), dtype.numpy()), dtype, name="fc.weight")
    model = with_weights(
        parsed(signature, "w = DequantizeLinear<axis = 0, block_size = 32>(fc_weight, fc_scale) y = MatMul(x, w)"),
        fc_weight=packed,
        fc_scale=np.ones((2, 32), "float32"),
    )
    cost = count(model, {})
    assert (cost.macs, cost.parameters, cost.nbytes) == (2048, 2048, 1024 + 4 * 64)


def test_matmul_n_bits_counts_as_the_product_that_it_is() -> None:
    signature = "(float[batch, 64] x, uint8[32, 2, 16] fc_weight, float[64] fc_scale) => (float y)"
    body = (
        "h = com.microsoft.MatMulNBits<K = 64, N = 32, bits = 4, block_size = 32>(x, fc_weight, fc_scale) y = Relu(h)"
    )
    arrays = {"fc_weight": np.ones((32, 2, 16), "uint8"), "fc_scale": np.ones(64, "float32")}
    cost = count(with_weights(parsed(signature, body), **arrays), {"x": (3, 64)})
    assert (cost.macs, cost.flops) == (3 * 2048, 2 * 3 * 2048 + 3 * 32)
    assert (cost.parameters, cost.nbytes) == (2048, 1024 + 4 * 64)
    assert not cost.uncounted


def test_of_a_branch_the_dearest_counts() -> None:
    body = (
        "y = If(c) <then_branch = t () => (float a) { m = MatMul(x, x) a = MatMul(m, x) }, "
        "else_branch = e () => (float b) { b = Relu(x) }>"
    )
    cost = cost_of("(bool c, float[4, 4] x) => (float y)", body)
    assert (cost.macs, cost.flops) == (128, 256)
    # The state in the branch, its result and x.
    assert cost.peak.nbytes == 1 + 3 * 64


LOOP = (
    "y = Loop({}, c, x) <body = b (int64 i, bool k, float[4, 4] s) => (bool n, float[4, 4] o) "
    "{{ n = Identity(k) o = MatMul(s, s) }}>"
)


def test_a_loop_counts_as_often_as_it_runs() -> None:
    signature = "(int64 trips, bool c, float[4, 4] x) => (float y)"
    model = with_weights(parsed(signature, LOOP.format("trips")), trips=np.array(1000))
    cost = count(model, {})
    assert cost.macs == 1000 * 64
    assert not cost.uncounted


def test_a_loop_of_unknown_length_is_told() -> None:
    cost = cost_of("(int64 m, bool c, float[4, 4] x) => (float y)", LOOP.format("m"))
    assert cost.macs == 64
    (told,) = cost.uncounted
    assert told.what == "Loop"
    assert "how often" in told.reason


def test_a_scan_runs_once_per_slice() -> None:
    body = (
        "z, y = Scan<num_scan_inputs = 1, body = b (float[4] s, float[4] e) => (float[4] o, float[4] r) "
        "{ o = Add(s, e) r = Identity(o) }>(x0, x)"
    )
    assert cost_of("(float[4] x0, float[9, 4] x) => (float z, float y)", body).flops == 9 * 4


def test_an_operator_without_a_rule_is_listed() -> None:
    cost = cost_of("(float[2, 8] x, int64[1] k) => (float v, int64 i)", "r = Relu(x) v, i = TopK(r, k)")
    assert cost.flops == 16
    assert ("TopK", "its operator has no rule") in {(told.what, told.reason) for told in cost.uncounted}


def test_a_size_that_only_the_run_tells_is_listed() -> None:
    cost = cost_of("(float[2, 8] x, bool[16] m) => (float y)", "c = Compress(x, m) y = Exp(c)")
    assert {told.what for told in cost.uncounted} == {"Exp", "memory"}
    assert cost.flops == 0


@pytest.mark.parametrize("case", all_cases()[::16], ids=lambda case: case.name)
def test_every_operator_is_counted_or_named(case: Case) -> None:
    cost = count(ir.from_proto(case.model()), {})
    computing = {node.name for node in cost.nodes if node.flops}
    assert not computing & {told.where for told in cost.uncounted if "no rule" in told.reason}
    assert all(node.flops >= 2 * node.macs >= 0 for node in cost.nodes)


def test_nodes_are_grouped_by_the_module_whose_weights_they_read() -> None:
    signature = "(float[2, 8] x, float[8, 4] enc_fc.weight, float[4] enc_fc.bias) => (float y)"
    model = with_weights(
        parsed(signature.replace("enc_fc.", "fc_"), "m = MatMul(x, fc_weight) a = Add(m, fc_bias) y = Relu(a)"),
        fc_weight=np.ones((8, 4), "float32"),
        fc_bias=np.ones(4, "float32"),
    )
    for node, name in zip(model.graph, ("fc.matmul", "fc", "relu"), strict=True):
        node.name = name
    layers = count(model, {}).layers()
    assert [(layer.name, layer.operators, layer.macs) for layer in layers] == [
        ("fc", ("MatMul", "Add"), 64),
        ("relu", ("Relu",), 0),
    ]
    assert layers[0].output == (2, 4)
    assert layers[0].parameters == prod((8, 4)) + 4
