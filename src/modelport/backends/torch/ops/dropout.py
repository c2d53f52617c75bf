"""Dropout, of single elements and of whole slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from modelport.backends.torch.layers import short
from modelport.backends.torch.operands import Operands, identifier
from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Scalar, Tensor
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.names import scoped
from modelport.graph.splice import BUILD_DOMAIN


@op("Dropout")
def dropout(
    x: Tensor,
    ratio: Scalar = 0.5,
    training_mode: Scalar = False,
    *,
    seed: int | None = None,
    node: ir.Node,
    operands: Operands,
) -> Any:
    if isinstance(training_mode, Tensor) or training_mode:
        return _drop_as_told(x, ratio, training_mode)
    if isinstance(ratio, Tensor):
        operands.note("dropped", node, "its ratio is computed by the model; it drops nothing when the module trains")
        y: Any = x.clone()
    else:
        y = operands.call(dropout_path(node, nn.Dropout(short(ratio)), operands), x)
    masked = len(node.outputs) > 1 and bool(node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return (y, torch.ones_like(x, dtype=torch.bool)) if masked else y


_CHANNELS = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
"""By rank: what drops whole channels, which are the second axis."""


@op(SPATIAL_DROPOUT, domain=BUILD_DOMAIN)
def spatial_dropout(x: Tensor, ratio: Scalar = 0.5, *, axes: Sequence[int], node: ir.Node, operands: Operands) -> Any:
    assert not isinstance(ratio, Tensor)
    kept = [axis for axis in range(x.rank) if axis not in axes]
    if len(kept) == 2 and x.rank in _CHANNELS:
        order = [*kept, *axes]
        y = x if order == sorted(order) else torch.permute(x, order)
        y = operands.call(dropout_path(node, _CHANNELS[x.rank](short(ratio)), operands), y)
        return y if order == sorted(order) else torch.permute(y, [order.index(axis) for axis in range(x.rank)])
    slices: Any = x
    for axis in axes:
        slices = torch.ops.aten.slice.Tensor(slices, axis, 0, 1)
    return x * operands.call(dropout_path(node, nn.Dropout(short(ratio)), operands), torch.ones_like(slices))


def _drop_as_told(x: Tensor, ratio: Any, training: Any) -> tuple[Any, Any]:
    """Dropout whose mode is a value of the graph, so that the module's own mode has no say."""
    kept = torch.rand_like(x) >= ratio
    dropped = torch.where(kept, x / (1 - ratio), torch.zeros_like(x))
    if not isinstance(training, Tensor):
        return dropped, kept
    return torch.where(training, dropped, x), torch.logical_or(kept, torch.logical_not(training))


def dropout_path(node: ir.Node, layer: nn.modules.dropout._DropoutNd, operands: Operands) -> str:
    """Where a Dropout goes: where its node's name says, or as `dropout` beside an operator that drops on its way."""
    path = scoped(node.name or "dropout")
    if node.op_type not in ("Dropout", SPATIAL_DROPOUT):
        path = f"{path.rpartition('.')[0]}.dropout".lstrip(".")
    path = ".".join(identifier(part) if not part.isdigit() else part for part in path.split("."))
    placed = operands.weights.root.get_submodule(path) if operands.weights.has(path) else None
    if isinstance(placed, type(layer)) and placed.p == layer.p:
        return path
    path = operands.weights.free(path) if operands.weights.is_free(path) else operands.weights.free(f"{path}.dropout")
    operands.weights.add(path, layer)
    return path
