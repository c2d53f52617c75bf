"""Layers are recognised, with their own weights, however they are written."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from modelport.graph.layers.recognize import BUILD_DOMAIN, recognize_layers
from modelport.graph.normal import normalize
from modelport.graph.weights import set_roles
from tests.graph.running import evaluate, model_of, tensor, weight

RNG = np.random.default_rng(0)


def recognized(model: ir.Model) -> list[ir.Node]:
    return list(recognize_layers(normalize(model)).graph)


def parsed(body: str, **weights: np.ndarray) -> ir.Model:
    """A graph of x (batch, 3) to y, with weights."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[batch, 3] x) => (float[batch, K] y) {{ {body} }}'
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return ir.from_proto(proto)


def linear(node: ir.Node, x: np.ndarray) -> np.ndarray:
    """What a Linear node computes."""
    w = node.inputs[1].const_value.numpy()
    y = x @ (w if node.attributes.get_int("transposed") else w.T)
    return y + node.inputs[2].const_value.numpy() if len(node.inputs) > 2 else y


W, WT, B = (RNG.standard_normal(shape, np.float32) for shape in [(4, 3), (3, 4), (4,)])


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("y = Gemm<transB = 1>(x, w, b)", ["x", "w", "b"]),
        ("y = Gemm<transB = 1>(x, w)", ["x", "w"]),
        ("y = Gemm(x, wt, b)", ["x", "wt", "b"]),
        ("y = MatMul(x, wt)", ["x", "wt"]),
        ("m = MatMul(x, wt) y = Add(m, b)", ["x", "wt", "b"]),
        ("m = MatMul(x, wt) y = Add(b, m)", ["x", "wt", "b"]),
        ("t = Transpose<perm = [1, 0]>(w) m = MatMul(x, t) y = Add(m, b)", ["x", "w", "b"]),
        ("t = Transpose(w) y = MatMul(x, t)", ["x", "w"]),
    ],
)
def test_every_spelling_of_a_linear_layer_is_one_node(body, inputs):
    model = parsed(body, w=W, wt=WT, b=B)
    x = RNG.standard_normal((2, 3), np.float32)

    (node,) = recognized(model)

    assert (node.domain, node.op_type) == (BUILD_DOMAIN, "Linear")
    assert [value.name for value in node.inputs] == inputs
    assert node.outputs[0].name == "y"
    assert node.outputs[0].is_graph_output()
    want = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]
    np.testing.assert_allclose(linear(node, x), want, rtol=1e-5, atol=1e-6)


def test_a_layer_with_one_output_has_its_bias():
    (node,) = recognized(parsed("m = MatMul(x, wt) y = Add(m, b)", wt=WT[:, :1], b=B[:1]))

    assert [value.name for value in node.inputs] == ["x", "wt", "b"]


def test_a_gemm_with_a_matrix_to_add_is_a_linear_layer_and_an_addition():
    nodes = recognized(parsed("y = Gemm<transB = 1>(x, w, c)", w=W, c=np.ones((1, 4), np.float32)))

    assert [node.op_type for node in nodes] == ["Linear", "Add"]
    assert [value.name for value in nodes[1].inputs] == ["y/linear", "c"]
    assert nodes[1].outputs[0].name == "y"


@pytest.mark.parametrize(
    "body",
    [
        "y = Gemm<transB = 1, alpha = 2.0>(x, w, b)",
        "t = Transpose(x) y = Gemm<transA = 1, transB = 1>(t, w)",
        "m = Mul(w, w) y = Gemm<transB = 1>(x, m)",
    ],
)
def test_what_is_no_linear_layer_stays(body):
    assert all(not node.domain for node in recognized(parsed(body, w=W, b=B)))


def test_a_constant_matrix_is_no_layer():
    model = parsed("y = MatMul(x, wt)", wt=WT)
    set_roles(model, {})

    assert [node.op_type for node in recognized(model)] == ["MatMul"]


def test_a_frozen_weight_is_a_layer_too():
    model = parsed("y = MatMul(x, wt)", wt=WT)
    set_roles(model, {"wt": "frozen"})

    assert [node.op_type for node in recognized(model)] == ["Linear"]


def test_an_addition_that_is_needed_elsewhere_is_not_swallowed():
    model = parsed("m = MatMul(x, wt) a = Add(m, b) y = Mul(a, m)", wt=WT, b=B)

    assert [node.op_type for node in recognized(model)] == ["Linear", "Add", "Mul"]


def test_a_gather_from_a_parameter_is_an_embedding():
    tape = ir.tape.Tape()
    ids = tensor("ids", ["batch", "seq"], ir.DataType.INT64)
    table = weight(tape, "emb.weight", np.ones((5, 2), np.float32))
    model = model_of(tape, [ids], [tape.op("Gather", [table, ids])])

    (node,) = recognized(model)

    assert node.op_type == "Embedding"
    assert [value.name for value in node.inputs] == ["ids", "emb.weight"]
    assert str(node.outputs[0].shape) == "[batch,seq,2]"


