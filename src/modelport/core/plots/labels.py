"""Names beside points, so that none lies on another name or on a point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTANCES = (8, 16, 26, 38, 52, 68, 86, 106)
"""How far the edge of a label may be from its point, in points (1/72 inch)."""

_BESIDE = 12
"""A label that is farther away has a line to its point."""

_DIRECTIONS = (0, 45, -45, 90, -90, 135, -135, 180)
"""Degrees from the right; the first that is free is taken."""

_ROOM = 5
"""Half the side of the square around a point that labels leave free, in points."""

Point = tuple[float, float, str]
"""x, y and name."""

_Dot = tuple[float, float]
_AIR = 2
"""What stays free around a label, in points."""

_Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def label(axes: Axes, points: Sequence[Point], line: Sequence[tuple[float, float]] = ()) -> None:
    """Write a name at every point: beside it where that is free, else farther away with a line to it.

    Points that lie on one another have one label, a line of it for each. The axes have to be laid out, and keep their
    place and their limits from here on.

    Args:
        axes: where the points are drawn.
        points: x, y and name, in the units of the axes.
        line: the corners of a line of level and upright parts that labels shall not lie on.
    """
    from matplotlib.patheffects import withStroke

    groups = _groups(axes, points)
    dots = [_in_points(axes, x, y) for x, y, _ in groups]
    corners = [_in_points(axes, x, y) for x, y in line]
    taken = [_around(min(a, c), min(b, d), max(a, c), max(b, d), 1) for (a, b), (c, d) in pairwise(corners)]
    taken += [_around(x, y, x, y, _ROOM) for x, y in dots]
    room = _room(axes)
    for (x, y, name), dot in zip(groups, dots, strict=True):
        width, height = _size(axes, name)
        others = [other for other in dots if other is not dot]
        best = min(
            _shifts(width, height),
            # The first that is free, and where none is, the first that lies on least.
            key=lambda shift: _cost(_box(dot, shift, width, height), dot, others, taken, room),
        )
        taken.append(_box(dot, best, width, height))
        far = _gap(taken[-1], dot) > _BESIDE
        axes.annotate(
            name, (x, y), best, textcoords="offset points", ha="center", va="center", fontsize="small",
            arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.7, "shrinkB": 4} if far else None,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def _groups(axes: Axes, points: Sequence[Point]) -> list[Point]:
    """The points, those that lie on an earlier one with it."""
    found: list[tuple[tuple[float, float], Point]] = []
    for x, y, name in points:
        dot = _in_points(axes, x, y)
        for index, (other, (first, second, names)) in enumerate(found):
            if math.dist(dot, other) < _ROOM:
                found[index] = (other, (first, second, f"{names}\n{name}"))
                break
        else:
            found.append((dot, (x, y, name)))
    return [point for _, point in found]


def _shifts(width: float, height: float) -> Iterator[tuple[float, float]]:
    """From a point to the middle of its label, the nearest first."""
    for distance in _DISTANCES:
        for angle in _DIRECTIONS:
            right, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield _away(right, distance, width), _away(up, distance, height)


def _away(part: float, distance: float, size: float) -> float:
    return 0.0 if abs(part) < 1e-9 else math.copysign(abs(part) * distance + size / 2, part)


def _box(dot: _Dot, shift: tuple[float, float], width: float, height: float) -> _Box:
    x, y = dot[0] + shift[0], dot[1] + shift[1]
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _around(left: float, bottom: float, right: float, top: float, room: float) -> _Box:
    return (left - room, bottom - room, right + room, top + room)


def _cost(box: _Box, dot: _Dot, others: Sequence[_Dot], taken: Sequence[_Box], room: _Box) -> float:
    """The area of a box that lies on others, and all of it where it leaves the room or seems to name another dot."""
    whole = (box[2] - box[0]) * (box[3] - box[1])
    outside = whole - _common(box, room) > 1e-6
    misread = _gap(box, dot) <= _BESIDE and any(_gap(box, other) <= _gap(box, dot) for other in others)
    return sum(_common(box, other) for other in taken) + whole * outside + whole * misread


def _gap(box: _Box, dot: _Dot) -> float:
    """How far a dot is from a box."""
    across = max(box[0] - dot[0], dot[0] - box[2], 0.0)
    up = max(box[1] - dot[1], dot[1] - box[3], 0.0)
    return math.hypot(across, up)


def _common(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _scale(axes: Axes) -> float:
    """Pixels per point."""
    root = axes.get_figure(root=True)
    assert root is not None
    return root.dpi / 72


def _in_points(axes: Axes, x: float, y: float) -> _Dot:
    across, up = axes.transData.transform((x, y)) / _scale(axes)
    return float(across), float(up)


def _room(axes: Axes) -> _Box:
    left, bottom, right, top = (side / _scale(axes) for side in axes.bbox.extents)
    return (float(left), float(bottom), float(right), float(top))


def _size(axes: Axes, name: str) -> tuple[float, float]:
    """Width and height of a text with some air around it, in points."""
    text = axes.text(0, 0, name, fontsize="small")
    extent = text.get_window_extent()
    text.remove()
    return extent.width / _scale(axes) + 2 * _AIR, extent.height / _scale(axes) + 2 * _AIR
