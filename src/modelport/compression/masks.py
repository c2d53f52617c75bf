"""Zeros that pruning has put into weights, which training leaves."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir


def zeros(graph: ir.Model, masked: Collection[str]) -> dict[str, np.ndarray]:
    """For each weight of a graph that has been pruned, whether an element may be other than zero."""
    found = {name: graph.graph.initializers[name].const_value for name in masked if name in graph.graph.initializers}
    return {name: tensor.numpy() != 0 for name, tensor in found.items() if tensor is not None}
