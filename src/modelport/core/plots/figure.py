"""What every picture starts with: an empty figure, and colors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelport.core.errors import MissingBackendError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE = "#999999"
AFTER = "#0072B2"
GIVEN = "#D55E00"
"""Gray, blue and vermilion are told apart with every kind of color vision (Okabe and Ito 2008, *Color Universal
Design*), and in print by their lightness."""


def figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to nobody: pyplot's list of figures and its backend stay as they are.

    Args:
        width: in inches.
        height: in inches.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingBackendError(
            'a picture needs matplotlib, which is not installed: pip install "modelport[plot]"'
        ) from error
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def plain(axes: Axes) -> None:
    """Axes without the frame that says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
