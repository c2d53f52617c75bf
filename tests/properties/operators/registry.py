"""The table of what may be drawn: functions that add one operator, or a few that belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.properties.drawing import Scope

Operator = Callable[[Scope], object]


@dataclass(frozen=True)
class Entry:
    """One function of the table.

    Attributes:
        since: the first opset with the operator.
        until: the last one.
        outermost: whether it stays out of subgraphs.
    """

    function: Operator
    since: int
    until: int
    outermost: bool


TABLE: list[Entry] = []


def operator(
    since: int = 1, *, until: int = 1000, weight: int = 1, outermost: bool = False
) -> Callable[[Operator], Operator]:
    """Enter a function into the table, several times where it stands for many operators."""

    def register(function: Operator) -> Operator:
        TABLE.extend([Entry(function, since, until, outermost)] * weight)
        return function

    return register
