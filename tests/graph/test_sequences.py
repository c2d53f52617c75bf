"""Sequences that are only taken apart again become plain tensors, with the same results."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from modelport.graph.normal import normalize

SPLITS = {
    "of one length": ("split = Constant <value_int: int = 2> ()\n  parts = SplitToSequence <axis = 1> (x, split)", 3),
    "of lengths": (
        "split = Constant <value_ints: ints = [1, 3, 1]> ()\n  parts = SplitToSequence <axis = 1> (x, split)",
        3,
    ),
    "of one each": ("parts = SplitToSequence <axis = 1> (x)", 5),
    "without the axis": ("parts = SplitToSequence <axis = -1, keepdims = 0> (x)", 5),
    "made by hand": ("y = Neg (x)\n  parts = SequenceConstruct (x, y)", 2),
}


def _graph(split: str, position: int) -> ir.Model:
    return ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 21]>
sequences (float[batch, 5] x) => (float[a, b] out) {{
  {split}
  position = Constant <value_int: int = {position}> ()
  part = SequenceAt (parts, position)
  out = Mul (part, part)
}}""")


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("last", [False, True])
def test_an_element_at_a_constant_position_needs_no_sequence(kind: str, last: bool) -> None:
    split, length = SPLITS[kind]
    model = _graph(split, -1 if last else length - 2)
    normal = normalize(model)
    assert not [node.op_type for node in normal.graph if "Sequence" in node.op_type]
    x = np.random.default_rng(0).standard_normal((3, 5)).astype("float32")
    (expected,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    normal.graph.opset_imports[""] = 26
    (found,) = ReferenceEvaluator(ir.to_proto(normal)).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected)


def test_a_sequence_that_is_read_at_a_computed_position_stays() -> None:
    model = _graph(SPLITS["of one each"][0], 0)
    at = next(node for node in model.graph if node.op_type == "SequenceAt")
    position = ir.Value(name="where", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    model.graph.inputs.append(position)
    at.replace_input_with(1, position)
    assert [node.op_type for node in normalize(model).graph][:2] == ["SplitToSequence", "SequenceAt"]


def test_a_position_outside_the_sequence_is_left_for_the_run_to_refuse() -> None:
    assert "SequenceAt" in [node.op_type for node in normalize(_graph(SPLITS["made by hand"][0], 7)).graph]
