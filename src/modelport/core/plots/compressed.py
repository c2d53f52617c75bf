"""`CompressReport` as a picture: one panel per figure, before beside after."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from modelport.core.costs import told
from modelport.core.plots.figure import AFTER, BEFORE, figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from modelport.core.compressed import Agreement, CompressReport

_OUTPUTS = 6
"""How many outputs are shown, those that agree least first."""


def draw(report: CompressReport) -> Figure:
    """Bytes, latency, score and agreement.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    before, after = report.before, report.after
    scored = before.score is not None and after.score is not None
    agreed = sorted(report.agreement, key=lambda row: row.snr_db)[:_OUTPUTS]
    picture = figure(2.6 * (2 + scored) + (2.6 + 0.4 * len(agreed) if agreed else 0), 3.8)
    panels = iter(picture.subplots(1, 2 + scored + bool(agreed), squeeze=False)[0])

    sizes = (before.bytes, after.bytes)
    _pair(
        next(panels), f"bytes: {after.bytes / max(before.bytes, 1):.3f} x", sizes, [told(size, "B") for size in sizes]
    )
    slower = " (slower)" if report.slower else ""
    times = [f"{each.median_ms:.3g} ms\np95 {each.p95_ms:.3g} ms" for each in (before, after)]
    _pair(next(panels), f"latency: {report.latency_ratio:.2f} x{slower}", (before.median_ms, after.median_ms), times)
    if before.score is not None and after.score is not None:
        scores = (before.score, after.score)
        _pair(next(panels), f"score: {after.score - before.score:+.4f}", scores, [f"{score:.4f}" for score in scores])
    if agreed:
        _agreement(next(panels), agreed)
    picture.suptitle(
        textwrap.fill(f"{' -> '.join(report.steps)} on {report.backend}", 32 * len(picture.axes)), fontsize="medium"
    )
    return picture


def _pair(axes: Axes, title: str, values: tuple[float, float], texts: list[str]) -> None:
    """Two bars with what they say on top."""
    tops = [value if math.isfinite(value) else 0.0 for value in values]
    axes.bar(["before", "after"], tops, color=[BEFORE, AFTER], width=0.6)
    for place, (top, text) in enumerate(zip(tops, texts, strict=True)):
        above = top >= 0
        axes.annotate(
            text, (place, top), (0, 3 if above else -3), textcoords="offset points",
            ha="center", va="bottom" if above else "top",
        )  # fmt: skip
    _bare(axes, title)


def _agreement(axes: Axes, rows: list[Agreement]) -> None:
    """One bar per output; one that did not change at all, or has more noise than signal, has none."""
    heights = [max(row.snr_db, 0.0) if math.isfinite(row.snr_db) else 0.0 for row in rows]
    axes.bar(range(len(rows)), heights, color=AFTER, width=0.6)
    for place, (row, height) in enumerate(zip(rows, heights, strict=True)):
        text = "the same" if row.snr_db == math.inf else f"{row.snr_db:.1f} dB"
        same = "" if row.top1 is None else f"\ntop-1 {row.top1:.1%}"
        axes.annotate(text + same, (place, height), (0, 3), textcoords="offset points", ha="center", va="bottom")
    names = [textwrap.shorten(row.output, 14, placeholder="…") for row in rows]
    axes.set_xticks(
        range(len(rows)), names, rotation=0 if len(rows) < 3 else 30, ha="center" if len(rows) < 3 else "right"
    )
    axes.set_xlim(-0.8, len(rows) - 0.2)
    axes.set_ylim(0, 1.25 * max([*heights, 1.0]))
    _bare(axes, "agreement of the outputs (SNR)")


def _bare(axes: Axes, title: str) -> None:
    """A title, room for what stands on the bars, and no scale: the bars say their numbers."""
    axes.set_title(title, fontsize="medium")
    axes.margins(y=0.25)
    axes.set_yticks([])
    plain(axes)
    axes.spines["left"].set_visible(False)
