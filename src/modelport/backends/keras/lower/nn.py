"""Activations and normalisation; patterns of ops that ONNX has as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import Match, op, pattern


@op("Relu6")
def relu6(g: Context, x: ir.Value) -> ir.Value:
    return g("Clip", x, 0, 6)


@op("Elu")
def elu(g: Context, x: ir.Value) -> ir.Value:
    return g("Elu", x)


@op("Selu")
def selu(g: Context, x: ir.Value) -> ir.Value:
    return g("Selu", x)


@op("LeakyRelu")
def leaky_relu(g: Context, x: ir.Value) -> ir.Value:
    return g("LeakyRelu", x, alpha=g.attr("alpha"))


@op("Softmax")
def softmax(g: Context, x: ir.Value) -> ir.Value:
    return g("Softmax", x, axis=-1)


@op("LogSoftmax")
def log_softmax(g: Context, x: ir.Value) -> ir.Value:
    return g("LogSoftmax", x, axis=-1)


@op("BiasAdd")
def bias_add(g: Context, x: ir.Value, bias: ir.Value) -> ir.Value:
    if g.attr("data_format") == "NCHW" and g.rank(0) > 2:
        bias = g("Unsqueeze", bias, list(range(1, g.rank(0) - 1)))
    return g("Add", x, bias)


@op("LRN")
def lrn(g: Context, x: ir.Value) -> ir.Value:
    size = 2 * g.attr("depth_radius") + 1
    settings = {"size": size, "alpha": g.attr("alpha") * size, "beta": g.attr("beta"), "bias": g.attr("bias")}
    return g.transpose(g("LRN", g.transpose(x, (0, 3, 1, 2)), **settings), (0, 2, 3, 1))


@op("L2Loss")
def l2_loss(g: Context, x: ir.Value) -> ir.Value:
    return g("Mul", g("ReduceSum", g("Mul", x, x), keepdims=0), 0.5)


def _inputs(op: Any, op_type: str) -> list[Any] | None:
    return list(op.inputs) if op.type == op_type else None


def _scaled(g: Context, tensor: Any, number: float) -> Any:
    """What a tensor is a multiple of, where it is `number` times something."""
    for index, other in ((0, 1), (1, 0)):
        inputs = _inputs(tensor.op, "Mul")
        if inputs is not None and _close(g, inputs[index], number):
            return inputs[other]
    return None


def _close(g: Context, tensor: Any, number: float) -> bool:
    constant = g.frame.statics.value(tensor)
    return constant is not None and constant.size == 1 and bool(np.isclose(float(constant.ravel()[0]), number, 1e-3))


@pattern("Mul")
def exact_gelu(g: Context) -> Match | None:
    """`(0.5 * x) * erfc(-x / sqrt(2))`, as TensorFlow writes the exact GELU."""
    left, right = g.op.inputs
    for half, tail in ((left, right), (right, left)):
        argument = _inputs(tail.op, "Erfc")
        x, turned = _scaled(g, half, 0.5), None if argument is None else _scaled(g, argument[0], 0.5**0.5)
        if x is not None and turned is not None:
            negated = _inputs(turned.op, "Neg")
            if negated and negated[0] is x:
                return Match((x,), lambda g, x: g("Gelu", x))
    return None


@pattern("Mul")
def tanh_gelu(g: Context) -> Match | None:
    """`(0.5 * x) * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))`, the approximate GELU."""
    left, right = g.op.inputs
    for half, tail in ((left, right), (right, left)):
        x = _scaled(g, half, 0.5)
        added = _inputs(tail.op, "AddV2") if x is not None else None
        tanh = next((t for t in added or () if t.op.type == "Tanh"), None)
        inner = None if tanh is None else _scaled(g, tanh.op.inputs[0], (2 / np.pi) ** 0.5)
        if x is None or inner is None or not any(_close(g, t, 1.0) for t in added or ()) or inner.op.type != "AddV2":
            continue
        cubed = next((t for t in inner.op.inputs if t is not x), None)
        power = None if cubed is None else _scaled(g, cubed, 0.044715)
        if (
            power is not None
            and power.op.type == "Pow"
            and power.op.inputs[0] is x
            and _close(g, power.op.inputs[1], 3)
        ):
            return Match((x,), lambda g, x: g("Gelu", x, approximate="tanh"))
    return None


@pattern("Less")
def sign_bit(g: Context) -> Match | None:
    """`bitcast(x, int32) & int32.min < 0`, as Keras asks for the sign of a zero (in `argmax`)."""
    masked, zero = g.op.inputs
    parts = _inputs(masked.op, "BitwiseAnd")
    cast = None if parts is None else next((t for t in parts if t.op.type == "Bitcast"), None)
    if cast is None or cast.op.inputs[0].dtype.name != "float32" or not _is(g, zero, 0):
        return None
    if not any(_is(g, t, np.iinfo(np.int32).min) for t in parts or ()):
        return None
    return Match((cast.op.inputs[0],), lambda g, x: g("Or", g("Less", x, _ZERO), g("Less", g("Reciprocal", x), _ZERO)))


_ZERO = np.zeros((), np.float32)


def _is(g: Context, tensor: Any, number: int) -> bool:
    constant = g.frame.statics.value(tensor)
    return constant is not None and constant.size == 1 and int(constant.ravel()[0]) == number
