"""Quantization that is written out is found again, and nothing else is taken for one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from modelport.graph.layers.quantized import recognize_quantization
from modelport.graph.layers.quantized_products import join_biases
from modelport.graph.layers.quantized_weights import restore_weights
from modelport.graph.normal import drop_dead_nodes, tidied, tidy
from modelport.graph.quantized import EXACT_PRODUCTS
from modelport.graph.weights import roles, set_roles
from tests.graph.running import evaluate

RNG = np.random.default_rng(0)
SCALE, SCALES = np.float32(0.037), RNG.uniform(0.01, 0.1, 5).astype(np.float32)
BYTES = RNG.integers(-128, 128, (4, 5)).astype(np.int8)
# Middles between two integers, what saturates, and what lies somewhere.
EDGES = np.concatenate([(np.arange(-140, 140) + 0.5) * SCALE, RNG.standard_normal(20) * 9, [0, 1e30, -1e30]])
X = EDGES[: len(EDGES) // 5 * 5].reshape(-1, 5).astype(np.float32)


def graph_of(body: str, y: str = "float[batch, 5]", x: str = "float[batch, 5]", **arrays: Any) -> ir.Model:
    """A graph of x to y with initializers; those called w... are weights, buffers where they are integers."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({x} x) => ({y} y) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())
    model = ir.from_proto(proto)
    found = {name: "buffer" if np.asarray(a).dtype.kind == "i" else "parameter" for name, a in arrays.items()}
    set_roles(model, {name: role for name, role in found.items() if name.startswith("w")})  # type: ignore[misc]
    return tidied(model)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def found_in(model: ir.Model) -> ir.Model:
    """The graph as it is recognized; it computes what it did."""
    given = X if model.graph.inputs[0].dtype == ir.DataType.FLOAT else BYTES
    expected = evaluate(model, {"x": given})
    found = model.clone()
    recognize_quantization(found)
    tidy(found)
    for before, after in zip(expected, evaluate(found, {"x": given}), strict=True):
        np.testing.assert_array_equal(before, after)
    return found


QUANTIZE = "a = Div(x, s) b = Round(a) c = Add(b, z) d = Max(c, low) e = Min(d, high)"
INT8 = {"s": SCALE, "z": np.float32(3), "low": np.float32(-128), "high": np.float32(127)}
UINT8 = {"s": SCALE, "z": np.float32(130), "low": np.float32(0), "high": np.float32(255)}


