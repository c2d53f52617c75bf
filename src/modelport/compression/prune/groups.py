"""Which channels go: groups of channels of the same layers, compared with each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FLOOR = 0.1
"""The share of a group that always stays."""

MULTIPLES = ((64, 16), (24, 8))
"""From how many channels on a group keep a multiple of how many: the widths of vector registers."""


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that lie in the same layers, so that they stand for each other.

    Attributes:
        members: what goes together, by the name of its class.
        scores: the importance of each.
    """

    members: np.ndarray
    scores: np.ndarray

    def least(self, count: int) -> np.ndarray:
        """The members that matter least, the first ones among equals."""
        return self.members[np.argsort(self.scores, kind="stable")[:count]]

    def normalized(self) -> np.ndarray:
        """The scores by their mean, which makes them comparable between groups (Fang et al. 2023, section 3.3)."""
        mean = self.scores.mean()
        return self.scores / mean if mean > 0 else self.scores


def _floor(size: int) -> int:
    return max(1, math.ceil(FLOOR * size))


def kept(size: int, wanted: float) -> int:
    """How many of a group stay, where so many are wanted: never none, and in wide groups what fills registers."""
    step = next((step for width, step in MULTIPLES if size >= width), 1)
    return min(size, max(_floor(size), round(wanted / step) * step))


def choose(groups: list[Group], ratio: float, scope: str) -> np.ndarray:
    """The members that go.

    Args:
        groups: of one graph.
        ratio: the share that goes, of each group or of all members together.
        scope: `"layer"` or `"global"`.
    """
    if scope == "layer":
        stay = [(1 - ratio) * len(group.members) for group in groups]
    else:
        every = np.concatenate([group.normalized() for group in groups])
        owner = np.repeat(np.arange(len(groups)), [len(group.members) for group in groups])
        order = owner[np.argsort(every, kind="stable")]
        stay = _stay(order, [len(group.members) for group in groups], round(ratio * len(every)))
    gone = [
        group.least(len(group.members) - kept(len(group.members), count))
        for group, count in zip(groups, stay, strict=True)
    ]
    return np.concatenate(gone)


def _stay(order: np.ndarray, sizes: list[int], count: int) -> list[float]:
    """How many of each group stay where the least important of all go, down to the floor of each group."""
    stay = list(sizes)
    floors = [_floor(size) for size in sizes]
    for owner in order.tolist():
        if not count:
            break
        if stay[owner] > floors[owner]:
            stay[owner] -= 1
            count -= 1
    return [float(number) for number in stay]
