"""What a step hands on."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir


@dataclass(frozen=True)
class Outcome:
    """A graph that a step has made, and what it says of it.

    Attributes:
        graph: the new graph; the one that went in is as it was.
        alone: why a layer that the step is about stays as it was, by node name.
    """

    graph: ir.Model
    alone: dict[str, str] = field(default_factory=dict)
