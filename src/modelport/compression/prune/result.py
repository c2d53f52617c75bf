"""What `prune` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class PrunedLayer:
    """What was taken from one layer.

    Attributes:
        layer: the portable name of the weight.
        before: how many weights that are not zero, or output channels, it had.
        after: how many of them are left.
        unit: what is counted: `"weights"` or `"channels"` (of heads and neurons: all the channels that they stand for).
    """

    layer: str
    before: int
    after: int
    unit: Literal["weights", "channels"]


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A layer that stayed as it is.

    Attributes:
        layer: the portable name of its weight.
        reason: why nothing was taken from it, with the node that is in the way.
    """

    layer: str
    reason: str


@dataclass(frozen=True)
class Pruned:
    """What `prune` made of a graph.

    Attributes:
        graph: the new graph.
        layers: what was taken, a row per layer, in the order of the graph.
        left: the layers that stayed as they are, with the reason.
    """

    graph: ir.Model
    layers: tuple[PrunedLayer, ...]
    left: tuple[LeftAlone, ...] = ()
