"""What a step hands on."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from modelport.core.report import Note
from modelport.core.training import Epoch


@dataclass(frozen=True)
class Outcome:
    """A graph that a step has made, and what it says of it.

    Attributes:
        graph: the new graph; the one that went in is as it was.
        alone: why a layer that the step is about stays as it was, by node name.
        masked: the portable names of weights whose zeros shall stay.
        epochs: how training went.
        layers: the names of the nodes, one for each weight, whose weights `Quantize` has changed.
        notes: what did not go as it was asked for, or does not go on as it was.
    """

    graph: ir.Model
    alone: dict[str, str] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    layers: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
