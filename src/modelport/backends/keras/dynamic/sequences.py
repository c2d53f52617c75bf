"""Sequences as lists of tensors, and optionals as a value or `None`.

Where TensorFlow's graph decides how long a sequence is, in a loop say, it is a `tf.TensorArray`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.dynamic.evaluate import evaluate
from modelport.backends.keras.dynamic.table import dynamic, scalar
from modelport.backends.keras.ops.registry import NeedsValues


def _number(x: Any) -> int:
    """A place in a sequence.

    Raises:
        NeedsValues: the trace does not know it.
    """
    found = tf.get_static_value(x)
    if found is None:
        raise NeedsValues("a place in a sequence is a value that only the run tells")
    return int(found.reshape(()))


@dynamic("SequenceConstruct")
def sequence_construct(*xs: Any) -> Any:
    return (list(xs),)


@dynamic("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> Any:
    return ([],)


@dynamic("SequenceLength")
def sequence_length(items: Any) -> Any:
    if isinstance(items, tf.TensorArray):
        return tf.cast(items.size(), tf.int64)
    return tf.constant(len(items), tf.int64)


@dynamic("SequenceAt")
def sequence_at(items: Any, place: Any) -> Any:
    return items.read(_counted(items, place)) if isinstance(items, tf.TensorArray) else items[_number(place)]


@dynamic("SequenceInsert")
def sequence_insert(items: Any, item: Any, place: Any = None) -> Any:
    if isinstance(items, tf.TensorArray):
        end = items.size()
        index = end if place is None else _counted(items, place)
        moved = tf.range(end) + tf.cast(tf.range(end) >= index, tf.int32)
        return (_moved(items, tf.range(end), moved, end + 1).write(index, item),)
    index = len(items) if place is None else _number(place)
    index = index + len(items) if index < 0 else index
    return ([*items[:index], item, *items[index:]],)


@dynamic("SequenceErase")
def sequence_erase(items: Any, place: Any = None) -> Any:
    if isinstance(items, tf.TensorArray):
        end = items.size()
        index = end - 1 if place is None else _counted(items, place)
        kept = tf.boolean_mask(tf.range(end), tf.range(end) != index)
        return (_moved(items, kept, tf.range(end - 1), end - 1),)
    index = -1 if place is None else _number(place)
    index = index % len(items)
    return ([*items[:index], *items[index + 1 :]],)


def _counted(items: tf.TensorArray, place: Any) -> Any:
    """A place counted from the front."""
    place = tf.cast(scalar(place), tf.int32)
    return tf.where(place < 0, place + items.size(), place)


def _moved(items: tf.TensorArray, sources: Any, targets: Any, length: Any) -> tf.TensorArray:
    """Some elements at new places of an array of a length."""
    start = tf.TensorArray(items.dtype, size=length, dynamic_size=True, clear_after_read=False, infer_shape=False)

    def move(index: Any, array: tf.TensorArray) -> Any:
        return index + 1, array.write(targets[index], items.read(sources[index]))

    return tf.while_loop(lambda index, _: index < tf.size(sources), move, (tf.constant(0), start))[1]


@dynamic("SplitToSequence")
def split_to_sequence(x: Any, sizes: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    if sizes is None and not keepdims:
        return (tf.unstack(x, axis=axis),)
    if sizes is None or sizes.shape.rank == 0:
        step = 1 if sizes is None else _number(sizes)
        total = x.shape[axis]
        if total is None:
            raise NeedsValues("into how many parts a tensor is split is known only at run time")
        sizes = [min(step, total - start) for start in range(0, total, step)]
    return (tf.split(x, sizes, axis),)


@dynamic("ConcatFromSequence")
def concat_from_sequence(items: Any, *, axis: int, new_axis: int = 0) -> Any:
    if isinstance(items, tf.TensorArray):
        return _joined(items, axis, bool(new_axis))
    return tf.stack(items, axis) if new_axis else tf.concat(items, axis)


def _joined(items: tf.TensorArray, axis: int, new_axis: bool) -> Any:
    def element(index: Any) -> Any:
        found = items.read(index)
        return tf.expand_dims(found, axis) if new_axis else found

    def join(index: Any, whole: Any) -> Any:
        return index + 1, tf.concat([whole, element(index)], axis)

    start = (tf.constant(1), element(0))
    shapes = (tf.TensorShape(()), tf.TensorShape(None))
    return tf.while_loop(lambda index, _: index < items.size(), join, start, shape_invariants=shapes)[1]


@dynamic("SequenceMap")
def sequence_map(items: list[Any], *others: Any, body: ir.Graph, scope: Mapping[str, Any]) -> Any:
    names = [str(value.name) for value in body.inputs]
    rows = []
    for index, item in enumerate(items):
        given = (item, *(other[index] if isinstance(other, list) else other for other in others))
        rows.append(evaluate(body, {**scope, **dict(zip(names, given, strict=True))}))
    return tuple([row[i] for row in rows] for i in range(len(body.outputs)))


@dynamic("Optional")
def optional(x: Any = None, *, type: Any = None) -> Any:
    return (x,)


@dynamic("OptionalHasElement")
def optional_has_element(x: Any = None) -> Any:
    return tf.constant(x is not None)


@dynamic("OptionalGetElement")
def optional_get_element(x: Any) -> Any:
    return (x,)


@dynamic("Identity")
def identity(x: Any) -> Any:
    return (x,)
