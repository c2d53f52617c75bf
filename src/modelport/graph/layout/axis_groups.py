"""Which axes a Reshape joins and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modelport.graph.layout.relayout import Dims, Perm


@dataclass(frozen=True)
class Group:
    """Consecutive axes of the input whose elements become consecutive axes of the output."""

    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass
class _Product:
    """The product of sizes, of which some are names."""

    number: int = 1
    names: Counter[str] | None = None

    def times(self, dim: int | str | None) -> bool:
        """Multiply; `False` where the size is not known."""
        if dim is None:
            return False
        if isinstance(dim, int):
            self.number *= dim
        else:
            self.names = (self.names or Counter()) + Counter([dim])
        return True

    def divides(self, other: _Product) -> bool:
        mine, theirs = self.names or Counter[str](), other.names or Counter[str]()
        return other.number % self.number == 0 and all(theirs[name] >= count for name, count in mine.items())

    def equals(self, other: _Product) -> bool:
        return self.number == other.number and (self.names or Counter()) == (other.names or Counter())


def axis_groups(source: Dims, target: Dims) -> list[Group] | None:
    """The finest groups of a Reshape, leaving out axes of size 1.

    Sizes that are not known end up together in one group; `None` where nothing can be said.

    Example:
        >>> [(g.source, g.target) for g in axis_groups(("n", 8, 4, 4), ("n", 2, 4, 16))]
        [((0,), (0,)), ((1,), (1, 2)), ((2, 3), (3,))]
    """
    if 0 in source or 0 in target:
        return None
    left = [(axis, dim) for axis, dim in enumerate(source) if dim != 1]
    right = [(axis, dim) for axis, dim in enumerate(target) if dim != 1]
    first, used_left, used_right = _from_front(left, right)
    left, right = left[used_left:], right[used_right:]
    last, used_left, used_right = _from_front(left[::-1], right[::-1])
    left, right = left[: len(left) - used_left], right[: len(right) - used_right]
    groups = first + [Group(group.source[::-1], group.target[::-1]) for group in reversed(last)]
    if bool(left) != bool(right):
        return None
    if left:
        middle = Group(tuple(axis for axis, _ in left), tuple(axis for axis, _ in right))
        groups.insert(len(first), middle)
    return groups


_Axes = Sequence[tuple[int, int | str | None]]


def _from_front(left: _Axes, right: _Axes) -> tuple[list[Group], int, int]:
    """Groups as long as the sizes are known, and how many axes of either side they use."""
    groups: list[Group] = []
    i = j = 0
    while i < len(left) and j < len(right):
        end = _one_group(left[i:], right[j:])
        if end is None:
            break
        ends = (i + end[0], j + end[1])
        groups.append(Group(tuple(a for a, _ in left[i : ends[0]]), tuple(a for a, _ in right[j : ends[1]])))
        i, j = ends
    return groups, i, j


def _one_group(left: _Axes, right: _Axes) -> tuple[int, int] | None:
    """How many axes of either side have the same product, at least one of each."""
    products = (_Product(), _Product())
    if not (products[0].times(left[0][1]) and products[1].times(right[0][1])):
        return None
    i = j = 1
    while not products[0].equals(products[1]):
        if products[0].divides(products[1]) and i < len(left):
            i, known = i + 1, products[0].times(left[i][1])
        elif products[1].divides(products[0]) and j < len(right):
            j, known = j + 1, products[1].times(right[j][1])
        else:
            return None
        if not known:
            return None
    return i, j


def joined_order(perm: Perm, groups: Sequence[Group]) -> Perm:
    """The stored order nearest to `perm` in which the axes of every group stand together and in their own order.

    Axes in no group (of size 1) stay behind the axis they stand behind.
    """
    of = {axis: group for group in groups for axis in group.source}
    places = {axis: place for place, axis in enumerate(perm)}
    anchor: dict[int, tuple[int, int]] = {}
    last = (-1, 0)
    for axis in perm:
        if axis in of:
            axes = of[axis].source
            last = (min(places[a] for a in axes), axes.index(axis))
        anchor[axis] = last
    return tuple(sorted(perm, key=lambda axis: (*anchor[axis], axis not in of, places[axis])))
