"""Comparisons, booleans and bits."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Scalar, Tensor


@op("Equal")
def equal(a: Tensor, b: Scalar) -> Any:
    return torch.eq(a, b)


@op("Greater")
def greater(a: Tensor, b: Scalar) -> Any:
    return torch.gt(a, b)


@op("GreaterOrEqual")
def greater_or_equal(a: Tensor, b: Scalar) -> Any:
    return torch.ge(a, b)


@op("Less")
def less(a: Tensor, b: Scalar) -> Any:
    return torch.lt(a, b)


@op("LessOrEqual")
def less_or_equal(a: Tensor, b: Scalar) -> Any:
    return torch.le(a, b)


@op("And")
def and_(a: Tensor, b: Tensor) -> Any:
    return torch.logical_and(a, b)


@op("Or")
def or_(a: Tensor, b: Tensor) -> Any:
    return torch.logical_or(a, b)


@op("Xor")
def xor(a: Tensor, b: Tensor) -> Any:
    return torch.logical_xor(a, b)


@op("Not")
def not_(x: Tensor) -> Any:
    return torch.logical_not(x)


@op("BitwiseAnd")
def bitwise_and(a: Tensor, b: Tensor) -> Any:
    return torch.bitwise_and(a, b)


@op("BitwiseOr")
def bitwise_or(a: Tensor, b: Tensor) -> Any:
    return torch.bitwise_or(a, b)


@op("BitwiseXor")
def bitwise_xor(a: Tensor, b: Tensor) -> Any:
    return torch.bitwise_xor(a, b)


@op("BitwiseNot")
def bitwise_not(x: Tensor) -> Any:
    return torch.bitwise_not(x)


@op("BitShift")
def bit_shift(x: Tensor, shift: Tensor, *, direction: str) -> Any:
    return (torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift)(x, shift)


@op("Where")
def where(condition: Tensor, x: Scalar, y: Scalar, *, node: ir.Node) -> Any:
    found = torch.where(condition, x, y)
    if isinstance(x, Tensor) or isinstance(y, Tensor) or node.outputs[0].dtype is None:
        return found
    # Of two numbers torch makes its default dtype.
    return found.to(torch_dtype(node.outputs[0].dtype))
