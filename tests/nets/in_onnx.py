"""A small ONNX net, written by hand: what the tests of files need, without a framework."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def net(scale: float = 1.0) -> onnx.ModelProto:
    """`reshape(relu(x @ weight.T + bias))` of (batch, 32) to (batch, 8, 8), and a weight that nothing uses."""
    rng = np.random.default_rng(0)
    weight = scale * rng.standard_normal((64, 32)).astype("float32")
    bias = scale * rng.standard_normal(64).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["hidden"], name="fc", transB=1),
            helper.make_node("Relu", ["hidden"], ["positive"], name="relu"),
            helper.make_node("Reshape", ["positive", "shape"], ["y"], name="reshape"),
        ],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8, 8])],
        [
            numpy_helper.from_array(weight, "fc.weight"),
            numpy_helper.from_array(bias, "fc.bias"),
            numpy_helper.from_array(np.array([-1, 8, 8]), "shape"),
            numpy_helper.from_array(np.full((3, 3), scale, "float32"), "spare.weight"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def example(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, 32)).astype("float32")
