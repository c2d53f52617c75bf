"""The contents of the small tensors that shapes are computed in, element by element.

A rule takes a `Site` and returns one array of Python objects per output: integers, booleans, fractions, expressions.
`None` means not known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.graph.shapes.expr import (
    Expr,
    Size,
    ceil,
    exact_div,
    floor,
    floordiv,
    is_at_least,
    is_known,
    maximum,
    minimum,
)
from modelport.graph.shapes.info import MAX_ELEMENTS, Site, as_objects, object_array

Arrays = Sequence[np.ndarray | None] | None
Rule = Callable[[Site], Arrays]

VALUES: dict[str, Rule] = {}
"""Rules by operator."""


class Unknown(Exception):
    """An element cannot be told."""


def rule(*names: str) -> Callable[[Callable[[Site], Any]], Rule]:
    """Register a rule for some operators; it returns one array, or raises `Unknown`."""

    def register(function: Callable[[Site], Any]) -> Rule:
        @functools.wraps(function)
        def safe(site: Site) -> Arrays:
            try:
                result = function(site)
            except Unknown:
                return None
            # NumPy hands out the element of a 0-d array of objects, not the array.
            results = result if isinstance(result, (list, tuple)) else [result]
            return [
                item if isinstance(item, np.ndarray) or item is None else object_array([item], ()) for item in results
            ]

        VALUES.update(dict.fromkeys(names, safe))
        return safe

    return register


def given(site: Site, index: int) -> np.ndarray:
    """The contents of an input.

    Raises:
        Unknown: they are not known.
    """
    array = site.array(index)
    if array is None:
        raise Unknown
    return array


def ints(site: Site, index: int, default: Sequence[int]) -> tuple[int, ...]:
    """The contents of an input that must be plain integers, or a default where it is not given."""
    values = site.ints(index) if site.has(index) else tuple(default)
    if values is None:
        raise Unknown
    return values


@rule("Constant")
def constant(site: Site) -> Any:
    for name, attribute in site.node.attributes.items():
        if name == "value":
            tensor = attribute.as_tensor()
            if tensor.size > MAX_ELEMENTS or tensor.dtype == ir.DataType.STRING:
                raise Unknown
            return as_objects(tensor.numpy())
        if name in ("value_int", "value_ints", "value_float", "value_floats"):
            return as_objects(np.array(attribute.value))
    raise Unknown


@rule("Shape")
def shape(site: Site) -> Any:
    dims = site.dims(0)
    if dims is None:
        raise Unknown
    part = dims[slice(site.attr("start", 0), site.attr("end"))]
    return object_array(part, (len(part),))


@rule("Size")
def size(site: Site) -> Any:
    dims = site.dims(0)
    if dims is None:
        raise Unknown
    total: Size = 1
    for dim in dims:
        total = total * dim
    return object_array([total], ())


@rule("Identity")
def identity(site: Site) -> Any:
    return given(site, 0)


@rule("Cast", "CastLike")
def cast(site: Site) -> Any:
    value = site.node.outputs[0]
    dtype = site.info.dtype(value)
    if dtype == ir.DataType.BOOL:
        return _each(_is_true, given(site, 0))
    if dtype in (ir.DataType.INT64, ir.DataType.INT32):
        return _each(_truncate, given(site, 0))
    if dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return _each(_as_number, given(site, 0))
    raise Unknown


@rule("Gather")
def gather(site: Site) -> Any:
    indices = site.array(1)
    if indices is None or not all(isinstance(index, int) for index in indices.ravel()):
        raise Unknown
    try:
        return np.take(given(site, 0), indices.astype(np.int64), axis=site.attr("axis", 0))
    except IndexError as error:
        raise Unknown from error


@rule("Slice")
def slice_(site: Site) -> Any:
    data = given(site, 0)
    starts, stops = ints(site, 1, site.attr("starts") or ()), ints(site, 2, site.attr("ends") or ())
    axes, steps = ints(site, 3, site.attr("axes") or range(len(starts))), ints(site, 4, (1,) * len(starts))
    index = [slice(None)] * data.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        low = -data.shape[axis] - 1
        index[axis] = slice(start, None if step < 0 and stop <= low else stop, step)
    return data[tuple(index)]


@rule("Concat")
def concat(site: Site) -> Any:
    return np.concatenate([given(site, index) for index in range(len(site.node.inputs))], axis=site.attr("axis", 0))


@rule("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def reshape(site: Site) -> Any:
    data = given(site, 0)
    dims = site.info.dims(site.node.outputs[0])
    if dims is None or not is_known(dims):
        raise Unknown
    return data.reshape(dims)


@rule("Transpose")
def transpose(site: Site) -> Any:
    return np.transpose(given(site, 0), site.attr("perm"))


@rule("Expand", "Tile")
def expand(site: Site) -> Any:
    data, target = given(site, 0), ints(site, 1, ())
    if np.prod(target) > MAX_ELEMENTS:
        raise Unknown
    if site.node.op_type == "Tile":
        return np.tile(data, target)
    return data * np.ones(target, object) if data.dtype != object else np.broadcast_to(data, _common(data, target))


def _common(data: np.ndarray, target: Sequence[int]) -> tuple[int, ...]:
    return np.broadcast_shapes(data.shape, tuple(target))


@rule("Split")
def split(site: Site) -> Any:
    data = given(site, 0)
    axis = site.attr("axis", 0)
    shapes = [site.info.dims(value) for value in site.node.outputs]
    parts = [dims[axis] if dims is not None else None for dims in shapes]
    if not all(isinstance(part, int) for part in parts):
        raise Unknown
    return np.split(data, np.cumsum(np.array(parts[:-1], np.int64)), axis=axis)


@rule("ConstantOfShape")
def constant_of_shape(site: Site) -> Any:
    target = ints(site, 0, ())
    if np.prod(target) > MAX_ELEMENTS:
        raise Unknown
    filling = site.attr("value")
    value = as_objects(np.zeros(1) if filling is None else filling.numpy())
    if value is None:
        raise Unknown
    return object_array([value.item()] * int(np.prod(target)), target)


@rule("Range")
def range_(site: Site) -> Any:
    start, stop, step = (given(site, index).item() for index in range(3))
    if not all(isinstance(part, int) for part in (start, stop, step)) or len(range(start, stop, step)) > MAX_ELEMENTS:
        raise Unknown
    values = list(range(start, stop, step))
    return object_array(values, (len(values),))


@rule("Where")
def where(site: Site) -> Any:
    condition = given(site, 0)
    if not all(isinstance(item, bool) for item in condition.ravel()):
        raise Unknown
    return np.where(condition.astype(bool), given(site, 1), given(site, 2))


@rule("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def reduce(site: Site) -> Any:
    data = given(site, 0)
    axes: Any = ints(site, 1, site.attr("axes") or ())
    if not axes and site.attr("noop_with_empty_axes", 0):
        return data
    combine = {
        "ReduceProd": lambda a, b: a * b,
        "ReduceSum": lambda a, b: a + b,
        "ReduceMax": maximum,
        "ReduceMin": minimum,
    }[site.node.op_type]
    if data.size == 0:
        raise Unknown
    axes = tuple(axis % data.ndim for axis in axes) or tuple(range(data.ndim))
    return _reduce(combine, data, axes, bool(site.attr("keepdims", 1)))


def _reduce(combine: Callable[[Any, Any], Any], data: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    for axis in sorted(axes, reverse=True):
        rows = list(np.moveaxis(data, axis, 0))
        total = np.asarray(rows[0], object)
        for row in rows[1:]:
            total = _pairs(combine, total, np.asarray(row, object))
        data = np.expand_dims(total, axis) if keepdims else total
    return data


def _elementwise(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of elements as a rule; more than two inputs are taken from left to right."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def apply(site: Site) -> Any:
            arrays = [given(site, index) for index in range(len(site.node.inputs))]
            if len(arrays) == 1 and function.__code__.co_argcount == 1:
                return _each(function, arrays[0])
            return functools.reduce(lambda a, b: _pairs(function, a, b), arrays)

        for name in names:
            rule(name)(apply)
        return function

    return register


def _each(function: Callable[[Any], Any], array: np.ndarray) -> np.ndarray:
    return object_array([function(item) for item in array.ravel()], array.shape)


def _pairs(function: Callable[[Any, Any], Any], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right = np.broadcast_arrays(a, b)
    items = [function(x, y) for x, y in zip(left.ravel(), right.ravel(), strict=True)]
    return object_array(items, left.shape)


@_elementwise("Add", "Sum")
def _add(a: Any, b: Any) -> Any:
    return a + b


@_elementwise("Sub")
def _sub(a: Any, b: Any) -> Any:
    return a - b


@_elementwise("Mul")
def _mul(a: Any, b: Any) -> Any:
    return a * b


@_elementwise("Neg")
def _neg(a: Any) -> Any:
    return -a


@_elementwise("Abs")
def _abs(a: Any) -> Any:
    return a if _decided(is_at_least(a, 0)) else -a


@_elementwise("Floor")
def _floor(a: Any) -> Any:
    return floor(a)


@_elementwise("Ceil")
def _ceil(a: Any) -> Any:
    return ceil(a)


@_elementwise("Min")
def _min(a: Any, b: Any) -> Any:
    return minimum(a, b)


@_elementwise("Max")
def _max(a: Any, b: Any) -> Any:
    return maximum(a, b)


@_elementwise("And")
def _and(a: Any, b: Any) -> Any:
    return a and b


@_elementwise("Or")
def _or(a: Any, b: Any) -> Any:
    return a or b


@_elementwise("Not")
def _not(a: Any) -> Any:
    return not a


@_elementwise("Equal")
def _equal(a: Any, b: Any) -> Any:
    if a == b:
        return True
    if not isinstance(a - b, Expr):
        return False
    # Only what can never meet is told apart: a size is at least 1, so it is not -1.
    if is_at_least(a, b + 1) or is_at_least(b, a + 1):
        return False
    raise Unknown


@_elementwise("Greater")
def _greater(a: Any, b: Any) -> Any:
    return not _decided(is_at_least(b, a))


@_elementwise("Less")
def _less(a: Any, b: Any) -> Any:
    return not _decided(is_at_least(a, b))


@_elementwise("GreaterOrEqual")
def _greater_or_equal(a: Any, b: Any) -> Any:
    return _decided(is_at_least(a, b))


@_elementwise("LessOrEqual")
def _less_or_equal(a: Any, b: Any) -> Any:
    return _decided(is_at_least(b, a))


@rule("Div")
def div(site: Site) -> Any:
    whole = site.info.dtype(site.node.outputs[0]) in (ir.DataType.INT64, ir.DataType.INT32)
    return _pairs(_int_div if whole else _float_div, given(site, 0), given(site, 1))


@rule("Mod")
def mod(site: Site) -> Any:
    if site.attr("fmod", 0):
        raise Unknown
    return _pairs(_floor_mod, given(site, 0), given(site, 1))


def _floor_mod(a: Any, b: Any) -> Any:
    if b == 0:
        raise Unknown
    return a - b * floordiv(a, b)


def _int_div(a: Any, b: Any) -> Any:
    if b == 0:
        raise Unknown
    exact = exact_div(a, b)
    if exact is not None and floor(exact) == exact:
        return exact
    # ONNX cuts off towards zero.
    negative = is_at_least(a, 0) is False
    positive_divisor = _decided(is_at_least(b, 0))
    return -floordiv(-a, b) if negative == positive_divisor else floordiv(a, b)


def _float_div(a: Any, b: Any) -> Any:
    quotient = exact_div(a, b) if b != 0 else None
    if quotient is None:
        raise Unknown
    return quotient


def _truncate(a: Any) -> Any:
    if isinstance(a, Expr):
        return floor(a)
    return int(a)


def _is_true(a: Any) -> Any:
    if isinstance(a, Expr) and not is_at_least(a, 1):
        raise Unknown
    return bool(a)


def _as_number(a: Any) -> Any:
    return a if isinstance(a, (Expr, Fraction)) else int(a)


def _decided(order: bool | None) -> bool:
    if order is None:
        raise Unknown
    return order
