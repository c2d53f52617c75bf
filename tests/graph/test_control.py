"""Control flow that is known before the run is written out; the rest stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from modelport.core.errors import UnsupportedOpError
from modelport.graph.normal import normalize
from modelport.testing.onnx_cases import all_cases
from tests.graph.running import run

HOLDERS = {"If", "Loop", "Scan", "SequenceMap"}

IF = """g (float[batch, 3] x) => (float[batch, 3] out) {
  shape = Shape (x)
  one = Constant <value_int: int = 1> ()
  width = Gather (shape, one)
  three = Constant <value_int: int = WIDTH> ()
  known = Equal (width, three)
  out = If (known) <then_branch = t () => (float[batch, 3] y) { y = Add (x, x) },
                    else_branch = e () => (float[batch, 3] z) { z = Neg (x) }>
}"""

LOOP = """g (float[batch, 3] x) => (float[batch, 3] last, float[n, batch, 3] all) {
  trips = Constant <value_int: int = TRIPS> ()
  go = Constant <value: tensor = bool {1}> ()
  last, all = Loop (trips, go, x) <body = b (int64 i, bool c, float[batch, 3] state)
      => (bool c_out, float[batch, 3] next, float[batch, 3] item) {
    c_out = Identity (c)
    i_float = CastLike (i, state)
    next = Add (state, i_float)
    item = Mul (next, x)
  }>
}"""

SCAN = """g (float[2] start, float[4, batch] x) => (float[2] end, float[2, 4] all) {
  end, all = Scan <num_scan_inputs = 1, scan_input_directions = [1], scan_output_axes = [-1],
      scan_output_directions = [1], body = b (float[2] state, float[batch] row) => (float[2] next, float[2] item) {
    axes = Constant <value_ints: ints = [0]> ()
    total = ReduceSum <keepdims = 0> (row, axes)
    next = Add (state, total)
    item = Identity (next)
  }> (start, x)
}"""


def _model(text: str, **words: int) -> ir.Model:
    for word, value in words.items():
        text = text.replace(word, str(value))
    return ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')


def _left(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph.all_nodes()} & HOLDERS


def _same(model: ir.Model, normal: ir.Model, inputs: dict[str, np.ndarray]) -> None:
    normal.graph.opset_imports[""] = 21
    for expected, found in zip(run(model, inputs), run(normal, inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("width", [3, 4])
def test_an_if_whose_condition_follows_from_the_shapes_is_its_branch(width: int) -> None:
    model = _model(IF, WIDTH=width)
    normal = normalize(model)
    assert [node.op_type for node in normal.graph] == ["Add" if width == 3 else "Neg"]
    _same(model, normal, {"x": np.arange(6, dtype="float32").reshape(2, 3)})


def test_a_short_loop_is_unrolled_and_a_long_one_stays() -> None:
    model = _model(LOOP, TRIPS=3)
    normal = normalize(model)
    assert not _left(normal)
    _same(model, normal, {"x": np.arange(6, dtype="float32").reshape(2, 3)})
    assert _left(normalize(_model(LOOP, TRIPS=1000))) == {"Loop"}


def test_a_loop_that_makes_no_round_and_stacks_results_stays() -> None:
    assert _left(normalize(_model(LOOP, TRIPS=0))) == {"Loop"}


def test_a_scan_over_a_static_axis_is_unrolled_in_its_directions() -> None:
    model = _model(SCAN)
    normal = normalize(model)
    assert not _left(normal)
    rng = np.random.default_rng(0)
    _same(
        model,
        normal,
        {"start": np.ones(2, "float32"), "x": rng.standard_normal((4, 5)).astype("float32")},
    )


def test_a_scan_over_an_open_axis_stays() -> None:
    assert _left(normalize(_model(SCAN.replace("float[4, batch] x", "float[time, batch] x")))) == {"Scan"}


def test_loops_inside_one_another_do_not_blow_up_the_graph() -> None:
    text = LOOP.replace(
        "item = Mul (next, x)",
        """trips_2 = Constant <value_int: int = 60> ()
        item = Loop (trips_2, c, next) <body = b2 (int64 j, bool c2, float[batch, 3] s)
            => (bool c2_out, float[batch, 3] n2) { c2_out = Identity (c2)  n2 = Add (s, x) }>""",
    )
    assert sum(1 for _ in normalize(_model(text, TRIPS=60)).graph.all_nodes()) < 600


def _case(name: str) -> ir.Model:
    case = next(case for case in all_cases() if case.name == name)
    return ir.from_proto(case.model())


def test_the_scan_of_opset_8_is_two_scans_and_its_lengths_are_refused() -> None:
    model = _case("test_scan_sum")
    normal = normalize(model)
    normal.graph.opset_imports[""] = 26
    inputs = {"initial": np.zeros((1, 2), "float32"), "x": np.arange(6, dtype="float32").reshape(1, 3, 2)}
    last, sums = ReferenceEvaluator(ir.to_proto(normal)).run(None, inputs)
    np.testing.assert_array_equal(last, [[6, 9]])
    np.testing.assert_array_equal(sums, [[[0, 1], [2, 4], [6, 9]]])
    lengths = ir.Value(name="lengths", type=ir.TensorType(ir.DataType.INT64))
    model.graph.inputs.append(lengths)
    model.graph[0].replace_input_with(0, lengths)
    with pytest.raises(UnsupportedOpError, match="lengths of its sequences"):
        normalize(model)


@pytest.mark.parametrize(
    "name",
    [
        "test_adagrad_multiple",
        "test_adam_multiple",
        "test_nesterov_momentum",
        "test_flexattention_score_mod",
        "test_sequence_map_add_1_sequence_1_tensor",
    ],
)
def test_an_operator_that_stands_for_others_is_written_out(name: str) -> None:
    case = next(case for case in all_cases() if case.name == name)
    normal = normalize(ir.from_proto(case.model()))
    assert set(normal.graph.opset_imports) == {""}
    normal.graph.opset_imports[""] = 26
    for inputs, expected in case.runs():
        names = [str(value.name) for value in normal.graph.inputs]
        found = ReferenceEvaluator(ir.to_proto(normal)).run(None, dict(zip(names, inputs, strict=True)))
        case.check(expected, found)


def test_the_graphs_of_a_flexattention_may_use_what_is_around_it() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 26, "ai.onnx.preview" : 1]>
    g (float[1, 2, 3, 4] q, float[1, 2, 3, 4] k, float[1, 2, 3, 4] v, float[3, 3] bias) => (float[1, 2, 3, 4] y) {
      y = ai.onnx.preview.FlexAttention (q, k, v) <score_mod = m (float[b, h, l, s] scores)
          => (float[b, h, l, s] moved) { moved = Add (scores, bias) }>
    }""")
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, 2, 3, 4)).astype("float32") for _ in range(3))
    bias = rng.standard_normal((3, 3)).astype("float32")
    normal = normalize(model)
    normal.graph.opset_imports[""] = 26
    (found,) = ReferenceEvaluator(ir.to_proto(normal)).run(None, {"q": q, "k": k, "v": v, "bias": bias})
    scores = np.exp(q @ k.swapaxes(2, 3) / 2 + bias)
    np.testing.assert_allclose(found, scores / scores.sum(-1, keepdims=True) @ v, rtol=1e-5, atol=1e-6)


def test_what_only_a_branch_that_goes_has_read_goes_with_it() -> None:
    text = """g (float[3] x) => (float[3] y) <bool go = {1}> {
      spare = Constant <value = float[3] {1.0, 2.0, 3.0}> ()
      extra = Exp (x)
      y = If (go) <then_branch = t () => (float[3] a) { a = Neg (x) },
                   else_branch = e () => (float[3] b) { c = Add (extra, spare)  b = Neg (c) }>
    }"""
    normal = normalize(_model(text))
    assert [node.op_type for node in normal.graph] == ["Neg"]
    assert not normal.graph.initializers


def test_a_category_mapper_is_the_label_encoder_that_came_after_it() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]>
    g (string[n] x) => (int64[n] y) {
      y = ai.onnx.ml.CategoryMapper <cats_strings = ["a", "b"], cats_int64s = [4, 7]> (x)
    }""")
    (node,) = normalize(model).graph
    assert (node.op_type, node.outputs[0].name) == ("LabelEncoder", "y")
    assert list(node.attributes["keys_strings"].as_strings()) == ["a", "b"]
    assert list(node.attributes["values_int64s"].as_ints()) == [4, 7]
