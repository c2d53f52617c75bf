"""`SweepReport` as a picture: quality against bytes, with the Pareto front."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from modelport.core.costs import told
from modelport.core.errors import StepError
from modelport.core.plots.figure import AFTER, BEFORE, GIVEN, figure, plain
from modelport.core.plots.labels import Point, label
from modelport.core.swept import AS_GIVEN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from modelport.core.swept import SweepReport

_WIDTH = 28
"""How many letters a line of a label has."""


def draw(report: SweepReport) -> Figure:
    """Every result and the given model as points, the best quality at every size as a line.

    Raises:
        MissingBackendError: matplotlib is not installed.
        StepError: no recipe has a result.
    """
    picture = figure(7.6, 5.2)
    before = report.before
    if before is None:
        raise StepError("plot: no recipe has a result, so there is nothing to draw: print(report) says why.")
    axes = picture.subplots()
    heights = _heights(axes, [report.quality(None), *(report.quality(row) for row in report.done)])
    points: list[Point] = [(float(before.bytes), heights[0], AS_GIVEN)]
    for row, height in zip(report.done, heights[1:], strict=True):
        name = f"{row.name} ({row.report.latency_ratio:.2f} x)"
        points.append((float(row.report.after.bytes), height, textwrap.fill(name, _WIDTH)))
    line = _draw_points(axes, points, [row.name in report.front for row in report.done])
    axes.set_xlim(0, 1.12 * max(x for x, _, _ in points))
    axes.xaxis.set_major_formatter(lambda value, _: told(round(value), "B"))
    axes.set_xlabel("bytes of the weights")
    axes.set_ylabel("score" if report.scored else "agreement with the given model (SNR, dB)")
    axes.grid(color="#E5E5E5")
    axes.set_axisbelow(True)
    plain(axes)
    picture.suptitle(
        f"sweep on {report.backend}; in brackets: latency, as a multiple of the given model's", fontsize="medium"
    )
    picture.legend(
        loc="outside lower center", ncols=4, columnspacing=1.2, handletextpad=0.4, frameon=False, fontsize="small"
    )
    # The labels are placed by where the points are on the page, which stays so from here on.
    picture.draw_without_rendering()
    picture.set_layout_engine("none")
    label(axes, points, line)
    return picture


def _heights(axes: Axes, qualities: list[float]) -> list[float]:
    """Where each quality is drawn: one that is infinite on a line of its own, beyond all others."""
    finite = [value for value in qualities if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = 0.2 * (high - low) or max(0.1 * abs(high), 0.01)
    ends = {math.inf: high + room, -math.inf: low - room}
    drawn = [ends.get(value, value) for value in qualities]
    axes.set_ylim(min(drawn) - 0.6 * room, max(drawn) + 0.6 * room)
    if set(qualities) & set(ends):
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        odd = [value for value in ends if value in qualities]
        texts = [f"{tick:g}" for tick in ticks] + ["∞" if value > 0 else "-∞" for value in odd]
        axes.set_yticks([*ticks, *(ends[value] for value in odd)], texts)
    return drawn


def _draw_points(axes: Axes, points: list[Point], front: list[bool]) -> list[tuple[float, float]]:
    """Draw the given model, which is the first point, the results, and the line; its corners are returned."""
    stairs: list[tuple[float, float]] = []
    for x, y, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if not stairs:
            stairs = [(x, y)]
        elif y > stairs[-1][1]:
            stairs += [(x, stairs[-1][1]), (x, y)]
    if len(stairs) > 1:
        axes.plot(*zip(*stairs, strict=True), color=AFTER, linewidth=1, label="best at this size")
    kinds = {
        False: ("not on the front", "X", BEFORE),
        True: ("on the front of quality, bytes and latency", "o", AFTER),
    }
    for wanted, (told_as, marker, color) in kinds.items():
        chosen = [point for point, on in zip(points[1:], front, strict=True) if on == wanted]
        if chosen:
            xs, ys = [x for x, _, _ in chosen], [y for _, y, _ in chosen]
            axes.scatter(xs, ys, s=48, marker=marker, color=color, zorder=3, label=told_as)
    axes.scatter(points[0][0], points[0][1], s=120, marker="*", color=GIVEN, zorder=3, label=AS_GIVEN)
    return stairs