@pytest.mark.parametrize(
    ("body", "arrays", "dtype"),
    [
        (f"{QUANTIZE} y = Cast<to = 3>(e)", INT8, ir.DataType.INT8),
        (f"{QUANTIZE} y = Cast<to = 2>(e)", UINT8, ir.DataType.UINT8),
        ("a = Div(x, s) b = Round(a) e = Clip(b, low, high) y = Cast<to = 3>(e)", INT8, ir.DataType.INT8),
        (
            "a = Div(x, s) b = Round(a) c = Add(z, b) d = Min(high, c) e = Max(low, d) f = Cast<to = 6>(e) "
            "y = Cast<to = 3>(f)",
            INT8,
            ir.DataType.INT8,
        ),
        (f"{QUANTIZE} y = Cast<to = 3>(e)", INT8 | {"s": SCALES}, ir.DataType.INT8),
        (f"{QUANTIZE} y = Cast<to = 3>(e)", INT8 | {"s": SCALES, "z": np.float32([1, -2, 0, 5, 9])}, ir.DataType.INT8),
    ],
)
def test_what_saturates_what_is_rounded_is_a_quantize(body: str, arrays: dict[str, Any], dtype: ir.DataType) -> None:
    declared = "int8[batch, 5]" if dtype == ir.DataType.INT8 else "uint8[batch, 5]"
    model = found_in(graph_of(body, declared, **{name: each for name, each in arrays.items() if name in body}))
    (node,) = model.graph
    assert node.op_type == "QuantizeLinear"
    scale, zero = (value.const_value.numpy() for value in node.inputs[1:])
    np.testing.assert_array_equal(scale, arrays["s"])
    assert node.inputs[2].dtype == dtype
    assert zero.shape == scale.shape
    assert (node.attributes.get_int("axis", -1) == 1) == (scale.ndim == 1)


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        pytest.param(
            "a = Div(x, s) b = Add(a, z) c = Round(b) d = Max(c, low) e = Min(d, high)", {}, id="added before"
        ),
        pytest.param(QUANTIZE.replace("Round", "Floor"), {}, id="floor"),
        pytest.param(QUANTIZE.replace("Div", "Mul"), {}, id="times the inverse"),
        pytest.param(QUANTIZE, {"low": np.float32(-127)}, id="another limit"),
        pytest.param(QUANTIZE, {"high": np.float32(255)}, id="limit of another type"),
        pytest.param(QUANTIZE, {"z": np.float32(0.5)}, id="half a zero point"),
        pytest.param(QUANTIZE, {"z": np.float32(200)}, id="a zero point that the type has not"),
        pytest.param(QUANTIZE, {"s": np.float32(-0.1)}, id="a negative scale"),
        pytest.param(QUANTIZE, {"s": np.float32([[0.1], [0.2]])}, id="a scale that broadcasts"),
        pytest.param("a = Div(x, ws) b = Round(a) d = Max(b, low) e = Min(d, high)", {}, id="a scale that is trained"),
        pytest.param("a = Div(x, s) b = Round(a) e = Min(b, high)", {}, id="one limit"),
        pytest.param("a = Div(x, s) e = Clip(a, low, high)", {}, id="not rounded"),
    ],
)
def test_what_is_not_exactly_a_quantize_stays(body: str, arrays: dict[str, Any]) -> None:
    every = {**INT8, "ws": SCALES, **arrays}
    given = {name: each for name, each in every.items() if re.search(rf"\b{name}\b", body)}
    model = graph_of(f"{body} y = Cast<to = 3>(e)", "int8[rows, 5]", "float[1, 5]", **given)
    before = operators(model)
    assert recognize_quantization(model) == 0
    assert operators(model) == before


@pytest.mark.parametrize(
    ("body", "arrays", "axis"),
    [
        ("a = Cast<to = 1>(w) b = Mul(a, s)", {"w": BYTES, "s": SCALE}, None),
        ("a = Cast<to = 1>(w) b = Mul(s, a)", {"w": BYTES, "s": SCALES}, 1),
        ("a = Cast<to = 1>(w) b = Mul(a, s)", {"w": BYTES, "s": SCALES[:4, None]}, 0),
        ("a = Cast<to = 1>(w) c = Sub(a, z) b = Mul(c, s)", {"w": BYTES, "s": SCALES, "z": np.float32(7)}, 1),
        ("a = Cast<to = 1>(w) b = Mul(a, s)", {"w": BYTES.astype(np.int32) * 99999, "s": SCALE}, None),
        (
            "r = Reshape(w, n) a = Cast<to = 1>(r) b = Mul(a, s)",
            {"w": BYTES.reshape(5, 4), "n": [4, 5], "s": SCALE},
            None,
        ),
    ],
)
def test_a_weight_in_integers_times_a_scale_is_a_dequantize(
    body: str, arrays: dict[str, Any], axis: int | None
) -> None:
    model = found_in(graph_of(f"{body} t = Transpose<perm = [1, 0]>(b) y = MatMul(x, t)", "float[batch, 4]", **arrays))
    (node,) = (node for node in model.graph if node.op_type == "DequantizeLinear")
    assert node.attributes.get_int("axis", -1) == (-1 if axis is None else axis)
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy().ravel(), np.ravel(arrays["s"]))
    assert "Mul" not in operators(model)
    assert roles(model) == {"w": "buffer"}


WEIGHT = "a = Cast<to = 1>(w)"


