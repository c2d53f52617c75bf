"""Arithmetic and the functions of calculus, element by element."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.registry import op
from modelport.backends.torch.reuse import is_spent, takes_result
from modelport.backends.torch.traced import Scalar, Size, Tensor


def _unary(name: str, function: Any) -> None:
    @op(name)
    def apply(x: Tensor) -> Tensor:
        return function(x)


for _name, _function in {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Log": torch.log,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}.items():
    _unary(_name, _function)


@op("Add")
def add(a: Scalar, b: Scalar, *, node: ir.Node) -> Any:
    if isinstance(a, Tensor) and takes_result(node, 0):
        return a.add_(b)
    if isinstance(b, Tensor) and takes_result(node, 1):
        return b.add_(a)
    return a + b


@op("Sub")
def sub(a: Scalar, b: Scalar) -> Any:
    return a - b


@op("Mul")
def mul(a: Scalar, b: Scalar) -> Any:
    return a * b


@op("Div")
def div(a: Tensor, b: Scalar) -> Tensor:
    if a.element.is_floating_point or a.element.is_complex:
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


@op("Mod")
def mod(a: Tensor, b: Scalar, *, fmod: int = 0) -> Tensor:
    return (torch.fmod if fmod else torch.remainder)(a, b)


@op("Pow")
def pow_(a: Tensor, b: Scalar, *, node: ir.Node) -> Tensor:
    power = node.inputs[1]
    assert power is not None
    if power.dtype == node.inputs[0].dtype:
        return torch.pow(a, b)
    if not a.element.is_floating_point and power.dtype is not None and torch_dtype(power.dtype).is_floating_point:
        a = a.to(torch.float64)
    return torch.pow(a, b).to(torch_dtype(node.inputs[0].dtype))


@op("Max")
def maximum(*operands: Tensor) -> Tensor:
    return reduce(torch.maximum, operands)


@op("Min")
def minimum(*operands: Tensor) -> Tensor:
    return reduce(torch.minimum, operands)


@op("Sum")
def sum_(*operands: Tensor) -> Any:
    return reduce(lambda a, b: a + b, operands)


@op("Mean")
def mean(*operands: Tensor) -> Any:
    return reduce(lambda a, b: a + b, operands) / len(operands)


@op("Clip")
def clip(x: Tensor, low: Scalar = None, high: Scalar = None, *, node: ir.Node) -> Any:
    if low is None and high is None:
        return x
    if any(isinstance(bound, Tensor) for bound in (low, high)):
        # torch.clamp takes two numbers or two tensors.
        x = x if low is None else _bounded(x, low, torch.maximum)
        return x if high is None else _bounded(x, high, torch.minimum)
    if (low, high) == (0, 6) and x.element.is_floating_point:
        return F.relu6(x, inplace=is_spent(node, 0))
    return torch.clamp_(x, low, high) if is_spent(node, 0) else torch.clamp(x, low, high)


def _bounded(x: Tensor, bound: Any, function: Any) -> Any:
    if isinstance(bound, Tensor):
        return function(x, bound)
    return torch.clamp_min(x, bound) if function is torch.maximum else torch.clamp_max(x, bound)


@op("CumSum")
def cumsum(x: Tensor, axis: Size, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulative(torch.cumsum, x, axis, exclusive, reverse, 0)


@op("CumProd")
def cumprod(x: Tensor, axis: Size, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulative(torch.cumprod, x, axis, exclusive, reverse, 1)


def _cumulative(function: Any, x: Tensor, axis: Any, exclusive: int, reverse: int, start: int) -> Any:
    y = torch.flip(x, [axis]) if reverse else x
    y = function(y, axis, dtype=x.element)
    if exclusive:
        size = x.size_of(axis) if isinstance(axis, int) else x.size(axis)
        # What is summed has a size of 1 there, which is so where there is nothing to sum too.
        first = torch.full_like(torch.sum(x, axis, keepdim=True), start, dtype=x.element)
        y = torch.narrow(torch.cat([first, y], axis), axis, 0, size)
    return torch.flip(y, [axis]) if reverse else y


@op("IsNaN")
def isnan(x: Tensor) -> Tensor:
    return torch.isnan(x)


@op("IsInf")
def isinf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    if detect_negative and detect_positive:
        return torch.isinf(x)
    if not detect_negative and not detect_positive:
        return torch.zeros_like(x, dtype=torch.bool)
    return x == (math.inf if detect_positive else -math.inf)  # type: ignore[return-value]
