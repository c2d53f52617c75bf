"""Operators on sizes: integers that stay Python numbers from `Shape` to where they are used.

Each function takes `Ints` and returns `Ints`; `NotImplemented` sends the node to its tensor form.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from modelport.backends.torch.registry import size_op
from modelport.backends.torch.traced import Ints, Tensor

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


@size_op("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Ints:
    return Ints(tuple(x.size_of(axis) for axis in range(x.rank)[start:end]))


@size_op("Size")
def size(x: Tensor) -> Ints:
    return Ints((reduce(operator.mul, (x.size_of(axis) for axis in range(x.rank)), 1),), rank=0)


def _elementwise(function: Callable[[Any, Any], Any], a: Ints, b: Ints, dtype: ir.DataType | None = None) -> Ints:
    count = max(len(a.items), len(b.items)) if len(a.items) and len(b.items) else 0
    left, right = (i.items * count if len(i.items) == 1 else i.items for i in (a, b))
    items = tuple(function(x, y) for x, y in zip(left, right, strict=True))
    return Ints(items, max(a.rank, b.rank), dtype or a.dtype)


def _number(item: Any) -> Any:
    """What an operation on two numbers gave, as a plain number."""
    return item.item() if isinstance(item, np.generic) else item


@size_op("Add")
def add(a: Ints, b: Ints) -> Ints:
    return _elementwise(operator.add, a, b)


@size_op("Sub")
def sub(a: Ints, b: Ints) -> Ints:
    return _elementwise(operator.sub, a, b)


@size_op("Mul")
def mul(a: Ints, b: Ints) -> Ints:
    return _elementwise(operator.mul, a, b)


def _truncated(x: Any, y: Any) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return math.trunc(x / y) if abs(x) < 2**53 else x // y
    # Sizes are not negative, so that rounding down is rounding to zero; a number beside them may be.
    if isinstance(x, int) and x < 0:
        return -(-x // y)
    if isinstance(y, int) and y < 0:
        return -(x // -y)
    return x // y


@size_op("Div")
def div(a: Ints, b: Ints) -> Ints:
    return _elementwise(_truncated, a, b)


@size_op("Mod")
def mod(a: Ints, b: Ints, *, fmod: int = 0) -> Any:
    return NotImplemented if fmod else _elementwise(operator.mod, a, b)


@size_op("Neg")
def neg(a: Ints) -> Ints:
    return Ints(tuple(-item for item in a.items), a.rank, a.dtype)


def _sym(plain: Callable[[Any, Any], Any], traced: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, y: (traced if isinstance(x, fx.Proxy) or isinstance(y, fx.Proxy) else plain)(x, y)


@size_op("Max")
def maximum(*operands: Ints) -> Ints:
    return reduce(lambda a, b: _elementwise(_sym(max, torch.sym_max), a, b), operands)


@size_op("Min")
def minimum(*operands: Ints) -> Ints:
    return reduce(lambda a, b: _elementwise(_sym(min, torch.sym_min), a, b), operands)


def _equal(x: Any, y: Any) -> Any:
    # A traced size is a size of a tensor or made of such; -1 in a shape is ONNX's "infer it", never a size.
    if any(isinstance(i, fx.Proxy) for i in (x, y)) and any(isinstance(i, int) and i == -1 for i in (x, y)):
        return False
    return operator.eq(x, y)


@size_op("Equal")
def equal(a: Ints, b: Ints) -> Ints:
    return _elementwise(_equal, a, b, ir.DataType.BOOL)


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Ints, Ints], Ints]:
    return lambda a, b: _elementwise(function, a, b, ir.DataType.BOOL)


size_op("Less")(_compared(operator.lt))
size_op("LessOrEqual")(_compared(operator.le))
size_op("Greater")(_compared(operator.gt))
size_op("GreaterOrEqual")(_compared(operator.ge))


@size_op("Not")
def logical_not(a: Ints) -> Any:
    return Ints(tuple(not item for item in a.items), a.rank, a.dtype) if a.known else NotImplemented


@size_op("Where")
def where(condition: Ints, x: Ints, y: Ints) -> Ints:
    count = 1 if condition.rank == x.rank == y.rank == 0 else max(len(i.items) for i in (condition, x, y))
    columns = [i.items * count if len(i.items) == 1 else i.items for i in (condition, x, y)]
    items = tuple(
        torch.sym_ite(test, a, b) if isinstance(test, fx.Proxy) else (a if test else b)
        for test, a, b in zip(*columns, strict=True)
    )
    return Ints(items, max(condition.rank, x.rank, y.rank), x.dtype)


@size_op("Cast")
def cast(x: Ints, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    if to in _INTEGERS and x.dtype in _INTEGERS:
        return Ints(x.items, x.rank, ir.DataType(to))
    if to == ir.DataType.BOOL and x.known:
        return Ints(tuple(bool(item) for item in x.items), x.rank, ir.DataType.BOOL)
    if to in _INTEGERS and x.known:
        return Ints(tuple(int(item) for item in x.items), x.rank, ir.DataType(to))
    return NotImplemented


@size_op("Identity")
def identity(x: Ints) -> Ints:
    return x


@size_op("Gather")
def gather(x: Ints, indices: Ints, *, axis: int = 0) -> Any:
    if not indices.known or x.rank == 0:
        return NotImplemented
    return Ints(tuple(x.items[index] for index in indices.items), indices.rank, x.dtype)


@size_op("Slice")
def slice_(x: Ints, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Any:
    if not (starts.known and ends.known and (steps is None or steps.known)):
        return NotImplemented
    step = steps.items[0] if steps is not None else 1
    return Ints(x.items[starts.items[0] : ends.items[0] : step], 1, x.dtype)


@size_op("Concat")
def concat(*operands: Ints, axis: int) -> Ints:
    return Ints(tuple(item for operand in operands for item in operand.items), 1, operands[0].dtype)


@size_op("Split")
def split(x: Ints, split: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None) -> Any:
    if split is None or not split.known:
        return NotImplemented
    bounds = np.cumsum([0, *split.items]).tolist()
    return tuple(Ints(x.items[a:b], 1, x.dtype) for a, b in pairwise(bounds))


@size_op("Unsqueeze")
def unsqueeze(x: Ints, axes: Ints) -> Any:
    return Ints(x.items, 1, x.dtype) if x.rank == 0 and len(axes.items) == 1 else NotImplemented


@size_op("Squeeze")
def squeeze(x: Ints, axes: Ints | None = None) -> Any:
    return Ints(x.items, 0, x.dtype) if len(x.items) == 1 else NotImplemented


@size_op("Reshape")
def reshape(x: Ints, shape: Ints, *, allowzero: int = 0) -> Any:
    if len(shape.items) > 1 or not shape.known or shape.items == (0,):
        return NotImplemented
    return Ints(x.items, len(shape.items), x.dtype)


@size_op("ReduceProd")
def reduce_prod(x: Ints, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
    if (axes is None or not axes.items) and noop_with_empty_axes:
        return NotImplemented
    return Ints((reduce(operator.mul, x.items, 1),), x.rank if keepdims else 0, x.dtype)


@size_op("ReduceSum")
def reduce_sum(x: Ints, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
    if (axes is None or not axes.items) and noop_with_empty_axes:
        return NotImplemented
    return Ints((reduce(operator.add, x.items, 0),), x.rank if keepdims else 0, x.dtype)


@size_op("ConstantOfShape")
def constant_of_shape(shape: Ints, *, value: np.ndarray | None = None) -> Any:
    """A vector of equal integers, such as the ones that exporters make from a shape's length."""
    if value is None or value.dtype != np.int64 or not shape.known or len(shape.items) != 1:
        return NotImplemented
    fill: Sequence[Any] = value.reshape(-1).tolist()
    return Ints(tuple(fill) * shape.items[0]) if shape.items[0] <= 64 else NotImplemented
