"""Branches and loops that only the run decides: computed as ONNX Runtime does, trained through, copied and exported."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from modelport.backends.torch import BACKEND
from modelport.backends.torch.build import build
from modelport.graph.signature import read_signature
from tests.graph.running import run

MODEL = """<ir_version: 10, opset_import: ["" : 21]>
g (float[batch, 3] x, int64 trips, bool deep, float[time, 3] steps)
  => (float[a, 3] out, float[n, b, 3] all, float[3] last, float[time, 3] sums)
  <float[3, 3] w = {0.5, -0.2, 0.1, 0.3, 0.4, -0.6, 0.2, 0.1, 0.7}, float[3] b = {0.1, -0.3, 0.2}> {
  chosen = If (deep) <then_branch = t () => (float[batch, 3] p) { q = MatMul (x, w)  r = Add (q, b)  p = Tanh (r) },
                      else_branch = e () => (float[batch, 3] n) { n = Mul (x, b) }>
  go = Constant <value: tensor = bool {1}> ()
  out, all = Loop (trips, go, chosen) <body = l (int64 i, bool c, float[batch, 3] state)
      => (bool c_out, float[batch, 3] next, float[batch, 3] item) {
    product = MatMul (state, w)
    next = Sin (product)
    item = Neg (next)
    limit = Constant <value_float: float = 0.05> ()
    size = ReduceMax <keepdims = 0> (next)
    c_out = Greater (size, limit)
  }>
  start = Constant <value_floats: floats = [0.0, 0.0, 0.0]> ()
  last, sums = Scan <num_scan_inputs = 1, scan_input_directions = [1], body = s (float[3] sum, float[3] row)
      => (float[3] more, float[3] shown) { moved = Mul (row, b)  more = Add (sum, moved)  shown = Identity (more) }>
      (start, steps)
}"""


def _model() -> ir.Model:
    return ir.from_onnx_text(MODEL)


def _inputs(deep: bool = True, trips: int = 4, time: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(time)
    x, steps = rng.standard_normal((2, 3)).astype("float32"), rng.standard_normal((time, 3)).astype("float32")
    return {"x": x, "trips": np.array(trips), "deep": np.array(deep), "steps": steps}


@pytest.fixture(scope="module")
def native() -> Any:
    return build(_model()).native


@pytest.mark.parametrize(("deep", "trips", "time"), [(True, 4, 3), (False, 1, 5), (True, 0, 1)])
def test_branches_and_loops_agree_with_onnx_runtime(native: Any, deep: bool, trips: int, time: int) -> None:
    inputs = _inputs(deep, trips, time)
    found = BACKEND.run(native, inputs, read_signature(_model()))
    for expected, value in zip(run(_model(), inputs), found.values(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_weights_inside_a_branch_are_parameters_under_their_names(native: Any) -> None:
    assert {name: tuple(p.shape) for name, p in native.named_parameters()} == {"w": (3, 3), "b": (3,)}


def test_gradients_go_through_branches_and_loops(native: Any) -> None:
    signature, inputs = read_signature(_model()), _inputs()
    cotangents = {name: np.ones_like(y) for name, y in BACKEND.run(native, inputs, signature).items()}
    found = BACKEND.gradients(native, inputs, cotangents, signature)
    model, step = _model(), 1e-2
    for name in ("w", "b"):
        stored = model.graph.initializers[name]
        array, direction = stored.const_value.numpy(), np.random.default_rng(5).standard_normal(found[name].shape)
        ends = []
        for sign in (1, -1):
            stored.const_value = ir.tensor((array + sign * step * direction).astype("float32"), name=name)
            ends.append(sum(float(y.astype("float64").sum()) for y in run(model, inputs)))
        stored.const_value = ir.tensor(array, name=name)
        assert np.sum(found[name] * direction) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=5e-3, abs=1e-3)


def test_the_module_is_copied_and_pickled(native: Any) -> None:
    inputs, signature = _inputs(), read_signature(_model())
    expected = BACKEND.run(native, inputs, signature)
    for other in (copy.deepcopy(native), pickle.loads(pickle.dumps(native))):
        assert list(other.state_dict()) == list(native.state_dict())
        for name, value in BACKEND.run(other, inputs, signature).items():
            np.testing.assert_array_equal(value, expected[name])


def test_a_note_says_that_modelport_is_needed_to_unpickle_it() -> None:
    notes = build(_model()).notes
    assert [(note.kind, note.message.split()[0]) for note in notes] == [
        (("custom"), op) for op in ("If", "Loop", "Scan")
    ]


def test_a_branch_and_a_loop_without_stacks_are_exported_by_torch() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[batch, 3] x, int64 trips, bool deep) => (float[batch, 3] out) <float[3] b = {0.1, -0.3, 0.2}> {
      chosen = If (deep) <then_branch = t () => (float[batch, 3] p) { p = Add (x, b) },
                          else_branch = e () => (float[batch, 3] n) { n = Mul (x, b) }>
      out = Loop (trips, , chosen) <body = l (int64 i, bool c, float[batch, 3] state)
          => (bool c_out, float[batch, 3] next) { c_out = Identity (c)  next = Sin (state) }>
    }""")
    native = build(model).native
    inputs = (torch.ones(2, 3), torch.tensor(3), torch.tensor(True))
    batch = torch.export.Dim("batch")
    program = torch.export.export(native, inputs, dynamic_shapes=({0: batch}, None, None))
    for trips, deep in ((0, True), (5, False)):
        given = (torch.full((4, 3), 0.5), torch.tensor(trips), torch.tensor(deep))
        torch.testing.assert_close(program.module()(*given), native(*given))


