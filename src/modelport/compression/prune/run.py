"""`Prune` as a step of `compress`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from modelport.compression.outcome import Outcome
from modelport.compression.prune import prune
from modelport.core.steps import Prune


def pruned(graph: ir.Model, step: Prune, gradients: Mapping[str, np.ndarray] | None) -> Outcome:
    """The graph with less in it; what became zero stays so where it is trained on. See `prune`."""
    found = prune(graph, step, gradients)
    masked = () if step.structured else tuple(row.layer for row in found.layers)
    return Outcome(found.graph, {each.layer: each.reason for each in found.left}, masked=masked)
