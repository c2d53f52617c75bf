"""Channel slots: the elementary channels of a graph, which of them go only together, and which cannot go."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Ids = np.ndarray
"""Slots, as an array of int64."""


class Slots:
    """A union-find over slots, of which the unions are collected first and the classes computed at once."""

    def __init__(self) -> None:
        self._count = 0
        self._left: list[np.ndarray] = []
        self._right: list[np.ndarray] = []
        self._pinned: list[tuple[np.ndarray, str]] = []

    @property
    def edges(self) -> list[np.ndarray]:
        """What was united so far."""
        return self._left

    @property
    def count(self) -> int:
        return self._count

    def fresh(self, count: int) -> Ids:
        """New slots, each of them on its own."""
        ids = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        return ids

    def unite(self, left: Ids, right: Ids) -> None:
        """Slots that go together, pair by pair; the arrays broadcast."""
        if left is right:
            return
        left, right = np.broadcast_arrays(left, right)
        differs = (left != right).ravel()
        if differs.any():
            self._left.append(left.ravel()[differs])
            self._right.append(right.ravel()[differs])

    def unite_along(self, ids: Ids, axes: Iterable[int]) -> Ids:
        """Slots that go together along some axes of an array; returns the array without these axes."""
        first = ids
        for axis in sorted(axes, reverse=True):
            self.unite(first, first.take([0], axis))
            first = first.take(0, axis)
        return first

    def pin(self, ids: Ids, reason: str) -> None:
        """Slots that cannot go."""
        self._pinned.append((ids.ravel(), reason))

    def roots(self) -> np.ndarray:
        """The class of every slot, named by the smallest slot in it.

        Every round gives each class that has a neighbor with a smaller name the least of these names, and then lets
        every slot look up the name of its class by pointer jumping, so that the number of rounds is logarithmic
        (Shiloach and Vishkin 1982).
        """
        parent = np.arange(self._count, dtype=np.int64)
        if not self._left:
            return parent
        left, right = np.concatenate(self._left), np.concatenate(self._right)
        while True:
            a, b = parent[left], parent[right]
            apart = a != b
            if not apart.any():
                return parent
            left, right, a, b = left[apart], right[apart], a[apart], b[apart]
            np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(parent, higher := parent[parent]):
                parent = higher

    def pins(self) -> Iterable[tuple[Ids, str]]:
        """The slots that cannot go, and why."""
        return self._pinned
