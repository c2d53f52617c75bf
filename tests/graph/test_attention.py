"""Attention that is written out becomes one operator, whoever wrote it; what only looks like it stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from modelport.graph.layers.recognize import recognize_layers
from modelport.graph.normal import normalize
from modelport.graph.splice import BUILD_DOMAIN
from tests.graph.running import evaluate

B, H, T, S, D = 2, 4, 5, 6, 8
LOW = "-3e38"


def _values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


INPUTS = {
    "q": _values((B, H, T, D), 0),
    "k": _values((B, H, S, D), 1),
    "v": _values((B, H, S, D), 2),
    "bias": _values((B, 1, T, S), 3),
    "pad": np.arange(S)[None] < np.array([[S], [S - 2]]),
}
HEAD = (
    f"float[b,{H},{T},{D}] q, float[b,{H},{S},{D}] k, float[b,{H},{S},{D}] v, float[b,1,{T},{S}] bias, bool[b,{S}] pad"
)
START = "kt = Transpose<perm=[0,1,3,2]>(k) "
END = " w = Softmax<axis=-1>(s) y = MatMul(w, v)"


def _model(body: str, head: str = HEAD) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g ({head}) => (y) <float scale = {{0.25}}, float four = {{4.0}}, float half = {{0.5}}, float low = {{{LOW}}},
        float mild = {{-10000.0}}, int64[2] axes = {{1,2}}, int64[1] one = {{1}}, int64[1] two = {{2}},
        int64[5] groups = {{1,1,2,1,1}}, int64[4] heads = {{0,4,6,8}}, float ratio = {{0.25}}, bool yes = {{1}}>
    {{ {body} }}"""
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    return normalize(model)


def _recognized(body: str, head: str = HEAD, inputs: dict[str, np.ndarray] | None = None) -> ir.Node:
    """The one Attention that a graph becomes, which computes the same."""
    model, inputs = _model(body, head), inputs or INPUTS
    given = {value.name: inputs[str(value.name)] for value in model.graph.inputs}
    (expected,) = evaluate(model, given)
    recognize_layers(model)
    (node,) = (node for node in model.graph if node.op_type == "Attention")
    assert not any(other.op_type == "Softmax" for other in model.graph)
    if not node.domain:
        (found,) = evaluate(model, given)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return node


@pytest.mark.parametrize(
    "scores",
    [
        "m = MatMul(q, kt) s = Mul(m, scale)",
        "m = MatMul(q, kt) s = Div(m, four)",
        "a = Mul(q, half) c = Mul(half, kt) s = MatMul(a, c)",
    ],
)
def test_the_scale_is_found_wherever_it_stands(scores: str) -> None:
    node = _recognized(START + scores + END)
    assert node.attributes["scale"].value == pytest.approx(0.25)
    assert [value.name for value in node.inputs] == ["q", "k", "v"]


def test_a_key_whose_transposes_were_joined_is_taken_apart() -> None:
    head = HEAD.replace(f"float[b,{H},{S},{D}] k", f"float[b,{S},{H},{D}] k")
    inputs = INPUTS | {"k": np.ascontiguousarray(INPUTS["k"].transpose(0, 2, 1, 3))}
    body = "kt = Transpose<perm=[0,2,3,1]>(k) s = MatMul(q, kt)" + END
    node = _recognized(body, head, inputs)
    transpose = node.inputs[1].producer()  # type: ignore[union-attr]
    assert transpose is not None
    assert transpose.attributes["perm"].value == (0, 2, 1, 3)


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        ("m = MatMul(q, kt) s = Add(m, bias)", ir.DataType.FLOAT),
        ("m = MatMul(q, kt) u = Unsqueeze(pad, axes) s = Where(u, m, low)", ir.DataType.FLOAT),
        ("m = MatMul(q, kt) n = Not(pad) u = Unsqueeze(n, axes) s = Where(u, low, m)", ir.DataType.FLOAT),
        (
            "m = MatMul(q, kt) z = Shape(m) e = Expand(yes, z) u = Unsqueeze(pad, axes) a = And(e, u) "
            "s = Where(a, m, low)",
            ir.DataType.FLOAT,
        ),
        ("m = MatMul(q, kt) u = Unsqueeze(pad, axes) w0 = Where(u, m, low) s = Add(bias, w0)", ir.DataType.FLOAT),
    ],
)
def test_a_mask_stays_small(mask: str, kind: ir.DataType) -> None:
    node = _recognized(START + mask + END)
    value = node.inputs[3]
    assert value is not None
    assert value.dtype == kind
    assert value.shape is not None
    assert value.shape[1] == 1


