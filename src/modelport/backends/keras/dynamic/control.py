"""Branches and loops that only the run decides: Python's where the condition is known, TensorFlow's otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.dynamic.evaluate import element_dtype, evaluate, tensor_dtype
from modelport.backends.keras.dynamic.table import dynamic, scalar, shape
from modelport.core.errors import UnsupportedModelError, UnsupportedOpError

Step = Callable[[Any, list[Any]], tuple[Any, list[Any], list[Any]]]
"""One round: its number and the states -> whether to go on, the new states, what is collected."""


@dynamic("If")
def if_(condition: Any, *, then_branch: ir.Graph, else_branch: ir.Graph, scope: Mapping[str, Any]) -> Any:
    condition = scalar(condition)
    known = tf.get_static_value(condition)
    if known is not None:
        return tuple(evaluate(then_branch if known else else_branch, scope))

    def run(branch: ir.Graph) -> list[Any]:
        return _tensors(evaluate(branch, scope), branch.outputs)

    return tuple(tf.cond(condition, lambda: run(then_branch), lambda: run(else_branch)))


def _tensors(values: Sequence[Any], kinds: Sequence[ir.Value]) -> list[Any]:
    """Values as TensorFlow's control flow takes them: a sequence of any length is a `tf.TensorArray`.

    Raises:
        UnsupportedModelError: one of them is an optional, or a sequence of sequences.
    """
    found = [
        _array(value, kind) if isinstance(value, list) else value for value, kind in zip(values, kinds, strict=True)
    ]
    if not all(tf.is_tensor(value) or isinstance(value, tf.TensorArray) for value in found):
        raise UnsupportedModelError(
            "a branch or a loop that only the run decides has optionals, which TensorFlow's graph cannot hold: call "
            "the model eagerly."
        )
    return found


def _array(items: Sequence[Any], kind: ir.Value) -> tf.TensorArray:
    array = tf.TensorArray(
        element_dtype(kind), size=len(items), dynamic_size=True, clear_after_read=False, infer_shape=False
    )
    for index, item in enumerate(items):
        array = array.write(index, item)
    return array


@dynamic("Loop")
def loop(trips: Any, condition: Any, *states: Any, body: ir.Graph, scope: Mapping[str, Any]) -> Any:
    names = [str(value.name) for value in body.inputs]

    def step(index: Any, states: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        given = (index, tf.constant(True), *states)
        keep, *results = evaluate(body, {**scope, **dict(zip(names, given, strict=True))})
        return scalar(keep), results[: len(states)], results[len(states) :]

    limit = None if trips is None else scalar(trips)
    go = tf.constant(True) if condition is None else scalar(condition)
    return tuple(_repeated(step, limit, go, list(states), body.outputs[1:]))


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

    results = _repeated(step, length, tf.constant(True), states, body.outputs)
    out_axes = scan_output_axes or (0,) * len(results[count:])
    out_back = scan_output_directions or (0,) * len(results[count:])
    stacks = [
        tf.experimental.numpy.moveaxis(tf.reverse(stack, [0]) if reverse else stack, 0, axis)
        for stack, axis, reverse in zip(results[count:], out_axes, out_back, strict=True)
    ]
    return (*results[:count], *stacks)


def _repeated(step: Step, limit: Any, go: Any, states: list[Any], outputs: Sequence[ir.Value]) -> list[Any]:
    """The states after the last round, and what the rounds gave along a new first axis.

    Args:
        step: one round.
        limit: how many rounds there are at most.
        go: whether there is a first one.
        states: before it.
        outputs: of the body: the states, and what is collected.
    """
    count = len(states)
    if tf.executing_eagerly():
        return _counted(step, limit, bool(go), states, outputs[count:])
    return _traced(step, limit, go, _tensors(states, outputs[:count]), outputs)


def _counted(step: Step, limit: Any, go: bool, states: list[Any], collected: Sequence[ir.Value]) -> list[Any]:
    rows: list[list[Any]] = [[] for _ in collected]
    index, run = 0, step
    while go and (limit is None or index < int(limit)):
        if index == _PLAIN_ROUNDS and all(tf.is_tensor(state) for state in states):
            run = _compiled(step)
        keep, states, found = run(tf.constant(index, tf.int64), states)
        for row, value in zip(rows, found, strict=True):
            row.append(value)
        go, index = bool(keep), index + 1
    return [*states, *(tf.stack(row) if row else _none(value) for row, value in zip(rows, collected, strict=True))]


_PLAIN_ROUNDS = 4
"""A loop that goes on after so many rounds is worth a graph of its own."""


def _compiled(step: Step) -> Step:
    """A round as TensorFlow's graph, which is many times faster than one operator after the other.

    It stays as it is where a graph cannot hold it.
    """
    traced = tf.function(step, autograph=False, reduce_retracing=True)
    holds = True

    def run(index: Any, states: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        nonlocal holds
        if holds:
            try:
                results: tuple[Any, list[Any], list[Any]] = traced(index, states)
                return results
            except (UnsupportedModelError, UnsupportedOpError):
                holds = False
        return step(index, states)

    return run


def _none(value: ir.Value) -> Any:
    """What a loop without a round collects."""
    sizes = () if value.shape is None else value.shape
    return tf.zeros((0, *(size if isinstance(size, int) else 0 for size in sizes)), tensor_dtype(value) or tf.float32)


def _traced(step: Step, limit: Any, go: Any, states: list[Any], outputs: Sequence[ir.Value]) -> list[Any]:
    count = len(states)
    arrays = [
        tf.TensorArray(
            tensor_dtype(value) or tf.float32, size=0, dynamic_size=True, infer_shape=False,
            element_shape=_static_shape(value),
        )
        for value in outputs[count:]
    ]  # fmt: skip

    def goes_on(index: Any, keep: Any, *_: Any) -> Any:
        return keep if limit is None else tf.logical_and(keep, index < tf.cast(limit, tf.int64))

    def body(index: Any, _: Any, states: Any, arrays: Any) -> Any:
        keep, states, found = step(index, list(states))
        place = tf.cast(index, tf.int32)
        arrays = [array.write(place, value) for array, value in zip(arrays, found, strict=True)]
        return index + 1, keep, _tensors(states, outputs[:count]), arrays

    start = (tf.constant(0, tf.int64), go, states, arrays)
    loose = [_loose(state) for state in states]
    shapes = (tf.TensorShape(()), tf.TensorShape(()), loose, [tf.TensorShape(None)] * len(arrays))
    _, _, states, arrays = tf.while_loop(goes_on, body, start, shape_invariants=shapes)
    return [*states, *(array.stack() for array in arrays)]


def _loose(state: Any) -> Any:
    """A shape of the same rank whose sizes may change from round to round."""
    count = None if isinstance(state, tf.TensorArray) else state.shape.rank
    return tf.TensorShape(None if count is None else [None] * count)


def _static_shape(value: ir.Value) -> Any:
    return None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
