"""A padding of zeros becomes the padding of the operator after it, where that computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from modelport.graph.normal import drop_dead_nodes, normalize
from modelport.graph.padding import absorb_pads
from tests.graph.running import evaluate

X = np.random.default_rng(0).standard_normal((2, 2, 7, 7)).astype("float32")


def _model(body: str) -> ir.Model:
    weights = ", ".join(["0.5", "-1", "2"] * 12)
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n,2,7,7] x) => (y) <float[2,2,3,3] w = {{{weights}}}, int64[8] widths = {{0,0,0,1,0,0,2,1}},
        int64[8] deep = {{0,0,3,3,0,0,0,0}}, int64[8] channels = {{0,1,0,0,0,0,0,0}},
        int64[8] cut = {{0,0,-1,0,0,0,0,0}},
        int64[4] named = {{1,0,2,1}}, int64[2] axes = {{-1,-2}}, float one = {{1.0}},
        float zero = {{0.0}}> {{ {body} }}"""
    return normalize(ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))))


def _pads(model: ir.Model) -> int:
    return sum(node.op_type == "Pad" for node in model.graph)


@pytest.mark.parametrize(
    "body",
    [
        "p = Pad(x, widths) y = Conv<kernel_shape=[3,3]>(p, w)",
        "p = Pad(x, widths, zero) y = Conv<kernel_shape=[3,3], pads=[1,0,0,2], strides=[2,2]>(p, w)",
        "p = Pad(x, named, zero, axes) y = Conv<kernel_shape=[3,3]>(p, w)",
        "p = Pad(x, widths) y = AveragePool<kernel_shape=[3,3]>(p)",
        "r = Relu(x) p = Pad(r, widths) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(p)",
    ],
)
def test_zeros_before_a_window_are_its_own_padding(body: str) -> None:
    model = _model(body)
    (expected,) = evaluate(model, {"x": X})
    assert absorb_pads(model) == 1
    drop_dead_nodes(model)
    assert _pads(model) == 0
    (found,) = evaluate(model, {"x": X})
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "p = Pad(x, widths) y = MaxPool<kernel_shape=[3,3]>(p)",
        "r = Relu(x) p = Pad(r, deep) y = MaxPool<kernel_shape=[3,3]>(p)",
        "p = Pad(x, widths, one) y = Conv<kernel_shape=[3,3]>(p, w)",
        "p = Pad<mode='reflect'>(x, widths) y = Conv<kernel_shape=[3,3]>(p, w)",
        "p = Pad(x, cut) y = Conv<kernel_shape=[3,3]>(p, w)",
        "p = Pad(x, channels) y = MaxPool<kernel_shape=[3,3]>(p)",
        "p = Pad(x, widths) c = Conv<kernel_shape=[3,3]>(p, w) y = Concat<axis=0>(p, p) z = Identity(c)",
        "p = Pad(x, widths) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)",
        "p = Pad(x, widths) y = Conv<kernel_shape=[3,3], auto_pad='SAME_UPPER'>(p, w)",
    ],
)
def test_another_padding_stays(body: str) -> None:
    model = _model(body.replace("'", '"'))
    assert absorb_pads(model) == 0
    assert _pads(model) == 1