@pytest.mark.parametrize(
    ("body", "x", "arrays"),
    [
        pytest.param("a = Cast<to = 1>(x) y = Mul(a, s)", "uint8[batch, 5]", {"s": SCALE}, id="an image of bytes"),
        pytest.param("a = Cast<to = 1>(x) y = Mul(a, s)", "int32[batch, 5]", {"s": SCALE}, id="places of tokens"),
        pytest.param(f"{WEIGHT} b = Mul(a, ws) y = Add(x, b)", "float[1, 5]", {"ws": SCALES}, id="trained"),
        pytest.param(f"{WEIGHT} c = Sub(a, half) b = Mul(c, s) y = Add(x, b)", "float[1, 5]", {"s": SCALE}, id="half"),
        pytest.param(f"{WEIGHT} b = Mul(a, s) y = Add(x, b)", "float[2, 5]", {"s": SCALES[:2, None]}, id="broadcasts"),
        pytest.param(f"{WEIGHT} b = Div(a, s) y = Add(x, b)", "float[1, 5]", {"s": SCALE}, id="divided"),
    ],
)
def test_what_is_not_exactly_a_dequantize_stays(body: str, x: str, arrays: dict[str, Any]) -> None:
    arrays = ({"w": BYTES[:1], "half": np.float32(0.5)} if WEIGHT in body else {}) | arrays
    model = graph_of(body, "float" + x[x.index("[") :], x, **arrays)
    before = operators(model)
    assert recognize_quantization(model) == 0
    assert operators(model) == before


def test_a_pair_says_the_same_on_either_side() -> None:
    body = "a = Div(x, s) b = Round(a) e = Clip(b, low, high) q = Cast<to = 2>(e) f = Cast<to = 1>(q) y = Mul(f, s)"
    model = found_in(graph_of(body, s=SCALE, low=np.float32(0), high=np.float32(255)))
    first, second = model.graph
    assert (first.op_type, second.op_type) == ("QuantizeLinear", "DequantizeLinear")
    assert first.inputs[1:] == second.inputs[1:]
    assert first.inputs[2].const_value.numpy() == 0


@pytest.mark.parametrize("kind", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("zero", [False, True])
def test_blocks_of_a_weight_have_a_scale_each(kind: str, zero: bool) -> None:
    wide = kind.replace("4", "8")
    limits = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[kind]
    weight = RNG.integers(*limits, (6, 4)).astype(wide)
    weight[0, :2] = limits[0], limits[1] - 1
    zeros = RNG.integers(*limits, (2, 1, 4)).astype(wide)
    scales = RNG.uniform(0.1, 1, (2, 1, 4)).astype(np.float32)
    body = "a = Cast<to = 1>(w) b = Reshape(a, n) c = Sub(b, z) d = Mul(c, s) e = Reshape(d, m)"
    body = body if zero else body.replace("c = Sub(b, z) d = Mul(c, s)", "d = Mul(b, s)")
    arrays = {"w": weight, "n": [2, 3, 4], "s": scales, "m": [6, 4]} | ({"z": zeros.astype(np.float32)} if zero else {})
    model = graph_of(f"{body} y = MatMul(x, e)", "float[batch, 4]", "float[batch, 6]", **arrays)
    set_roles(model, {"w": "buffer"})
    x = RNG.standard_normal((3, 6)).astype(np.float32)
    (expected,) = evaluate(model, {"x": x})
    recognize_quantization(model)
    tidy(model)
    node, product = model.graph
    assert (node.op_type, product.op_type) == ("DequantizeLinear", "MatMul")
    assert (node.attributes.get_int("axis"), node.attributes.get_int("block_size")) == (0, 3)
    assert node.inputs[1].const_value.shape == (2, 4)
    # A zero point that was folded into floats has no bytes that could be halved beside the weight's.
    assert node.inputs[0].dtype == ir.DataType[(wide if zero else kind).upper()]
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], expected)


def test_a_range_that_is_measured_is_a_dynamic_quantize() -> None:
    model = measured()
    found = found_in(model)
    assert operators(found) == ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul"]
    assert [value.name for value in found.graph.node(1).inputs][1] == "w"


def measured(**changes: str) -> ir.Model:
    """What DynamicQuantizeLinear, MatMulInteger and the scale behind them compute."""
    body = (
        "l = ReduceMin<keepdims = 0>(x) h = ReduceMax<keepdims = 0>(x) low = Min(l, zero) high = Max(h, zero) "
        "same = Equal(high, low) range = Sub(high, low) span = Where(same, one, range) s = Div(span, levels) "
        "n = Neg(low) m = Div(n, s) o = Round(m) zf = Clip(o, zero, levels) zp = Cast<to = 2>(zf) "
        "a = Div(x, s) b = Round(a) c = Add(b, zf) d = Clip(c, zero, levels) q = Cast<to = 2>(d) "
        "qi = Cast<to = 6>(q) zi = Cast<to = 6>(zp) left = Sub(qi, zi) right = Cast<to = 6>(w) "
        "p = MatMul(left, right) f = Cast<to = 1>(p) y = Mul(f, s)"
    )
    for name, instead in changes.items():
        body = re.sub(rf"\b{name} = ", f"{name} = {instead} unused_{name} = ", body)
    numbers = {"zero": np.float32(0), "one": np.float32(1), "levels": np.float32(255)}
    return graph_of(body, "float[batch, 4]", w=np.ascontiguousarray(BYTES.T), **numbers)


