"""Building small graphs for the tests, and running them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator


def run(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of ONNX Runtime, with nothing optimised away."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, dict(inputs))


def model_of(tape: ir.tape.Tape, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], opset: int = 21) -> ir.Model:
    """A model of what a tape holds."""
    for index, value in enumerate(outputs):
        value.name = f"output_{index}"
    graph = ir.Graph(inputs, outputs, nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": opset})
    graph.name = "main"
    return ir.Model(graph, ir_version=10)


def weight(tape: ir.tape.Tape, name: str, array: np.ndarray) -> ir.Value:
    """An initializer on a tape."""
    return tape.initializer(ir.tensor(np.ascontiguousarray(array), name=name))


def tensor(name: str, shape: Sequence[int | str | None], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """A graph input."""
    return ir.val(name, dtype=dtype, shape=shape)


def evaluate(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of ONNX's reference evaluator, which knows the newest opset."""
    return list(ReferenceEvaluator(ir.to_proto(model)).run(None, dict(inputs)))
