"""Branches and loops that only the run decides: Python's where the condition is known, TensorFlow's otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.dynamic.evaluate import evaluate, tensor_dtype
from modelport.backends.keras.dynamic.table import dynamic, scalar, shape
from modelport.core.errors import UnsupportedModelError

Step = Callable[[Any, list[Any]], tuple[Any, list[Any], list[Any]]]
"""One round: its number and the states -> whether to go on, the new states, what is collected."""


@dynamic("If")
def if_(condition: Any, *, then_branch: ir.Graph, else_branch: ir.Graph, scope: Mapping[str, Any]) -> Any:
    condition = scalar(condition)
    known = tf.get_static_value(condition)
    if known is not None:
        return tuple(evaluate(then_branch if known else else_branch, scope))
    chosen = tf.cond(
        condition, lambda: _tensors(evaluate(then_branch, scope)), lambda: _tensors(evaluate(else_branch, scope))
    )
    return tuple(chosen)


def _tensors(values: Sequence[Any]) -> list[Any]:
    """Values as TensorFlow's control flow takes them.

    Raises:
        UnsupportedModelError: one of them is a sequence or an optional.
    """
    if not all(tf.is_tensor(value) for value in values):
        raise UnsupportedModelError(
            "a branch or a loop that only the run decides has sequences or optionals, which TensorFlow's graph cannot "
            "hold: call the model eagerly."
        )
    return list(values)


@dynamic("Loop")
def loop(trips: Any, condition: Any, *states: Any, body: ir.Graph, scope: Mapping[str, Any]) -> Any:
    names = [str(value.name) for value in body.inputs]

    def step(index: Any, states: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        given = (index, tf.constant(True), *states)
        keep, *results = evaluate(body, {**scope, **dict(zip(names, given, strict=True))})
        return scalar(keep), results[: len(states)], results[len(states) :]

    limit = None if trips is None else scalar(trips)
    go = tf.constant(True) if condition is None else scalar(condition)
    return tuple(_repeated(step, limit, go, list(states), body.outputs[1 + len(states) :]))


@dynamic("Scan")
def scan(
    *inputs: Any,
    body: ir.Graph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
    scope: Mapping[str, Any],
) -> Any:
    count = len(inputs) - num_scan_inputs
    states, scanned = list(inputs[:count]), inputs[count:]
    axes = scan_input_axes or (0,) * num_scan_inputs
    back = scan_input_directions or (0,) * num_scan_inputs
    names = [str(value.name) for value in body.inputs]
    length = shape(scanned[0])[axes[0]]

    def step(index: Any, states: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        parts = [
            tf.gather(x, length - 1 - index if reverse else index, axis=axis)
            for x, axis, reverse in zip(scanned, axes, back, strict=True)
        ]
        results = evaluate(body, {**scope, **dict(zip(names, (*states, *parts), strict=True))})
        return tf.constant(True), results[:count], results[count:]

    collected = body.outputs[count:]
    results = _repeated(step, length, tf.constant(True), states, collected)
    out_axes = scan_output_axes or (0,) * len(collected)
    out_back = scan_output_directions or (0,) * len(collected)
    stacks = [
        tf.experimental.numpy.moveaxis(tf.reverse(stack, [0]) if reverse else stack, 0, axis)
        for stack, axis, reverse in zip(results[count:], out_axes, out_back, strict=True)
    ]
    return (*results[:count], *stacks)


def _repeated(step: Step, limit: Any, go: Any, states: list[Any], collected: Sequence[ir.Value]) -> list[Any]:
    """The states after the last round, and what the rounds gave along a new first axis."""
    if tf.executing_eagerly():
        return _counted(step, limit, bool(go), states, collected)
    return _traced(step, limit, go, _tensors(states), collected)


def _counted(step: Step, limit: Any, go: bool, states: list[Any], collected: Sequence[ir.Value]) -> list[Any]:
    rows: list[list[Any]] = [[] for _ in collected]
    index = 0
    while go and (limit is None or index < int(limit)):
        keep, states, found = step(tf.constant(index, tf.int64), states)
        for row, value in zip(rows, found, strict=True):
            row.append(value)
        go, index = bool(keep), index + 1
    return [*states, *(tf.stack(row) if row else _none(value) for row, value in zip(rows, collected, strict=True))]


def _none(value: ir.Value) -> Any:
    """What a loop without a round collects."""
    sizes = () if value.shape is None else value.shape
    return tf.zeros((0, *(size if isinstance(size, int) else 0 for size in sizes)), tensor_dtype(value) or tf.float32)


def _traced(step: Step, limit: Any, go: Any, states: list[Any], collected: Sequence[ir.Value]) -> list[Any]:
    arrays = [
        tf.TensorArray(
            tensor_dtype(value) or tf.float32, size=0, dynamic_size=True, infer_shape=False,
            element_shape=_static_shape(value),
        )
        for value in collected
    ]  # fmt: skip

    def goes_on(index: Any, keep: Any, *_: Any) -> Any:
        return keep if limit is None else tf.logical_and(keep, index < tf.cast(limit, tf.int64))

    def body(index: Any, _: Any, states: Any, arrays: Any) -> Any:
        keep, states, found = step(index, list(states))
        place = tf.cast(index, tf.int32)
        arrays = [array.write(place, value) for array, value in zip(arrays, found, strict=True)]
        return index + 1, keep, _tensors(states), arrays

    start = (tf.constant(0, tf.int64), go, states, arrays)
    loose = [tf.TensorShape([None] * state.shape.rank if state.shape.rank is not None else None) for state in states]
    shapes = (tf.TensorShape(()), tf.TensorShape(()), loose, [tf.TensorShape(None)] * len(arrays))
    _, _, states, arrays = tf.while_loop(goes_on, body, start, shape_invariants=shapes)
    return [*states, *(array.stack() for array in arrays)]


def _static_shape(value: ir.Value) -> Any:
    return None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