@pytest.mark.parametrize("change", [{"low": "Identity(l)"}, {"s": "Div(range, levels)"}, {"o": "Floor(m)"}])
def test_a_range_that_is_measured_otherwise_stays(change: dict[str, str]) -> None:
    model = measured(**change)
    recognize_quantization(model)
    assert "DynamicQuantizeLinear" not in operators(model)


@pytest.mark.parametrize(("length", "kind", "exact"), [
    (EXACT_PRODUCTS, 1, True), (EXACT_PRODUCTS + 1, 1, False), (EXACT_PRODUCTS + 1, 11, True), (4, 6, True),
])  # fmt: skip
def test_a_product_of_bytes_in_floats_is_one_of_integers_where_it_is_exact(length: int, kind: int, exact: bool) -> None:
    body = f"a = Cast<to = {kind}>(x) b = Cast<to = {kind}>(w) p = MatMul(a, b) y = Cast<to = 6>(p)"
    weight = RNG.integers(-128, 128, (length, 3)).astype(np.int8)
    model = graph_of(body, "int32[batch, 3]", f"uint8[batch, {length}]", w=weight)
    recognize_quantization(model)
    assert ("MatMulInteger" in operators(model)) == exact


def test_a_bias_in_integers_goes_into_its_layer() -> None:
    body = (
        "q = Cast<to = 1>(w) k = Mul(q, s) t = Transpose<perm = [1, 0]>(k) p = MatMul(x, t) "
        "i = Cast<to = 1>(wb) b = Mul(i, s) y = Add(p, b)"
    )
    bias = RNG.integers(-99, 99, 4).astype(np.int32)
    model = found_in(graph_of(body, "float[batch, 4]", w=BYTES, wb=bias, s=SCALE))
    assert join_biases(model) == 1
    tidy(model)
    assert operators(model) == ["DequantizeLinear", "DequantizeLinear", "Gemm"]
    (expected,) = evaluate(graph_of(body, "float[batch, 4]", w=BYTES, wb=bias, s=SCALE), {"x": X[:3]})
    np.testing.assert_allclose(evaluate(model, {"x": X[:3]})[0], expected, rtol=1e-6)


def test_a_bias_in_floats_stays_where_it_is() -> None:
    body = "q = Cast<to = 1>(w) k = Mul(q, s) t = Transpose<perm = [1, 0]>(k) p = MatMul(x, t) y = Add(p, wb)"
    model = found_in(graph_of(body, "float[batch, 4]", w=BYTES, wb=SCALES[:4], s=SCALE))
    assert join_biases(model) == 0


def test_a_weight_that_is_moved_and_moved_back_is_read_as_it_is() -> None:
    body = (
        "q = Cast<to = 1>(w) k = Mul(q, s) t = Transpose<perm = [1, 0]>(k) u = Unsqueeze(t, ends) "
        "v = Transpose<perm = [2, 1, 0]>(u) f = Squeeze(v, starts) y = MatMul(x, f)"
    )
    model = found_in(graph_of(body, "float[batch, 4]", w=BYTES.T.copy(), s=SCALE, ends=[2], starts=[0]))
    assert restore_weights(model) == 1
    drop_dead_nodes(model)
    assert operators(model) == ["DequantizeLinear", "MatMul"]
    turned = body.replace("perm = [2, 1, 0]", "perm = [2, 0, 1]")
    arrays = {"w": BYTES.T.copy(), "s": SCALE, "ends": [2], "starts": [0]}
    stays = graph_of(turned, "float[batch, 5]", "float[batch, 4]", **arrays)
    assert recognize_quantization(stays) == 1
    assert restore_weights(stays) == 0
