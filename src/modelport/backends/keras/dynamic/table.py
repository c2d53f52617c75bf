"""The operators in TensorFlow, for what only the run tells: each a short function of tensors of any shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import tensorflow as tf

from modelport.backends.keras.ops.registry import Op
from modelport.graph.layout.channels_last import DOMAIN as CHANNELS_LAST

Function = TypeVar("Function", bound=Callable[..., Any])

DYNAMIC: dict[tuple[str, str], Op] = {}
"""Operators by domain and name."""


def dynamic(*names: str, domain: str = "") -> Callable[[Function], Function]:
    """Register a function as one or more operators.

    Its positional parameters are the operator's inputs: `tf.Tensor`s, lists of them for sequences, `None` where one is
    absent. Its keyword-only parameters are the attributes with the standard's defaults; of them `outputs` receives how
    many outputs the node has, `result` the dtype of the first, and `scope` the values that a subgraph may use.
    """

    def register(function: Function) -> Function:
        for name in names:
            if (domain, name) in DYNAMIC:
                raise ValueError(f"operator {domain}::{name} is registered twice")
            DYNAMIC[domain, name] = Op(function)
        return function

    return register


def dynamic_spatial(*names: str) -> Callable[[Function], Function]:
    """Register an operator on images with the channels first, and the one that has them last between two transposes."""

    def register(function: Function) -> Function:
        @wraps(function)
        def last(x: Any, *inputs: Any, **attributes: Any) -> Any:
            count = rank(x)
            first = tf.transpose(x, (0, count - 1, *range(1, count - 1))) if count > 2 else x
            result = function(first, *inputs, **attributes)
            results = result if isinstance(result, tuple) else (result,)
            if count > 2:
                results = tuple(tf.transpose(each, (0, *range(2, count), 1)) for each in results)
            return results if isinstance(result, tuple) else results[0]

        dynamic(*names)(function)
        dynamic(*names, domain=CHANNELS_LAST)(last)
        return function

    return register


_LACKING = frozenset({tf.int8, tf.int16, tf.uint8, tf.uint16, tf.uint32, tf.uint64})


def wide(x: Any) -> Any:
    """A tensor in a dtype that has all kernels; wrap-around of int64 agrees with that of the narrower integers."""
    return tf.cast(x, tf.int64) if x.dtype in _LACKING else x


def precise(x: Any) -> Any:
    """A tensor in at least single precision."""
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


def rank(x: Any) -> int:
    """The number of axes, which the trace must know.

    Raises:
        ValueError: it does not.
    """
    found = x.shape.rank
    if found is None:
        raise ValueError("the rank of a tensor is not known while TensorFlow builds its graph; call the model eagerly")
    return int(found)


def ranks(x: Any) -> Any:
    """The number of axes, as a scalar where the trace does not know it."""
    return tf.rank(x) if x.shape.rank is None else x.shape.rank


def shape(x: Any) -> Any:
    """The sizes as an int64 vector."""
    return tf.shape(x, out_type=tf.int64)


def lengths(x: Any) -> list[Any]:
    """The sizes, each a number where the trace knows it."""
    sizes = shape(x)
    return [sizes[axis] if known is None else known for axis, known in enumerate(x.shape)]


def scalar(x: Any) -> Any:
    """A tensor of one element as a scalar."""
    return tf.reshape(x, ())


def axes_of(axes: Any, count: Any) -> Any:
    """Axes counted from the front, as an int64 vector."""
    axes = tf.reshape(tf.cast(axes, tf.int64), (-1,))
    return tf.where(axes < 0, axes + tf.cast(count, tf.int64), axes)