def test_minus_infinity_is_a_mask_of_conditions() -> None:
    body = "m = MatMul(q, kt) z = Constant<value_float=0.0>() i = Log(z) u = Unsqueeze(pad, axes) s = Where(u, m, i)"
    node = _recognized(START + body + END)
    assert node.inputs[3] is not None
    assert node.inputs[3].dtype == ir.DataType.BOOL


def _causal(kind: str) -> ir.Model:
    """Attention under a lower triangle that a graph adds, selects, or computes."""
    tape = ir.tape.Tape()
    steps = "t" if kind.endswith("any length") else T
    q, k, v = (ir.val(n, dtype=ir.DataType.FLOAT, shape=["b", H, steps, D]) for n in "qkv")
    kt = tape.op("Transpose", [k], {"perm": (0, 1, 3, 2)})
    scores = tape.op("MatMul", [q, kt])
    infinity = np.array(LOW if kind.startswith("low") else -np.inf, np.float32)
    lower = np.tril(np.ones((1, 1, T, T), bool))
    if kind == "added":
        array = np.where(lower, np.float32(0), infinity)
        scores = tape.op("Add", [scores, tape.initializer(ir.tensor(array, name="mask"))])
    elif kind == "low for any length":
        scores = tape.op("Mul", [scores, tape.initializer(ir.tensor(np.float32(0.5), name="half"))])
        size = tape.op("Shape", [scores], {"start": 2})
        full = tape.op("Expand", [tape.initializer(ir.tensor(np.array([[True]]), name="yes")), size])
        axes = tape.initializer(ir.tensor(np.array([0, 1]), name="axes"))
        mask = tape.op("Unsqueeze", [tape.op("Trilu", [full], {"upper": 0}), axes])
        scores = tape.op("Where", [mask, scores, tape.initializer(ir.tensor(infinity, name="fill"))])
    elif kind in ("selected", "low"):
        mask, fill = (tape.initializer(ir.tensor(a, name=n)) for n, a in (("mask", lower), ("fill", infinity)))
        scores = tape.op("Where", [mask, scores, fill])
    else:
        fill = tape.initializer(ir.tensor(infinity, name="fill"))
        size, diagonal = (tape.initializer(ir.tensor(np.array(a), name=n)) for n, a in (("size", [T, T]), ("one", 1)))
        full = tape.op("Expand", [fill, size])
        scores = tape.op("Add", [scores, tape.op("Trilu", [full, diagonal], {"upper": 1})])
    y = tape.op("MatMul", [tape.op("Softmax", [scores], {"axis": -1}), v])
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([q, k, v], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 21}, name="g")
    return normalize(ir.Model(graph, ir_version=10))


