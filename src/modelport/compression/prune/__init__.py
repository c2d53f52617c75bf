"""Pruning: a portable graph in, a portable graph with less in it out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from modelport.compression.prune.importance import Importance
from modelport.compression.prune.magnitude import prune_weights
from modelport.compression.prune.result import LeftAlone, Pruned, PrunedLayer
from modelport.compression.prune.structured import prune_channels
from modelport.core.steps import Prune

__all__ = ["LeftAlone", "Pruned", "PrunedLayer", "prune"]


def prune(graph: ir.Model, step: Prune, gradients: Mapping[str, np.ndarray] | None = None) -> Pruned:
    """Take from a graph what matters least.

    Unstructured, single weights become zero (see `magnitude.prune_weights`). With `structured=True` whole channels,
    heads and neurons leave the graph with everything that depends on them: channels that go only together (residual
    sums, depthwise and grouped convolutions, all numbers of an attention head, all gates of a hidden unit) are one
    candidate, whose importance is the sum over all the slices of weights that go with it. `scope="layer"` takes the
    ratio of every group of candidates of the same layers. `scope="global"` takes it of all candidates together, where
    the scores of each group are divided by their mean. A tenth of every group stays, and one candidate at least; a
    group of 32 and more keeps a multiple of 8, on which matrix kernels are fast, so its share is the ratio only nearly.
    The inputs and outputs of the graph keep their shapes.

    Args:
        graph: a portable graph; it stays as it is.
        step: what to take.
        gradients: of the loss, by the portable name of the weight, float arrays of the weights' shapes; needed for
            `importance="taylor"`.

    Returns:
        The new graph, a row for each layer that was pruned, and the layers that were left alone with the reason.
        A structured result keeps its opset; functions are inlined in it and constants folded.

    Raises:
        StepError: nothing in the graph can be pruned, `exclude` has a name that nothing has, or there are no gradients
            for `"taylor"`.
        DataError: a gradient does not fit its weight, or is not finite.

    Example:
        >>> smaller = prune(graph, Prune(0.5, structured=True)).graph    # doctest: +SKIP
    """
    importance = Importance(step, gradients)
    return prune_channels(graph, step, importance) if step.structured else prune_weights(graph, step, importance)
