"""EmbeddingBag: the rows of every bag, summed, averaged or compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints

SUM, MEAN, MAX = range(3)
"""torch's numbers for what becomes of a bag."""


def embedding_bag(
    weight: Any, indices: Any, offsets: Any, scale_grad_by_freq: bool = False, mode: int = SUM, sparse: bool = False,
    per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """Bags that lie one behind the other; the bag of an index is the last one that begins before it.

    Args:
        weight: (rows, features).
        indices: all bags' rows.
        offsets: where each bag begins.
        scale_grad_by_freq: how gradients are scaled, which a graph does not say.
        mode: `SUM`, `MEAN` or `MAX`.
        sparse: what gradients are stored in.
        per_sample_weights: a factor for each index.
        include_last_offset: whether the last offset is where all ends.
        padding_idx: the row that is left out.

    Returns:
        (bags, features), and three tensors that torch keeps for its gradient: nothing reads them.
    """
    op, dtype = onnxscript.opset21, weight.dtype
    offsets = op.Cast(offsets, to=ir.DataType.INT64.value)
    places = op.Range(constant(0, ir.DataType.INT64), op.Squeeze(op.Shape(indices)), constant(1, ir.DataType.INT64))
    begun = op.LessOrEqual(offsets, op.Unsqueeze(places, ints(-1)))
    bags = op.Sub(op.ReduceSum(op.Cast(begun, to=ir.DataType.INT64.value), ints(-1)), ints(1))
    rows, counted = _rows(weight, indices, per_sample_weights, mode, padding_idx)
    sizes = op.Concat(op.Shape(offsets), op.Shape(weight, start=1), axis=0)
    if mode == MAX:
        lowest = op.Expand(constant(-float("inf"), dtype), sizes)
        found = op.ScatterND(lowest, bags, rows, reduction="max")
        found = op.Where(op.IsInf(found, detect_positive=0), constant(0.0, dtype), found)
    else:
        found = op.ScatterND(op.Expand(constant(0.0, dtype), sizes), bags, rows, reduction="add")
    if mode == MEAN:
        none = op.Expand(constant([0.0], dtype), op.Concat(op.Shape(offsets), ints(1), axis=0))
        counts = op.ScatterND(none, bags, counted, reduction="add")
        found = op.Div(found, op.Max(counts, constant(1.0, dtype)))
    if include_last_offset:
        found = op.Slice(found, ints(0), ints(-1), ints(0))
    return found, bags, op.Identity(offsets), op.Identity(offsets)


def _rows(weight: Any, indices: Any, factors: Any, mode: int, padding_idx: int | None) -> tuple[Any, Any]:
    """(indices, features) and (indices, 1): the row of every index, and whether it counts."""
    op, dtype = onnxscript.opset21, weight.dtype
    rows = op.Gather(weight, indices, axis=0)
    if factors is not None:
        rows = op.Mul(rows, op.Unsqueeze(factors, ints(-1)))
    column = op.Unsqueeze(indices, ints(-1))
    if padding_idx is None or padding_idx < 0:
        ones = op.Expand(constant(1.0, dtype), op.Shape(column))
        return rows, ones
    padded = op.Equal(column, op.CastLike(constant(padding_idx, ir.DataType.INT64), indices))
    nothing = constant(-float("inf") if mode == MAX else 0.0, dtype)
    return op.Where(padded, nothing, rows), op.Where(padded, constant(0.0, dtype), constant(1.0, dtype))


def keep_bags(node: torch.fx.Node) -> None:
    """Write the bags of a matrix of indices, one bag per row, as an Embedding and a reduction; in place.

    torch lays such bags one behind the other, and says where each begins by their length.
    """
    if not (matrix := _matrix(node)):
        return
    weight, _, _, _, mode, _, factors, _, padding = (*node.args, *[None] * 9)[:9]
    used = [user for user in node.users if user.users]
    if (mode == MAX and padding is not None) or [user.args[1] for user in used] != [0]:
        return
    if factors is not None and (factors := _unrolled(factors)) is None:
        return
    with node.graph.inserting_before(node):
        pooled = _pooled(node, weight, matrix, mode or SUM, factors, padding)
    # The node that takes the result stays, since it may be known as an output of the program.
    used[0].target, used[0].args, used[0].kwargs = pooled.target, pooled.args, pooled.kwargs
    for rest in (pooled, *(user for user in node.users if user is not used[0])):
        node.graph.erase_node(rest)
    node.graph.erase_node(node)


def _matrix(node: torch.fx.Node) -> torch.fx.Node | None:
    """The matrix whose rows are the bags."""
    if node.target not in _BAGS:
        return None
    indices, offsets = node.args[1], node.args[2]
    matrix = _unrolled(indices)
    if matrix is None or offsets.target is not aten.arange.start_step or offsets.args[0] != 0:
        return None
    step = offsets.args[2] if len(offsets.args) > 2 else 1
    return matrix if matrix.meta["val"].shape[1] == step else None


def _unrolled(node: torch.fx.Node) -> torch.fx.Node | None:
    """The matrix that a vector has the rows of."""
    if node.target not in (aten.reshape.default, aten.view.default) or list(node.args[1]) != [-1]:
        return None
    return node.args[0] if node.args[0].meta["val"].ndim == 2 else None


def _pooled(node: torch.fx.Node, weight: Any, matrix: Any, mode: int, factors: Any, padding: int | None) -> Any:
    """The calls that stand for a bag of each row."""

    def call(target: Any, *args: Any, **options: Any) -> torch.fx.Node:
        made = node.graph.call_function(target, args, options)
        given = torch.fx.node.map_arg(args, lambda each: each.meta["val"])
        made.meta = {**node.meta, "val": target(*given, **options)}
        return made

    rows = call(aten.embedding.default, weight, matrix)
    if factors is not None:
        rows = call(aten.mul.Tensor, rows, call(aten.unsqueeze.default, factors, -1))
    if padding is None:
        return call(_REDUCTIONS[mode], rows, [1])
    counted = call(aten.unsqueeze.default, call(aten.ne.Scalar, matrix, padding), -1)
    counted = call(aten.to.dtype, counted, weight.meta["val"].dtype)
    total = call(aten.sum.dim_IntList, call(aten.mul.Tensor, rows, counted), [1])
    if mode == SUM:
        return total
    return call(aten.div.Tensor, total, call(aten.clamp.default, call(aten.sum.dim_IntList, counted, [1]), 1))


aten = torch.ops.aten
_REDUCTIONS = {SUM: aten.sum.dim_IntList, MEAN: aten.mean.dim, MAX: aten.amax.default}
_BAGS = (aten.embedding_bag.default, aten.embedding_bag.padding_idx)

TRANSLATIONS: dict[Any, Callable[..., Any]] = dict.fromkeys(
    (*_BAGS, aten._embedding_bag.default, aten._embedding_bag_forward_only.default), embedding_bag
)
"""What `torch.onnx.export` needs to know."""
