"""Adaptive pooling as ordinary operators: torch's decomposition gathers by two axes at once, and lacks the maximum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints

DOMAIN = "modelport"
KINDS = {"adaptive_avg_pool": "mean", "adaptive_max_pool": "max"}
"""The start of the names of torch's operators, and which of the two the kind is."""

_LIBRARY = torch.library.Library(DOMAIN, "FRAGMENT")
_LIBRARY.define("adaptive_pool(Tensor x, int[] output, str kind) -> Tensor")
torch.library.register_fake(
    f"{DOMAIN}::adaptive_pool",
    lambda x, output, kind: x.new_empty((*x.shape[: -len(output)], *output)),
    lib=_LIBRARY,
)


def keep_pooling(node: torch.fx.Node) -> None:
    """Give an adaptive pooling of fixed sizes an operator that crosses; in place.

    Over all of the image, or over equal parts of it, it is a plain one; a maximum of which the indices are read, and
    sizes that are not fixed, are left as they are.
    """
    kind = next((k for start, k in KINDS.items() if node.target._schema.name.startswith(f"aten::{start}")), None)
    if kind is None or not (value := _value(node, kind)):
        return
    x, output = node.args
    rank, sizes = len(output), x.meta["val"].shape[-len(output) :]
    fixed = all(isinstance(n, int) and isinstance(size, int) for n, size in zip(sizes, output, strict=True))
    if all(size == 1 for size in output):
        plain = torch.ops.aten.mean.dim if kind == "mean" else torch.ops.aten.amax.default
        _become(value, plain, (x, list(range(-rank, 0)), True))
    elif fixed and kind == "mean" and all(n % size == 0 for n, size in zip(sizes, output, strict=True)):
        kernel = [n // size for n, size in zip(sizes, output, strict=True)]
        _become(value, getattr(torch.ops.aten, f"avg_pool{rank}d").default, (x, kernel, kernel))
    elif fixed:
        _become(value, torch.ops.modelport.adaptive_pool.default, (x, list(output), kind))
    if not node.users and value is not node:
        node.graph.erase_node(node)


def _value(node: torch.fx.Node, kind: str) -> torch.fx.Node | None:
    """The node that stands for the pooled values; `None` where the places of the maxima are read."""
    if kind == "mean":
        return node
    for user in list(node.users):
        if not user.users:
            node.graph.erase_node(user)
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].args[1:] == (0,) else None


def _become(node: torch.fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    """Make a node another call."""
    node.target, node.args, node.kwargs = target, args, {}


def windows(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the windows of an adaptive pooling are along one axis.

    Returns:
        (count, longest) indices, a short window repeating its first one, and (count, longest) weights that make the
        mean of a window of the sum.
    """
    starts = [i * size // count for i in range(count)]
    lengths = [-(-(i + 1) * size // count) - start for i, start in enumerate(starts)]
    steps = np.arange(max(lengths))
    inside = steps < np.array(lengths)[:, None]
    return np.array(starts)[:, None] + np.where(inside, steps, 0), inside / np.array(lengths)[:, None]


def adaptive_pool(x: Any, output: list[int], kind: str) -> Any:
    """The ONNX form: windows are gathered along one axis after the other."""
    # What a translation computes has no shape or dtype yet.
    sizes, dtype, rank = list(x.shape), x.dtype, len(x.shape)
    for axis, count in zip(range(rank - len(output), rank), output, strict=True):
        if sizes[axis] != count:
            x = _pooled(x, axis, rank - axis - 1, *windows(sizes[axis], count), kind, dtype)
    return x


def _pooled(
    x: Any, axis: int, behind: int, indices: np.ndarray, weights: np.ndarray, kind: str, dtype: ir.DataType
) -> Any:
    """One axis, with that many behind it, reduced to its windows."""
    op = onnxscript.opset21
    if indices.shape[1] == 1:
        return op.Gather(x, ints(*indices[:, 0]), axis=axis)
    gathered = op.Gather(x, constant(indices, ir.DataType.INT64), axis=axis)
    axes = ints(axis + 1)
    if kind == "max":
        return op.ReduceMax(gathered, axes, keepdims=0)
    if (weights == weights[0, 0]).all():
        return op.ReduceMean(gathered, axes, keepdims=0)
    factors = weights.reshape(*weights.shape, *[1] * behind)
    return op.ReduceSum(op.Mul(gathered, constant(factors, dtype)), axes, keepdims=0)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {torch.ops.modelport.adaptive_pool.default: adaptive_pool}
"""What `torch.onnx.export` needs to know."""
