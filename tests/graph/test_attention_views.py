"""Whatever way an attention module shuffles its axes, a Linear leads to its heads by as few operators as it takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from modelport.graph.layers.attention_views import straighten_attention
from modelport.graph.layers.recognize import recognize_layers
from modelport.graph.layout.channels_last import to_channels_last
from modelport.graph.normal import normalize
from modelport.graph.shapes.expr import symbol
from modelport.graph.splice import BUILD_DOMAIN
from modelport.graph.views import View, steps
from modelport.graph.weights import set_roles
from tests.graph.running import evaluate

T, H, D = 5, 2, 4
C = H * D
MOVES = {"Reshape", "Transpose", "Gather", "Squeeze", "Unsqueeze", "Split"}

PACKED = """
    s = Transpose<perm=[1,0,2]>(x) p0 = MatMul(s, w_in) p = Add(p0, b_in) r = Reshape(p, three) u = Unsqueeze(r, zero)
    t = Transpose<perm=[3,1,2,0,4]>(u) z = Squeeze(t, minus)
    q0 = Gather<axis=0>(z, i0) k0 = Gather<axis=0>(z, i1) v0 = Gather<axis=0>(z, i2)
    q1 = Reshape(q0, joined) k1 = Reshape(k0, joined) v1 = Reshape(v0, joined)
    q2 = Transpose<perm=[1,0,2]>(q1) k2 = Transpose<perm=[1,0,2]>(k1) v2 = Transpose<perm=[1,0,2]>(v1)
    q = Reshape(q2, heads) k = Reshape(k2, heads) v = Reshape(v2, heads)
"""
SPLIT = """
    p0 = MatMul(x, w_in) p = Add(p0, b_in) q0, k0, v0 = Split<axis=-1, num_outputs=3>(p)
    q1 = Reshape(q0, apart) k1 = Reshape(k0, apart) v1 = Reshape(v0, apart)
    q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,1,3]>(k1) v = Transpose<perm=[0,2,1,3]>(v1)
"""
ATTEND = "kt = Transpose<perm=[0,1,3,2]>(k) a = MatMul(q, kt) a1 = Mul(a, half) a2 = Softmax(a1) o = MatMul(a2, v)"
OUT = """
    o1 = Transpose<perm=[2,0,1,3]>(o) o2 = Reshape(o1, rows) o3 = MatMul(o2, w_out) o4 = Reshape(o3, back)
    o5 = Transpose<perm=[1,0,2]>(o4) y = Add(o5, x)
"""


def _model(body: str, outputs: str = "y") -> ir.Model:
    rng = np.random.default_rng(0)
    constants = {
        "three": [T, -1, 3, C], "zero": [0], "minus": [-2], "joined": [T, -1, D], "heads": [-1, H, T, D],
        "apart": [0, T, H, D], "rows": [-1, C], "back": [T, -1, C],
    }  # fmt: skip
    texts = [f"int64[{len(v)}] {k} = {{{', '.join(map(str, v))}}}" for k, v in constants.items()]
    texts += [f"int64 i{i} = {{{i}}}" for i in range(3)] + ["float half = {0.5}"]
    weights = {"w_in": (C, 3 * C), "b_in": (3 * C,), "w_out": (C, C)}
    for name, shape in weights.items():
        numbers = ", ".join(f"{n:.4f}" for n in rng.standard_normal(shape).ravel())
        texts.append(f"float[{','.join(map(str, shape))}] {name} = {{{numbers}}}")
    graph = f'<ir_version: 10, opset_import: ["" : 21]> g (float[n,{T},{C}] x) => ({outputs}) <{", ".join(texts)}>'
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(f"{graph} {{ {body} }}"))
    model = ir.serde.deserialize_model(proto)
    set_roles(model, dict.fromkeys(weights, "parameter"))
    return normalize(model)


def _plain(model: ir.Model) -> ir.Model:
    """The graph with its Linears as ONNX writes them."""
    for node in list(model.graph):
        if node.domain == BUILD_DOMAIN and node.op_type == "Linear":
            x, weight, *bias = node.inputs
            product = ir.node("MatMul", [x, weight])
            model.graph.insert_before(node, product)
            last = ir.node("Add", [product.outputs[0], *bias]) if bias else product
            if bias:
                model.graph.insert_before(node, last)
            node.outputs[0].replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
    return model


def _moves(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.op_type in MOVES and not node.domain)


@pytest.mark.parametrize("body", [PACKED + ATTEND + OUT, SPLIT + ATTEND + OUT])
def test_one_transpose_leads_to_the_heads_and_one_back(body: str) -> None:
    model = _model(body)
    x = np.random.default_rng(1).standard_normal((3, T, C)).astype("float32")
    (expected,) = evaluate(model, {"x": x})
    recognize_layers(model)
    assert _moves(model) == {"Reshape": 2, "Transpose": 2, "Gather": 3}
    linears = [node for node in model.graph if node.op_type == "Linear"]
    assert [str(node.outputs[0].shape) for node in linears] == [f"[n,{T},{3 * C}]", f"[n,{T},{C}]"]
    assert len({value.name for node in model.graph for value in node.outputs}) == sum(
        len(node.outputs) for node in model.graph
    )
    laid_out, _ = to_channels_last(model)
    assert _moves(laid_out) == _moves(model)
    np.testing.assert_allclose(evaluate(_plain(model), {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


def test_what_the_graph_returns_on_the_way_is_still_returned() -> None:
    model = _model(PACKED + ATTEND + OUT, "y, o4")
    x = np.random.default_rng(1).standard_normal((3, T, C)).astype("float32")
    expected = evaluate(model, {"x": x})
    recognize_layers(model)
    for found, wanted in zip(evaluate(_plain(model), {"x": x}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_graph_without_detours_stays_as_it_is() -> None:
    model = _model(SPLIT.replace("MatMul(x, w_in)", "MatMul(x, w_in)") + "y = Add(q, v)")
    before = [node.op_type for node in model.graph]
    assert not straighten_attention(model)
    assert [node.op_type for node in model.graph] == before


def _view(*sizes: int | str) -> View:
    view = View.of(ir.val("x", shape=list(sizes)))
    assert view is not None
    return view


def test_a_view_undoes_what_it_did() -> None:
    there = _view("b", 6, 8).reshaped((symbol("b"), 6, 2, 4))
    assert there is not None
    back = there.transposed((0, 2, 1, 3)).transposed((0, 2, 1, 3)).reshaped((symbol("b"), 6, 8))
    assert back is not None
    assert back.is_base
    assert steps(back) == []


def test_axes_that_are_cut_across_are_no_view() -> None:
    assert _view(4, 6).transposed((1, 0)).reshaped((4, 6)) is None
    assert _view("b", 6).reshaped((symbol("b"), 4)) is None
    assert _view(6, 5).selected(1, 0, 2) is None