GELUS = {
    "torch": "h = Mul(x, half) s = Div(x, r2) e = Erf(s) p = Add(e, one) y = Mul(h, p)",
    "old torch": "s = Div(x, r2) e = Erf(s) p = Add(e, one) m = Mul(x, p) y = Mul(m, half)",
    "keras": "s = Mul(x, r) e = Erf(s) p = Add(one, e) m = Mul(half, p) y = Mul(m, x)",
    "halved": "s = Mul(r, x) e = Erf(s) p = Add(e, one) h = Div(x, two) y = Mul(p, h)",
}


@pytest.mark.parametrize("name", GELUS)
def test_a_gelu_that_is_written_out_is_recognised(name):
    constants = {"half": 0.5, "one": 1.0, "two": 2.0, "r": math.sqrt(0.5), "r2": math.sqrt(2)}
    model = parsed(GELUS[name], **{key: np.float32(value) for key, value in constants.items()})

    (node,) = recognized(model)

    assert (node.op_type, [value.name for value in node.inputs]) == ("Gelu", ["x"])


def test_what_is_nearly_a_gelu_is_none():
    constants = {"half": np.float32(0.7), "one": np.float32(1), "r2": np.float32(math.sqrt(2))}

    assert "Gelu" not in [node.op_type for node in recognized(parsed(GELUS["torch"], **constants))]


TANHS = {
    "pow": "p = Pow(x, three) a = Mul(c, p) b = Add(x, a) d = Mul(b, k) t = Tanh(d) e = Add(t, one) h = Mul(x, half) "
    "y = Mul(h, e)",
    "mul": "q = Mul(x, x) p = Mul(q, x) a = Mul(p, c) b = Add(a, x) d = Mul(k, b) t = Tanh(d) e = Add(one, t) "
    "h = Mul(e, x) y = Mul(half, h)",
}


@pytest.mark.parametrize("name", TANHS)
def test_an_approximate_gelu_that_is_written_out_is_recognised(name):
    constants = {"half": 0.5, "one": 1.0, "three": 3.0, "c": 0.044715, "k": math.sqrt(2 / math.pi)}
    model = parsed(TANHS[name], **{key: np.float32(value) for key, value in constants.items()})
    x = RNG.standard_normal((4, 3)).astype("float32")
    (expected,) = evaluate(normalize(model), {"x": x})

    (node,) = recognized(model)

    assert (node.op_type, node.attributes["approximate"].value) == ("Gelu", "tanh")
    np.testing.assert_allclose(evaluate(recognize_layers(normalize(model)), {"x": x})[0], expected, atol=1e-5)


def test_a_value_times_its_sigmoid_is_a_swish():
    (node,) = recognized(parsed("s = Sigmoid(x) y = Mul(x, s)"))
    assert (node.op_type, [value.name for value in node.inputs]) == ("Swish", ["x"])
    kinds = [node.op_type for node in recognized(parsed("s = Sigmoid(x) t = Tanh(x) y = Mul(t, s)"))]
    assert "Swish" not in kinds


RMS_NORMS = {
    "pow": "p = Pow(x, two) v = ReduceMean(p, axes) a = Add(v, eps) s = Sqrt(a) n = Div(x, s) y = Mul(w, n)",
    "mul": "p = Mul(x, x) v = ReduceMean(p, axes) a = Add(eps, v) s = Sqrt(a) i = Reciprocal(s) n = Mul(x, i) "
    "y = Mul(n, w)",
}


@pytest.mark.parametrize("name", RMS_NORMS)
def test_an_rms_norm_that_is_written_out_is_recognised(name):
    constants = {"two": np.float32(2), "eps": np.float32(1e-6), "axes": np.array([-1])}
    model = parsed(RMS_NORMS[name], w=RNG.standard_normal(3).astype("float32"), **constants)
    set_roles(model, {"w": "parameter"})
    x = RNG.standard_normal((4, 3)).astype("float32")
    (expected,) = evaluate(normalize(model), {"x": x})

    (node,) = recognized(model)

    assert node.op_type == "RMSNormalization"
    assert node.attributes["epsilon"].value == pytest.approx(1e-6)
    np.testing.assert_allclose(evaluate(recognize_layers(normalize(model)), {"x": x})[0], expected, atol=1e-5)


NORMS = {
    "pow": "p = Pow(d, two) v = ReduceMean(p, axes) a = Add(v, eps) s = Sqrt(a) n = Div(d, s)",
    "mul": "p = Mul(d, d) v = ReduceMean(p, axes) a = Add(eps, v) s = Sqrt(a) i = Reciprocal(s) n = Mul(i, d)",
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shift", [True, False])
def test_a_layer_norm_that_is_written_out_is_recognised(name, shift):
    tail = "w = Mul(n, scale) y = Add(w, shift)" if shift else "y = Mul(scale, n)"
    model = parsed(
        f"m = ReduceMean(x, axes) d = Sub(x, m) {NORMS[name]} {tail}",
        axes=np.array([-1]),
        two=np.float32(2),
        eps=np.float32(1e-5),
        scale=RNG.standard_normal(3, np.float32),
        shift=RNG.standard_normal(3, np.float32),
    )

    (node,) = recognized(model)

    assert node.op_type == "LayerNormalization"
    assert [value.name for value in node.inputs] == ["x", "scale", "shift"][: 3 if shift else 2]
    assert node.attributes.get_int("axis") == -1
    assert node.attributes.get_float("epsilon") == pytest.approx(1e-5)
