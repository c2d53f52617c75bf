"""Sequences, optionals, strings and control flow go through the verbs as tensors do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import modelport as mp
from modelport.core.errors import SignatureError

PARTS = """<ir_version: 10, opset_import: ["" : 21]>
g (float[batch, 4] x, int64 at) => (seq(float[batch, m]) parts, float[batch, 2] y)
  <float[4, 2] w = {1, 2, -3, 4, 0.5, 6, -7, 8}>
{
  parts = SplitToSequence <axis = 1> (x, at)
  y = MatMul (x, w)
}"""


@pytest.fixture(scope="module")
def source() -> mp.Model:
    model = ir.from_onnx_text(PARTS)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    return mp.transfer(ir.to_proto(model), to="onnx", example=(x, np.array(2)))


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_a_sequence_is_compared_element_by_element(source: mp.Model, backend: str) -> None:
    moved = mp.transfer(source, to=backend)
    assert moved.report.parity.ok
    assert {"parts[0]", "parts[1]"} <= {row.name for row in moved.report.parity.rows}
    x = np.ones((3, 4), "float32")
    parts, y = moved((x, np.array(3)))
    assert [part.shape for part in parts] == [(3, 3), (3, 1)]
    assert y.shape == (3, 2)


def test_a_sequence_has_no_rows_to_predict(source: mp.Model) -> None:
    with pytest.raises(SignatureError, match=r"\['parts'\] are no tensors"):
        source.predict((np.ones((3, 4), "float32"), np.array(3)))


@pytest.mark.parametrize(("backend", "support"), [("torch", "fallback"), ("keras", "custom"), ("onnx", "native")])
def test_check_tells_strings_from_numbers(backend: str, support: str) -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (string[batch] words, float[batch] x) => (bool[batch] same, bool[batch] equal)
    { same = Equal (words, words)  equal = Equal (x, x) }""")
    report = mp.check(ir.to_proto(model), to=backend)
    assert {(row.op_type, row.support, row.count) for row in report.rows} == (
        {("Equal", "native", 2)} if support == "native" else {("Equal", "native", 1), ("Equal", support, 1)}
    )


def test_check_tells_what_runs_on_the_host() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (string[batch] words) => (string[batch] out) { out = StringConcat (words, words) }""")
    report = mp.check(ir.to_proto(model), to="torch")
    assert report.ok
    assert [(row.op_type, row.support) for row in report.rows] == [("StringConcat", "fallback")]
    moved = mp.transfer(ir.to_proto(model), to="torch", example=np.array(["a", "b"], object))
    assert [note.kind for note in moved.report.notes] == ["fallback"]
    assert moved(np.array(["x"], object)).tolist() == ["xx"]
