"""Sequences of tensors and optionals.

A sequence whose length is known is a tuple of tensors that exists while building only. Any other is a Python list when
the module runs; an optional is `None` or its value.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import torch

from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Constant, Held, Items, Nothing, Operand, Tensor, Weight


def _known_position(position: Operand | None, default: int, operands: Operands) -> int | None:
    if position is None:
        return default
    known = operands.ints(position)
    return known.items[0] if known is not None and isinstance(known.items[0], int) else None


def _listed(sequence: Operand, operands: Operands) -> Any:
    """A sequence as a list of the running module."""
    if isinstance(sequence, Held):
        return sequence
    if not isinstance(sequence, Items):
        raise CannotBuild("it takes a tensor for a sequence")
    return operands.create("call_function", list, [operands.argument(item) for item in sequence.tensors])


def _place(sequence: Any, position: Operand, operands: Operands) -> Any:
    """A position that only the run knows, or one in a list that it makes, counted from the front."""
    length = operands.create("call_function", len, sequence)
    return operands.create("call_function", operator.mod, operands.size(position), length)


@op("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> Items:
    return Items(())


@op("SequenceConstruct")
def sequence_construct(*tensors: Weight) -> Items:
    return Items(tensors)


@op("SequenceAt")
def sequence_at(sequence: Weight, position: Weight, *, operands: Operands) -> Any:
    place = _known_position(position, 0, operands)
    if isinstance(sequence, Items) and place is not None:
        return sequence.tensors[place]
    return _listed(sequence, operands)[operands.size(position) if place is None else place]


@op("SequenceInsert")
def sequence_insert(sequence: Weight, tensor: Weight, position: Weight = None, *, operands: Operands) -> Any:
    place = _known_position(position, 0, operands)
    if isinstance(sequence, Items) and place is not None:
        items = list(sequence.tensors)
        items.insert(len(items) if position is None else place, tensor)
        return Items(tuple(items))
    given = _listed(sequence, operands)
    new = [operands.argument(tensor)]
    if position is None:
        return operands.create("call_function", operator.add, given, new)
    at = operands.size(position)
    head = operands.create("call_function", operator.getitem, given, slice(None, at))
    tail = operands.create("call_function", operator.getitem, given, slice(at, None))
    return operands.create(
        "call_function", operator.add, operands.create("call_function", operator.add, head, new), tail
    )


@op("SequenceErase")
def sequence_erase(sequence: Weight, position: Weight = None, *, operands: Operands) -> Any:
    place = _known_position(position, -1, operands)
    if isinstance(sequence, Items) and place is not None:
        items = list(sequence.tensors)
        del items[place]
        return Items(tuple(items))
    given = _listed(sequence, operands)
    if position is None:
        return operands.create("call_function", operator.getitem, given, slice(None, -1))
    at = _place(given, position, operands)
    head = operands.create("call_function", operator.getitem, given, slice(None, at))
    tail = operands.create("call_function", operator.getitem, given, slice(at + 1, None))
    return operands.create("call_function", operator.add, head, tail)


@op("SequenceLength")
def sequence_length(sequence: Weight, *, operands: Operands) -> Any:
    if isinstance(sequence, Items):
        return operands.anchor.new_full((), len(sequence.tensors), dtype=torch.int64)
    length = operands.create("call_function", len, _listed(sequence, operands))
    return operands.anchor.new_full((), length, dtype=torch.int64)


@op("ConcatFromSequence")
def concat_from_sequence(sequence: Weight, *, axis: int, new_axis: int = 0, operands: Operands) -> Any:
    join = torch.stack if new_axis else torch.cat
    if isinstance(sequence, Items):
        return join([operands.tensor(item) for item in sequence.tensors], axis)
    return operands.create("call_function", join, _listed(sequence, operands), axis)


@op("SplitToSequence")
def split_to_sequence(x: Tensor, split: Weight = None, *, axis: int = 0, keepdims: int = 1, operands: Operands) -> Any:
    size = x.dims[axis]
    if split is None and not keepdims:
        return _parts(torch.unbind(x, axis), size, operands)
    if split is None:
        return _parts(torch.split(x, 1, axis), size, operands)
    known = operands.ints(split)
    if known is None:
        lengths = operands.tensor(split)
        sizes = lengths.item() if lengths.rank == 0 else lengths.tolist()
        return _parts(operands.create("call_function", torch.split, x, sizes, axis), None, operands)
    if known.rank == 0:
        each = cast(int, known.items[0])
        count = None if size is None or not isinstance(each, int) else -(-size // each)
        return _parts(torch.split(x, each, axis), count, operands)
    return _parts(torch.split(x, list(known.items), axis), len(known.items), operands)


def _parts(parts: Any, count: int | None, operands: Operands) -> Any:
    """What a function gave as a tuple, as a sequence."""
    if count is None:
        return operands.create("call_function", list, parts)
    return Items(tuple(parts[index] for index in range(count)))


@op("Optional")
def optional(value: Weight = None, *, type: Any = None) -> Any:
    return Nothing() if value is None else value


@op("OptionalHasElement")
def optional_has_element(value: Weight = None, *, node: ir.Node, operands: Operands) -> Any:
    if isinstance(value, Held) and isinstance(value.value.type, ir.OptionalType):
        found = operands.create("call_function", operator.is_not, value, None)
        return operands.anchor.new_full((), found, dtype=torch.bool)
    return Constant(node.outputs[0], np.array(value is not None and not isinstance(value, Nothing)))


@op("OptionalGetElement")
def optional_get_element(value: Weight) -> Any:
    if isinstance(value, Nothing):
        raise CannotBuild("its optional is empty; give it a value")
    return value