@pytest.mark.parametrize("kind", ["added", "selected", "computed", "low", "low for any length"])
def test_a_lower_triangle_is_a_word(kind: str) -> None:
    model = _causal(kind)
    inputs = {name: _values((B, H, T, D), seed) for seed, name in enumerate("qkv")}
    (expected,) = evaluate(model, inputs)
    recognize_layers(model)
    (node,) = (node for node in model.graph if node.op_type == "Attention")
    assert node.attributes["is_causal"].value == 1
    assert len(node.inputs) == 3
    np.testing.assert_allclose(evaluate(model, inputs)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_row_of_a_triangle_that_all_queries_share_is_no_triangle() -> None:
    body = f"row = Constant<value=bool[1,{S}] {{1{',0' * (S - 1)}}}>() s = Where(row, m, low)"
    node = _recognized(START + "m = MatMul(q, kt) " + body + END)
    assert "is_causal" not in node.attributes


def test_values_made_for_masks_have_names_of_their_own() -> None:
    model = _model(START + "m = MatMul(q, kt) c = Greater(bias, half) s = Where(c, m, low)" + END)
    recognize_layers(model)
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(names) == len(set(names))


def test_heads_that_a_group_of_queries_shares_are_not_repeated() -> None:
    head = HEAD.replace(f"float[b,{H},{S},{D}]", f"float[b,{H // 2},{S},{D}]")
    inputs = INPUTS | {"k": INPUTS["k"][:, :2], "v": INPUTS["v"][:, :2]}
    repeated = "".join(
        f"{x}u = Unsqueeze({x}, two) {x}e = Expand({x}u, groups) {x}r = Reshape({x}e, heads) " for x in "kv"
    )
    body = f"{repeated} kt = Transpose<perm=[0,1,3,2]>(kr) s = MatMul(q, kt) w = Softmax<axis=-1>(s) y = MatMul(w, vr)"
    node = _recognized(body, head, inputs)
    assert [value.name for value in node.inputs] == ["q", "k", "v"]


def test_heads_that_were_joined_with_the_batch_count_as_a_batch() -> None:
    head = "float[n,5,8] q, float[n,6,8] k, float[n,6,8] v"
    inputs = {name: INPUTS[name].reshape(B * H, -1, D) for name in "qkv"}
    node = _recognized("kt = Transpose<perm=[0,2,1]>(k) s = MatMul(q, kt)" + END, head, inputs)
    assert node.inputs[0].shape == ir.Shape([1, "n", 5, 8])  # type: ignore[union-attr]


def test_the_dropout_of_the_weights_is_kept() -> None:
    body = START + "s = MatMul(q, kt) w = Softmax<axis=-1>(s) d = Dropout(w, ratio) y = MatMul(d, v)"
    node = _recognized(body)
    assert node.domain == BUILD_DOMAIN
    assert node.attributes["dropout"].value == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (START + "s = MatMul(q, kt) w = Softmax<axis=2>(s) y = MatMul(w, v)", "a softmax over the queries"),
        (START + "m = MatMul(q, kt) a = Add(m, bias) s = Mul(a, half)" + END, "a scaled mask"),
        (START + "m = MatMul(q, kt) u = Unsqueeze(pad, axes) s = Where(u, m, mild)" + END, "a fill that is a number"),
        (START + "s = MatMul(q, kt) w = Softmax<axis=-1>(s) x = MatMul(w, v) r = ReduceSum(w, one) y = Add(x, r)",
         "weights that are used again"),
        (START + "s = MatMul(q, kt) w = Softmax<axis=-1>(s) vt = Transpose<perm=[0,1,3,2]>(v) y = MatMul(vt, w)",
         "weights on the other side"),
    ],
)  # fmt: skip
def test_what_is_no_attention_stays(body: str, why: str) -> None:
    try:
        model = _model(body)
    except onnx.shape_inference.InferenceError:
        pytest.fail(f"the graph of {why} is no graph")
    recognize_layers(model)
    assert not any(node.op_type == "Attention" for node in model.graph), why


def test_attentions_under_one_mask_share_it() -> None:
    layer = (
        "u{i} = Unsqueeze(pad, axes) m{i} = MatMul(q, kt) s{i} = Where(u{i}, m{i}, low) w{i} = Softmax<axis=-1>(s{i}) "
        "y{i} = MatMul(w{i}, v) "
    )
    model = _model(START + layer.format(i=0) + layer.format(i=1) + "y = Sub(y0, y1)")
    recognize_layers(model)
    masks = {node.inputs[3] for node in model.graph if node.op_type == "Attention"}
    assert len(masks) == 1
    assert sum(node.op_type == "Where" for node in model.graph) == 1
    (found,) = evaluate(model, {value.name: INPUTS[str(value.name)] for value in model.graph.inputs})
    np.testing.assert_array_equal(found, np.zeros_like(found))