def test_sequences_grow_in_a_loop_and_come_out_as_lists() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (int64 trips, seq(float[n]) given) => (seq(float[m]) out, int64 count) {
      go = Constant <value: tensor = bool {1}> ()
      out = Loop (trips, go, given) <body = l (int64 i, bool c, seq(float[n]) items)
          => (bool c_out, seq(float[m]) more) {
        c_out = Identity (c)
        first = SequenceAt (items, i)
        double = Add (first, first)
        more = SequenceInsert (items, double)
      }>
      count = SequenceLength (out)
    }""")
    given = [np.array([1, 2], "float32"), np.array([3], "float32")]
    found = BACKEND.run(build(model).native, {"trips": np.array(3), "given": given}, read_signature(model))
    assert [item.tolist() for item in found["out"]] == [[1, 2], [3], [2, 4], [6], [4, 8]]
    assert found["count"] == 5


def test_an_optional_may_be_empty_when_the_model_runs() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (optional(float[n]) given) => (float[m] out) {
      has = OptionalHasElement (given)
      out = If (has) <then_branch = t () => (float[m] some) { some = OptionalGetElement (given) },
                      else_branch = e () => (float[m] none) { none = Constant <value_floats: floats = [7.0]> () }>
    }""")
    native, signature = build(model).native, read_signature(model)
    assert BACKEND.run(native, {"given": None}, signature)["out"].tolist() == [7]
    assert BACKEND.run(native, {"given": np.array([1, 2], "float32")}, signature)["out"].tolist() == [1, 2]


def test_strings_travel_through_the_host() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (string[n] words, float[n] x) => (string[n] out, float[n] kept) {
      tail = Constant <value_strings: strings = ["!"]> ()
      out = StringConcat (words, tail)
      same = Equal (words, out)
      zero = Constant <value_float: float = 0.0> ()
      kept = Where (same, zero, x)
    }""")
    built = build(model)
    inputs = {"words": np.array(["a", "b"], object), "x": np.array([1, 2], "float32")}
    for native in (built.native, copy.deepcopy(built.native), pickle.loads(pickle.dumps(built.native))):
        found = BACKEND.run(native, inputs, read_signature(model))
        assert found["out"].tolist() == ["a!", "b!"]
        assert found["kept"].tolist() == [1, 2]
    assert {note.kind for note in built.notes} == {"fallback"}
