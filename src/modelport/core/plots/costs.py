"""`ProfileReport` as a picture: what the dearest layers compute and hold."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from modelport.core.costs import told
from modelport.core.plots.figure import AFTER, GIVEN, figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from modelport.core.costs import LayerCost, ProfileReport

_SHOWN = 20
"""How many layers have a bar, the dearest first."""


def draw(report: ProfileReport) -> Figure:
    """FLOPs and bytes of each layer, as bars.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    layers = sorted(report.layers, key=lambda layer: (layer.flops, layer.bytes))[-_SHOWN:]
    picture = figure(8.4, 1.6 + 0.26 * max(len(layers), 3))
    left, right = picture.subplots(1, 2, sharey=True)
    _bars(left, f"FLOPs of a run: {told(report.flops)}", layers, [layer.flops for layer in layers], "", AFTER)
    _bars(right, f"weights: {told(report.bytes, 'B')}", layers, [layer.bytes for layer in layers], "B", GIVEN)
    names = [textwrap.shorten(layer.name, 40, placeholder="…") for layer in layers]
    left.set_yticks(range(len(layers)), names)
    hidden = len(report.layers) - len(layers)
    more = f", {hidden} more layers not shown" if hidden else ""
    picture.suptitle(
        f"profile on {report.backend}: {report.latency_ms:.3g} ms (p95 {report.latency_p95_ms:.3g} ms){more}",
        fontsize="medium",
    )
    return picture


def _bars(axes: Axes, title: str, layers: list[LayerCost], values: list[int], unit: str, color: str) -> None:
    axes.barh(range(len(layers)), values, color=color, height=0.7)
    for place, value in enumerate(values):
        axes.annotate(
            told(value, unit), (value, place), (3, 0), textcoords="offset points", va="center", fontsize="small"
        )
    axes.set_title(title, fontsize="medium")
    axes.set_xlim(0, 1.2 * max([*values, 1]))
    axes.set_xticks([])
    plain(axes)
    axes.spines["bottom"].set_visible(False)
