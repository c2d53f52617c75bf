"""The axes of a value as digits, and the slots that the channels along them stand for.

An axis is a tuple of digits, the most significant first: one of 768 channels that was made of 12 heads of 64 numbers is
`(12, 64)`, one that is flattened from (channels, height, width) has three. Digits of size 1 are left out. Moving,
splitting and merging axes then only moves and splits digits, and says nothing yet about what goes together.

A block gives slots to digits: one slot per combination of theirs. A digit in no block is plain: nothing along it goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelport.compression.prune.slots import Ids, Slots
from modelport.graph.shapes.expr import Size


class Lost(Exception):
    """Channels cannot be followed through a node; the text says why."""


@dataclass(frozen=True, eq=False)
class Digit:
    """A part of an axis, known by its identity."""

    size: Size


Axis = tuple[Digit, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """The slots of some digits.

    Attributes:
        ids: one axis per digit.
        digits: in the order in which they were one axis.
    """

    ids: Ids
    digits: Axis


@dataclass(frozen=True, eq=False)
class Layout:
    """The axes of one value.

    Attributes:
        axes: one tuple of digits per axis.
        blocks: the block of every digit that has slots.
    """

    axes: tuple[Axis, ...]
    blocks: Mapping[Digit, Block]

    def is_plain(self, axis: int | None = None) -> bool:
        """Whether no digit of an axis, or of any, has slots."""
        axes = self.axes if axis is None else (self.axes[axis],)
        return not any(digit in self.blocks for digits in axes for digit in digits)

    def present(self) -> list[Block]:
        """The blocks that its axes have digits of; those of digits that are gone are no longer its own."""
        blocks = (self.blocks[digit] for axis in self.axes for digit in axis if digit in self.blocks)
        return list({id(block): block for block in blocks}.values())

    def with_axes(self, axes: Iterable[Axis]) -> Layout:
        return Layout(tuple(axes), self.blocks)


def plain(dims: Iterable[Size]) -> Layout:
    """A layout without slots."""
    return Layout(tuple(() if dim == 1 else (Digit(dim),) for dim in dims), {})


def labelled(parts: Sequence[Ids | Size]) -> Layout:
    """A layout whose axes have the given slots, or are plain and of the given size."""
    axes: list[Axis] = []
    blocks: dict[Digit, Block] = {}
    for part in parts:
        size = len(part) if isinstance(part, np.ndarray) else part
        axis: Axis = () if size == 1 else (Digit(size),)
        if isinstance(part, np.ndarray) and axis:
            blocks[axis[0]] = Block(part, axis)
        axes.append(axis)
    return Layout(tuple(axes), blocks)


def quotient(size: Size, divisor: Size) -> Size | None:
    """The exact quotient of two sizes; `None` where it leaves a rest, or is not known to leave none."""
    if isinstance(size, int) and isinstance(divisor, int):
        return None if not divisor or size % divisor else size // divisor
    if size == divisor:
        return 1
    found = size // divisor
    return found if found * divisor == size else None


class Split:
    """Splits digits of a layout, keeping count of the blocks; `layout` gives the outcome."""

    def __init__(self, layout: Layout, blocks: list[Block]) -> None:
        self.blocks = dict(layout.blocks)
        self._record = blocks

    def split(self, digit: Digit, first: Size, second: Size) -> Axis:
        """Two digits in the place of one."""
        parts = (Digit(first), Digit(second))
        block = self.blocks.pop(digit, None)
        if block is None:
            return parts
        place = block.digits.index(digit)
        shape = (*block.ids.shape[:place], first, second, *block.ids.shape[place + 1 :])
        digits = (*block.digits[:place], *parts, *block.digits[place + 1 :])
        finer = Block(block.ids.reshape(shape), digits)
        self._record.append(finer)
        self.blocks.update(dict.fromkeys(digits, finer))
        return parts

    def regroup(self, digits: Sequence[Digit], sizes: Sequence[Size]) -> tuple[Axis, ...]:
        """The digits, the most significant first, as axes of the given sizes.

        Raises:
            Lost: a digit with slots lies across two axes.
        """
        waiting = list(reversed(digits))
        axes = []
        for size in sizes:
            axis: list[Digit] = []
            need = size
            while need != 1:
                if not waiting:
                    raise Lost("its sizes are not known to multiply to those of its input")
                digit = waiting.pop()
                if (rest := quotient(need, digit.size)) is not None:
                    axis.append(digit)
                    need = rest
                elif (rest := quotient(digit.size, need)) is not None:
                    head, tail = self.split(digit, need, rest)
                    axis.append(head)
                    waiting.append(tail)
                    need = 1
                elif digit not in self.blocks and waiting and waiting[-1] not in self.blocks:
                    waiting.append(Digit(digit.size * waiting.pop().size))
                else:
                    raise Lost("it cuts through channels")
            axes.append(tuple(axis))
        if waiting:
            raise Lost("its sizes are not known to multiply to those of its input")
        return tuple(axes)


def common_sizes(left: Axis, right: Axis) -> list[Size]:
    """The sizes of the coarsest digits that both axes can be split into.

    Raises:
        Lost: there are none.
    """
    sizes: list[Size] = []
    mine, theirs = [d.size for d in reversed(left)], [d.size for d in reversed(right)]
    while mine and theirs:
        a, b = mine.pop(), theirs.pop()
        if a == b:
            sizes.append(a)
        elif (rest := quotient(a, b)) is not None:
            sizes.append(b)
            mine.append(rest)
        elif (rest := quotient(b, a)) is not None:
            sizes.append(a)
            theirs.append(rest)
        else:
            raise Lost("its operands split their channels in ways that do not fit")
    if mine or theirs:
        raise Lost("its operands are not known to have the same sizes")
    return sizes


def elements(layout: Layout, axis: int, slots: Slots, reason: str) -> Ids | None:
    """The slot of every position along an axis; `None` where the axis is plain.

    Digits of a block that lie on other axes make what is here go together; of two blocks on one axis the second is
    pinned.

    Raises:
        Lost: the axis has slots, and a size that only the run tells.
    """
    digits = layout.axes[axis]
    found = [layout.blocks[digit] for digit in digits if digit in layout.blocks]
    if not found:
        return None
    block = found[0]
    for other in found[1:]:
        if other is not block:
            slots.pin(other.ids, reason)
    sizes = [digit.size for digit in digits]
    if not all(isinstance(size, int) for size in sizes):
        raise Lost("channels share an axis with a size that only the run tells")
    here = [digit for digit in block.digits if digit in digits]
    away = [place for place, digit in enumerate(block.digits) if digit not in digits]
    ids = slots.unite_along(block.ids, away)
    order = [digit for digit in digits if digit in here]
    ids = ids.transpose([here.index(digit) for digit in order])
    shape = [digit.size if digit in here else 1 for digit in digits]
    return np.broadcast_to(ids.reshape(shape), sizes).ravel()  # type: ignore[arg-type]


def collapsed(layout: Layout, gone: Iterable[Digit], slots: Slots) -> Layout:
    """The layout where nothing is cut along some digits: what shares a block with them goes together along them.

    A block that has no other digits is only forgotten.
    """
    gone = set(gone)
    blocks = dict(layout.blocks)
    for block in {id(block): block for digit, block in layout.blocks.items() if digit in gone}.values():
        kept = tuple(digit for digit in block.digits if digit not in gone)
        away = [place for place, digit in enumerate(block.digits) if digit in gone]
        for digit in block.digits:
            blocks.pop(digit, None)
        if kept:
            smaller = Block(slots.unite_along(block.ids, away), kept)
            blocks.update(dict.fromkeys(kept, smaller))
    return Layout(layout.axes, blocks)


def fixed(layout: Layout, digits: Iterable[Digit], slots: Slots, reason: str) -> Layout:
    """The layout where nothing is cut along some digits, and slots that lie on them alone are pinned."""
    digits = set(digits)
    for block in {id(block): block for digit, block in layout.blocks.items() if digit in digits}.values():
        if digits.issuperset(block.digits):
            slots.pin(block.ids, reason)
    return collapsed(layout, digits, slots)


def join(
    left: Layout, right: Layout, pairs: Iterable[tuple[int, int]], slots: Slots, record: list[Block], reason: str
) -> tuple[Layout, Layout]:
    """Two layouts after some of their axes met, pair by pair: what is at one place goes together.

    Axes of size 1 broadcast and meet nothing. Where a block of one side has an outer digit and the other side only
    knows an inner one, as a weight for the numbers of every head does, nothing is cut along the inner one.

    Raises:
        Lost: the sizes of two axes do not fit.
    """
    pairs = [(i, j) for i, j in pairs if left.axes[i] and right.axes[j]]
    pairs = [(i, j) for i, j in pairs if not (left.is_plain(i) and right.is_plain(j))]
    matched: list[tuple[Digit, Digit]] = []
    mine, theirs = Split(left, record), Split(right, record)
    left_axes, right_axes = list(left.axes), list(right.axes)
    for i, j in pairs:
        sizes = common_sizes(left.axes[i], right.axes[j])
        left_axes[i] = tuple(digit for axis in mine.regroup(left.axes[i], sizes) for digit in axis)
        right_axes[j] = tuple(digit for axis in theirs.regroup(right.axes[j], sizes) for digit in axis)
        matched += zip(left_axes[i], right_axes[j], strict=True)
    left, right = Layout(tuple(left_axes), mine.blocks), Layout(tuple(right_axes), theirs.blocks)
    for a, b in matched:
        if b not in right.blocks:
            left = fixed(left, [a], slots, reason)
        elif a not in left.blocks:
            right = fixed(right, [b], slots, reason)
    matched = [(a, b) for a, b in matched if a in left.blocks and b in right.blocks]
    while matched:
        one, other = left.blocks[matched[0][0]], right.blocks[matched[0][1]]
        here = [(a, b) for a, b in matched if left.blocks[a] is one and right.blocks[b] is other]
        matched = [pair for pair in matched if pair not in here]
        left, right = _unite(left, right, one, other, here, slots, reason)
    return left, right


def _unite(
    left: Layout, right: Layout, one: Block, other: Block, here: list[tuple[Digit, Digit]], slots: Slots, reason: str
) -> tuple[Layout, Layout]:
    """Two layouts after two of their blocks met in some digits."""
    mine, theirs = [a for a, _ in here], [b for _, b in here]
    if one.digits[0] not in mine and set(theirs) == set(other.digits):
        return collapsed(left, mine, slots), fixed(right, theirs, slots, reason)
    if other.digits[0] not in theirs and set(mine) == set(one.digits):
        return fixed(left, mine, slots, reason), collapsed(right, theirs, slots)
    slots.unite(_in_order(one, mine, slots), _in_order(other, theirs, slots))
    return left, right


def _in_order(block: Block, digits: Sequence[Digit], slots: Slots) -> Ids:
    """The slots of some digits of a block, in their order; along the others they go together."""
    ids = slots.unite_along(block.ids, [i for i, digit in enumerate(block.digits) if digit not in digits])
    left = [digit for digit in block.digits if digit in digits]
    return ids.transpose([left.index(digit) for digit in digits])


def renewed(layout: Layout) -> Layout:
    """The layout with other digits, of the same sizes and slots."""
    fresh = {digit: Digit(digit.size) for axis in layout.axes for digit in axis}
    blocks: dict[Digit, Block] = {}
    for block in layout.present():
        digits = tuple(fresh.get(digit) or Digit(digit.size) for digit in block.digits)
        blocks.update(dict.fromkeys(digits, Block(block.ids, digits)))
    return Layout(tuple(tuple(fresh[digit] for digit in axis) for axis in layout.axes), blocks)


def merged(left: Layout, right: Layout, pairs: Sequence[tuple[int | None, int | None]]) -> Layout:
    """The layout of what two layouts give that have met: of every pair of axes the one that says more.

    Args:
        left: as `join` returned it.
        right: likewise.
        pairs: an axis of either for every axis of the result; `None` where one has none.
    """
    if {digit for axis in left.axes for digit in axis} & {digit for axis in right.axes for digit in axis}:
        # Both come from one value, and one digit cannot lie on two axes.
        right = renewed(right)
    axes: list[Axis] = []
    for i, j in pairs:
        a = () if i is None else left.axes[i]
        b = () if j is None else right.axes[j]
        axes.append(b if not a or (b and _depth(right, b) > _depth(left, a)) else a)
    return Layout(tuple(axes), {**left.blocks, **right.blocks})


def _depth(layout: Layout, axis: Axis) -> int:
    return max((len(layout.blocks[digit].digits) for digit in axis if digit in layout.blocks), default=0)
