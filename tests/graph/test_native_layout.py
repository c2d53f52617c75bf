"""Images go in and come out as the target framework has them, where a transfer is told so."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from modelport.graph.layout.channels_last import count_transposes, to_channels_last
from modelport.graph.layout.native import Orders, to_native_layout
from modelport.graph.normal import normalize
from modelport.graph.signature import read_signature
from tests.graph.running import run

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def _model(body: str, head: str = "float[n,3,8,8] x", tail: str = "float[n,4,8,8] y") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g ({head}) => ({tail}) <float[4,3,1,1] w = {{{", ".join(["0.5", "-1"] * 6)}}}> {{ {body} }}"""
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    return model


def test_an_image_between_convolutions_goes_in_and_comes_out_channels_last() -> None:
    model = _model("half = Constant<value_float=0.5>() s = Mul(x, half) y = Conv(s, w)")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype("float32")
    (expected,) = run(model, {"x": x})
    orders = to_native_layout(model, last=True)
    assert orders == Orders({"x": LAST}, {"y": LAST})
    signature = read_signature(model)
    assert signature.inputs[0].shape == ("n", 8, 8, 3)
    assert signature.outputs[0].shape == ("n", 8, 8, 4)
    (found,) = run(model, orders.to_native({"x": x}))
    np.testing.assert_allclose(orders.to_source({"y": found})["y"], expected, rtol=1e-6)
    laid_out, _ = to_channels_last(normalize(model))
    assert count_transposes(laid_out.graph) == 0


def test_an_activation_at_the_end_stays_in_the_order_of_its_convolution() -> None:
    model = _model("c = Conv(x, w) y = Relu(c)")
    assert to_native_layout(model, last=True) == Orders({"x": LAST}, {"y": LAST})


def test_channels_come_first_again_for_a_framework_that_has_them_there() -> None:
    model = _model(
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, w) y = Transpose<perm=[0,2,3,1]>(c)",
        "float[n,8,8,3] x",
        "float[n,8,8,4] y",
    )
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    (expected,) = run(model, {"x": x})
    orders = to_native_layout(model, last=False)
    assert orders == Orders({"x": FIRST}, {"y": FIRST})
    assert count_transposes(model.graph) == 0
    (found,) = run(model, orders.to_native({"x": x}))
    np.testing.assert_allclose(orders.to_source({"y": found})["y"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "head", "tail"),
    [
        ("y = Relu(x)", "float[n,3,8,8] x", "float[n,3,8,8] y"),
        ("y = Transpose<perm=[0,2,1]>(x)", "float[n,5,7] x", "float[n,7,5] y"),
        ("t = Transpose<perm=[0,2,1]>(x) y = Softmax(t)", "float[n,5,7] x", "float[n,7,5] y"),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_what_has_no_channels_stays_as_it_is(body: str, head: str, tail: str, last: bool) -> None:
    model = _model(body, head, tail)
    before = [node.op_type for node in model.graph]
    assert to_native_layout(model, last=last) == Orders()
    assert [node.op_type for node in model.graph] == before


def test_an_input_on_whose_order_its_users_do_not_agree_stays_as_it_is() -> None:
    model = _model(
        "f = Det(x) y = Conv(x, w)",
        tail="float[n,4,8,8] y, float[n,3] f",
    )
    orders = to_native_layout(model, last=True)
    assert "x" not in orders.inputs
    assert orders.outputs == {"y": LAST}
