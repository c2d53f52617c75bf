"""Activations."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F

from modelport.backends.torch.registry import op
from modelport.backends.torch.reuse import is_spent
from modelport.backends.torch.traced import Tensor


@op("Relu")
def relu(x: Tensor, *, node: ir.Node) -> Any:
    return F.relu(x, inplace=True) if is_spent(node, 0) else torch.relu(x)


@op("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Any:
    return F.leaky_relu(x, alpha)


@op("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Any:
    return F.threshold(x, alpha, 0.0)


@op("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Any:
    return F.elu(x, alpha)


@op("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Any:
    return F.celu(x, alpha)


@op("Selu")
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.0507009) < 1e-6:
        return F.selu(x)
    return gamma * F.elu(x, alpha)


@op("Sigmoid")
def sigmoid(x: Tensor) -> Any:
    return torch.sigmoid(x)


@op("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


@op("HardSwish")
def hard_swish(x: Tensor, *, node: ir.Node) -> Any:
    return F.hardswish(x, inplace=True) if is_spent(node, 0) else F.hardswish(x)


@op("Swish")
def swish(x: Tensor, *, alpha: float = 1.0, node: ir.Node) -> Any:
    if alpha == 1:
        return F.silu(x, inplace=True) if is_spent(node, 0) else F.silu(x)
    return x * torch.sigmoid(alpha * x)


@op("SwiGLU")
def swiglu(a: Tensor, b: Tensor, *, alpha: float = 1.0) -> Any:
    return (F.silu(a) if alpha == 1 else a * torch.sigmoid(alpha * a)) * b


@op("Mish")
def mish(x: Tensor) -> Any:
    return F.mish(x)


@op("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Any:
    return F.gelu(x, approximate=approximate)


@op("Softplus")
def softplus(x: Tensor) -> Any:
    return F.softplus(x)


@op("Softsign")
def softsign(x: Tensor) -> Any:
    return F.softsign(x)


@op("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    y = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))
    return y.to(x.element)


@op("Softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Any:
    return torch.softmax(x, axis)


@op("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int = -1) -> Any:
    return torch.log_softmax(x, axis)


@op("Hardmax")
def hardmax(x: Tensor, *, axis: int = -1) -> Any:
    size = x.dims[axis]
    if size == 0:
        return x
    if size is not None:
        return torch.scatter(torch.zeros_like(x), axis, torch.argmax(x, axis, keepdim=True), 1.0)
    # torch finds no largest one of nothing; behind the last there is one that is never larger.
    behind = x.rank - 1 - axis % x.rank
    first = torch.argmax(F.pad(x, [0, 0] * behind + [0, 1], value=-math.inf), axis, keepdim=True)
    places = torch.reshape(torch.arange(x.size_of(axis), device=x.device), [-1] + [1] * behind)
    return (places == first).to(x.element)
