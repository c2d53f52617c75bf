"""Sequences of tensors, as lists that exist while building: their lengths and positions have to be known."""

from __future__ import annotations

from typing import Any, cast

import torch

from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Items, Operand, Tensor, Weight


def _items(sequence: Operand) -> tuple[Any, ...]:
    if not isinstance(sequence, Items):
        raise CannotBuild("its sequence comes from outside the model; pass tensors")
    return sequence.tensors


def _position(position: Operand | None, default: int, operands: Operands) -> int:
    if position is None:
        return default
    known = operands.ints(position)
    if known is None or not isinstance(known.items[0], int):
        raise CannotBuild("its position in the sequence is computed by the model; make it constant")
    return known.items[0]


@op("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> Items:
    return Items(())


@op("SequenceConstruct")
def sequence_construct(*tensors: Tensor) -> Items:
    return Items(tensors)


@op("SequenceAt")
def sequence_at(sequence: Weight, position: Weight, *, operands: Operands) -> Any:
    return _items(sequence)[_position(position, 0, operands)]


@op("SequenceInsert")
def sequence_insert(sequence: Weight, tensor: Tensor, position: Weight = None, *, operands: Operands) -> Items:
    items = list(_items(sequence))
    items.insert(_position(position, len(items), operands), tensor)
    return Items(tuple(items))


@op("SequenceErase")
def sequence_erase(sequence: Weight, position: Weight = None, *, operands: Operands) -> Items:
    items = list(_items(sequence))
    del items[_position(position, -1, operands)]
    return Items(tuple(items))


@op("SequenceLength")
def sequence_length(sequence: Weight, *, anchor: Tensor) -> Any:
    return anchor.new_full((), len(_items(sequence)), dtype=torch.int64)


@op("ConcatFromSequence")
def concat_from_sequence(sequence: Weight, *, axis: int, new_axis: int = 0) -> Any:
    return (torch.stack if new_axis else torch.cat)(list(_items(sequence)), axis)


@op("SplitToSequence")
def split_to_sequence(
    x: Tensor, split: Weight = None, *, axis: int = 0, keepdims: int = 1, operands: Operands
) -> Items:
    size = x.dims[axis]
    if split is None:
        if size is None:
            raise CannotBuild(f"the size of axis {axis} is not known; make it static")
        parts = torch.split(x, 1, axis)
        kept = [parts[index] for index in range(size)]
        return Items(tuple(kept if keepdims else (part.squeeze(axis) for part in kept)))
    known = operands.ints(split)
    if known is None:
        raise CannotBuild("the sizes of its parts are computed by the model; make them constant")
    if known.rank == 0:
        if size is None:
            raise CannotBuild(f"the size of axis {axis} is not known; make it static")
        each = cast(int, known.items[0])
        parts, count = torch.split(x, each, axis), -(-size // each)
    else:
        parts, count = torch.split(x, list(known.items), axis), len(known.items)
    return Items(tuple(parts[index] for index in range(count)))
