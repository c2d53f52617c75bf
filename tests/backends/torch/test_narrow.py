"""Types of less than a byte: carried in wider ones inside, rounded as ONNX says, and themselves at the border."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from modelport.backends.torch import BACKEND
from modelport.backends.torch.build import build
from modelport.graph.signature import read_signature

X = np.array([-100.5, -8.9, -3.5, -1, -0.25, 0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 7.6, 15.2, 300.7], "float32")
TYPES = {
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int2": ml_dtypes.int2,
    "uint2": ml_dtypes.uint2,
    "float4_e2m1fn": ml_dtypes.float4_e2m1fn,
}


def _cast(dtype: np.dtype, back: bool) -> onnx.ModelProto:
    narrow = ir.DataType.from_numpy(dtype).value
    nodes = [helper.make_node("Cast", ["x"], ["n" if back else "y"], to=narrow)]
    nodes += [helper.make_node("Cast", ["n"], ["y"], to=onnx.TensorProto.FLOAT)] if back else []
    out = onnx.TensorProto.FLOAT if back else narrow
    given, made = (
        helper.make_tensor_value_info(name, kind, ("n",)) for name, kind in (("x", onnx.TensorProto.FLOAT), ("y", out))
    )
    return helper.make_model(
        helper.make_graph(nodes, "g", [given], [made]), opset_imports=[helper.make_opsetid("", 25)]
    )


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_a_cast_rounds_and_wraps_as_onnx_does(name: str, back: bool) -> None:
    proto = _cast(np.dtype(TYPES[name]), back)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": X})
    model = ir.from_proto(proto)
    found = BACKEND.run(build(model).native, {"x": X}, read_signature(model))["y"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.astype("float32"), expected.astype("float32"))


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_a_cast_to_powers_of_two_rounds_in_its_mode(mode: str) -> None:
    out = onnx.TensorProto.FLOAT8E8M0
    node = helper.make_node("Cast", ["x"], ["y"], to=out, round_mode=mode)
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("n",))
    graph = helper.make_graph([node], "g", [given], [helper.make_tensor_value_info("y", out, ("n",))])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
    x = np.array([1e-30, 0.3, 0.5, 1, 1.49, 1.5, 3, 2.9, 1e38, np.inf, np.nan, 6], "float32")
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    model = ir.from_proto(proto)
    found = BACKEND.run(build(model).native, {"x": x}, read_signature(model))["y"]
    np.testing.assert_array_equal(found.view("uint8"), expected.view("uint8"))


def test_a_weight_of_four_bits_is_dequantised() -> None:
    weight = np.array([[-8, 7, 3], [0, -1, 5]]).astype(ml_dtypes.int4)
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 2] x, float s) => (float[n, 3] y) { w = DequantizeLinear (s, s)  y = MatMul (x, w) }""")
    graph = model.graph
    value = ir.Value(
        name="q", type=ir.TensorType(ir.DataType.INT4), shape=ir.Shape([2, 3]), const_value=ir.tensor(weight)
    )
    graph.register_initializer(value)
    graph[0].replace_input_with(0, value)
    x = np.array([[1, 2], [3, 4]], "float32")
    found = BACKEND.run(build(model).native, {"x": x, "s": np.array(0.5, "float32")}, read_signature(model))["y"]
    np.testing.assert_allclose(found, x @ (weight.astype("float32") * 0.5))
