"""Small portable graphs: what the tests of the contract build, run and compare.

Every operator in them is smooth, so that differences of the outputs tell the gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from modelport.core.signature import Arrays, Signature, TensorSpec
from modelport.graph.signature import write_signature
from modelport.graph.weights import Role, set_roles

OPSET = 21
"""The opset of portable graphs."""


class Sketch:
    """A portable graph being written, with weights drawn from a fixed seed."""

    def __init__(self) -> None:
        self._tape = ir.tape.Tape()
        self._rng = np.random.default_rng(0)
        self._roles: dict[str, Role] = {}

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        """One operator with one output."""
        return self._tape.op(op_type, inputs, attributes)

    def weight(self, name: str, *shape: int, role: Role = "parameter", offset: float = 0.0) -> ir.Value:
        """A weight of small random numbers around `offset`."""
        self._roles[name] = role
        array = (offset + 0.3 * self._rng.standard_normal(shape)).astype(np.float32)
        return self._tape.initializer(ir.tensor(array, name=name))

    def linear(self, x: ir.Value, name: str, out: int, features: int) -> ir.Value:
        """`x @ weight.T + bias` with the parameters of a Linear layer."""
        weight, bias = self.weight(f"{name}.weight", out, features), self.weight(f"{name}.bias", out)
        return self.op("Gemm", x, weight, bias, transB=1)

    def norm(self, x: ir.Value, name: str, channels: int) -> ir.Value:
        """A batch normalization in inference mode."""
        scale, shift = self.weight(f"{name}.weight", channels, offset=1.0), self.weight(f"{name}.bias", channels)
        mean = self.weight(f"{name}.running_mean", channels, role="buffer")
        variance = self.weight(f"{name}.running_var", channels, role="buffer", offset=2.0)
        return self.op("BatchNormalization", x, scale, shift, mean, variance)

    def model(self, inputs: Sequence[ir.Value], outputs: Mapping[str, ir.Value], signature: Signature) -> ir.Model:
        """The graph with its outputs named, its roles and its signature."""
        for name, value in outputs.items():
            value.name = name
        graph = ir.Graph(
            inputs,
            tuple(outputs.values()),
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET},
            name="main",
        )
        model = ir.Model(graph, ir_version=10)
        set_roles(model, self._roles)
        write_signature(model, signature)
        return model


def tensor(spec: TensorSpec) -> ir.Value:
    """A graph input."""
    return ir.val(spec.name, dtype=ir.DataType[_DTYPES[spec.dtype]], shape=spec.shape)


_DTYPES = {"float32": "FLOAT", "int64": "INT64"}


def perceptron() -> ir.Model:
    """Two Linear layers with a Tanh and a Dropout between them: (batch, 4) -> (batch, 3)."""
    x, y = TensorSpec("x", "float32", ("batch", 4)), TensorSpec("output", "float32", ("batch", 3))
    sketch, value = Sketch(), tensor(x)
    hidden = sketch.op("Dropout", sketch.op("Tanh", sketch.linear(value, "fc1", 5, 4)))
    return sketch.model([value], {"output": sketch.linear(hidden, "fc2", 3, 5)}, Signature((x,), (y,)))


def convolution() -> ir.Model:
    """Convolution, batch normalization, pooling and a Linear layer: (batch, 3, 6, 6) -> (batch, 2)."""
    x, y = TensorSpec("image", "float32", ("batch", 3, 6, 6)), TensorSpec("output", "float32", ("batch", 2))
    sketch, value = Sketch(), tensor(x)
    kernel, bias = sketch.weight("conv.weight", 4, 3, 3, 3), sketch.weight("conv.bias", 4)
    found = sketch.op("Conv", value, kernel, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    found = sketch.op("Sigmoid", sketch.norm(found, "norm", 4))
    found = sketch.op("AveragePool", found, kernel_shape=[2, 2], strides=[2, 2])
    found = sketch.op("Flatten", sketch.op("GlobalAveragePool", found))
    return sketch.model([value], {"output": sketch.linear(found, "head", 2, 4)}, Signature((x,), (y,)))


def nested() -> ir.Model:
    """A dict of two inputs and a keyword argument; a dict of outputs, one of them a tuple."""
    specs = tuple(TensorSpec(name, "float32", ("batch", 3)) for name in ("left", "right", "gate"))
    names = ("total", "product", "gated")
    outputs = tuple(TensorSpec(name, "float32", ("batch", 3)) for name in names)
    sketch, values = Sketch(), [tensor(spec) for spec in specs]
    left = sketch.linear(values[0], "project", 3, 3)
    total = sketch.op("Add", left, values[1])
    found = (total, sketch.op("Mul", left, values[1]), sketch.op("Mul", total, sketch.op("Sigmoid", values[2])))
    signature = Signature(
        specs,
        outputs,
        args=({"left": "left", "right": "right"},),
        kwargs={"gate": "gate"},
        returns={"total": "total", "others": ("product", "gated")},
    )
    return sketch.model(values, dict(zip(names, found, strict=True)), signature)


def loose_weights() -> ir.Model:
    """Parameters that no layer has: `softmax(x * scale + shift) @ table`."""
    x, y = TensorSpec("x", "float32", ("batch", 4)), TensorSpec("output", "float32", ("batch", 3))
    sketch, value = Sketch(), tensor(x)
    found = sketch.op("Mul", value, sketch.weight("block.scale", 4, offset=1.0))
    found = sketch.op("Add", found, sketch.weight("block.shift", 1, 4))
    found = sketch.op("Softmax", found, axis=-1)
    table = sketch.op("Tanh", sketch.weight("table", 4, 3))
    return sketch.model([value], {"output": sketch.op("MatMul", found, table)}, Signature((x,), (y,)))


def embedding() -> ir.Model:
    """Ids to classes: (batch, 5) int64 -> (batch, 2)."""
    x, y = TensorSpec("ids", "int64", ("batch", 5)), TensorSpec("output", "float32", ("batch", 2))
    sketch, value = Sketch(), tensor(x)
    vectors = sketch.op("Gather", sketch.weight("embed.weight", 7, 4), value, axis=0)
    axes = sketch.op("Constant", value_ints=[1])
    pooled = sketch.op("ReduceMean", vectors, axes, keepdims=0)
    return sketch.model([value], {"output": sketch.linear(pooled, "head", 2, 4)}, Signature((x,), (y,)))


GRAPHS = {make.__name__: make for make in (perceptron, convolution, nested, loose_weights, embedding)}
"""The graphs by name."""


def draw(signature: Signature, batch: int = 2) -> Arrays:
    """Inputs for a graph of this module."""
    ids = {"ids": np.arange(7)}
    return signature.draw({"": batch}, like=ids, seed=batch)


def expected(model: ir.Model, inputs: Arrays) -> Arrays:
    """The outputs of ONNX's reference evaluator, by name."""
    from onnx.reference import ReferenceEvaluator

    names = [value.name or "" for value in model.graph.outputs]
    return dict(zip(names, ReferenceEvaluator(ir.to_proto(model)).run(names, inputs), strict=True))


def weights(model: ir.Model) -> Arrays:
    """The weights of a graph by name: those with a role."""
    from modelport.graph.weights import roles

    return {name: model.graph.initializers[name].const_value.numpy() for name in roles(model)}
