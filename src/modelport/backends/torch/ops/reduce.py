"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch

from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Sizes, Tensor

Reduction = Callable[[Any, list[int], bool], Any]


def _same(x: Any) -> Any:
    return x


def _reduction(
    name: str,
    function: Reduction,
    before: Callable[[Any], Any] = _same,
    empty: Any = None,
    after: Callable[[Any], Any] | None = None,
) -> None:
    """Register a reduction.

    Args:
        name: the operator.
        function: takes a tensor, the axes and whether to keep them.
        before: what is applied to the elements first; also where no axis is reduced.
        empty: the value over no elements, where torch has none.
        after: what is applied to the result, which is no integer in between.
    """

    def reduced(x: Tensor, values: Any, axes: list[int], keepdims: bool) -> Any:
        exact = x.element.is_floating_point or x.element.is_complex
        y = function(values, axes, keepdims)
        if after is not None:
            y = after(y if exact else y.to(torch.float64))
        return y if exact else y.to(x.element)

    @op(name)
    def apply(
        x: Tensor, axes: Sizes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, node: ir.Node
    ) -> Any:
        chosen = [axis % x.rank for axis in axes] if axes and _plain(axes) else axes or list(range(x.rank))
        if not chosen or (not axes and noop_with_empty_axes):
            return reduced(x, before(x).unsqueeze(0), [0], False)
        if empty is not None and 0 in x.dims:
            shape = node.outputs[0].shape
            if shape is None or not shape.is_static():
                raise CannotBuild("it reduces an empty axis and the shape of its output is not known")
            return x.new_full(tuple(int(dim) for dim in shape), empty(x.element))
        return reduced(x, before(x), chosen, bool(keepdims))


def _plain(axes: list[Any]) -> bool:
    return all(isinstance(axis, int) for axis in axes)


def _sum(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.sum(x, axes, keepdim=keepdims)


def _prod(x: Any, axes: list[int], keepdims: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keepdims)
    return x


def _mean(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.mean(x, axes, keepdim=keepdims)


def _wide(x: Any) -> Any:
    """Numbers that have a mean: torch takes none of integers."""
    floating = x.element.is_floating_point or x.element.is_complex
    return x if floating else x.to(torch.float64)


def _max(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.amax(x, axes, keepdim=keepdims)


def _min(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.amin(x, axes, keepdim=keepdims)


def _lowest(dtype: torch.dtype) -> Any:
    if dtype == torch.bool:
        return False
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> Any:
    if dtype == torch.bool:
        return True
    return math.inf if dtype.is_floating_point else torch.iinfo(dtype).max


def _logsumexp(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.logsumexp(x, axes, keepdim=keepdims)


_reduction("ReduceSum", _sum)
_reduction("ReduceProd", _prod)
_reduction("ReduceMean", _mean, _wide)
_reduction("ReduceMax", _max, empty=_lowest)
_reduction("ReduceMin", _min, empty=_highest)
_reduction("ReduceL1", _sum, torch.abs)
_reduction("ReduceL2", _sum, torch.square, after=torch.sqrt)
_reduction("ReduceSumSquare", _sum, torch.square)
_reduction("ReduceLogSum", _sum, after=torch.log)
_reduction("ReduceLogSumExp", _logsumexp, _wide)


def _arg(x: Tensor, axis: int, keepdims: int, select_last_index: int, function: Any) -> Any:
    if not select_last_index:
        return function(x, axis, keepdim=bool(keepdims))
    return x.size_of(axis) - 1 - function(torch.flip(x, [axis]), axis, keepdim=bool(keepdims))


@op("ArgMax")
def argmax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return _arg(x, axis, keepdims, select_last_index, torch.argmax)


@op("ArgMin")
def argmin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    return _arg(x, axis, keepdims, select_last_index, torch.argmin)
