"""Convolutions whose number of groups follows from the input, as products of matrices: ONNX has a fixed number only.

A network that computes a kernel for each example (CondConv, dynamic convolution) puts the batch into the channels and
convolves with as many groups as there are examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, ints

DOMAIN = "modelport"

_LIBRARY = torch.library.Library(DOMAIN, "FRAGMENT")
_LIBRARY.define(
    "grouped_convolution(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] pads, int[] dilation, "
    "int filters) -> Tensor"
)


def _fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int],
    filters: int,
) -> torch.Tensor:
    kernel = weight.shape[2:]
    return x.new_empty((x.shape[0], weight.shape[0], *_lengths(x.shape[2:], kernel, stride, pads, dilation)))


torch.library.register_fake(f"{DOMAIN}::grouped_convolution", _fake, lib=_LIBRARY)


def _lengths(
    sizes: Sequence[Any], kernel: Sequence[int], stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int]
) -> list[Any]:
    """The sizes of what a convolution gives; `pads` has all begins, then all ends."""
    ends = pads[len(kernel) :]
    settings = zip(sizes, kernel, stride, pads, ends, dilation, strict=False)
    return [(n + begin + end - d * (k - 1) - 1) // step + 1 for n, k, step, begin, end, d in settings]


def keep_groups(node: torch.fx.Node) -> None:
    """Give a convolution whose number of groups is not fixed an operator that crosses; in place.

    What a group takes and gives has to be fixed: a kernel of unknown size is left as it is, and so is a transposed
    convolution.
    """
    if node.target not in _CONVOLUTIONS:
        return
    names = [argument.name for argument in node.target._schema.arguments]
    defaults = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    given = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    groups = given["groups"]
    if not isinstance(groups, torch.fx.Node) or given.get("transposed"):
        return
    outputs, *kernel = given["weight"].meta["val"].shape
    filters = _fixed(outputs // groups.meta["val"])
    if filters is None or not all(isinstance(size, int) for size in kernel):
        return
    rank = len(kernel) - 1
    stride, dilation = (_per_axis(given[key], rank) for key in ("stride", "dilation"))
    pads = _pads(given["padding"], kernel[1:], dilation)
    node.args = (given["input"], given["weight"], given["bias"], stride, pads, dilation, filters)
    node.target, node.kwargs = torch.ops.modelport.grouped_convolution.default, {}


_CONVOLUTIONS = {
    getattr(getattr(torch.ops.aten, f"conv{rank}d"), overload)
    for rank in (1, 2, 3)
    for overload in ("default", "padding")
} | {torch.ops.aten.convolution.default}


def _fixed(size: Any) -> int | None:
    """A size as a number where its expression is one."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _per_axis(numbers: Sequence[int], rank: int) -> list[int]:
    return list(numbers) if len(numbers) == rank else list(numbers) * rank


def _pads(padding: str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """All begins, then all ends; torch pads an odd number for `"same"` by one more at the end."""
    if not isinstance(padding, str):
        return _per_axis(padding, len(kernel)) * 2
    total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return [n // 2 for n in total] + [n - n // 2 for n in total]


def translate(
    x: Any, weight: Any, bias: Any, stride: Sequence[int], pads: Sequence[int], dilation: Sequence[int], filters: int
) -> Any:
    """The ONNX form: the windows of every group as columns, multiplied by its kernels as rows."""
    op = onnxscript.opset21
    channels, *kernel = weight.shape[1:]
    rows = channels * math.prod(kernel)
    sizes = list(x.shape[2:])
    known = all(isinstance(size, int) for size in sizes)
    batch = x.shape[0] if isinstance(x.shape[0], int) else op.Shape(x, start=0, end=1)
    columns = op.Reshape(x, _joined(-1, channels, *(sizes if known else [op.Shape(x, start=2)])))
    if rows > channels or any(pads) or any(step > 1 for step in stride):
        taps = _taps(channels, kernel, x.dtype)
        columns = op.Conv(columns, taps, group=channels, strides=stride, pads=pads, dilations=dilation)
    lengths = _lengths(sizes, kernel, stride, pads, dilation) if known else [op.Shape(columns, start=2)]
    pixels = math.prod(lengths) if known else op.ReduceProd(lengths[0], keepdims=1)
    columns = op.Reshape(columns, _joined(batch, -1, rows, pixels))
    product = op.MatMul(op.Reshape(weight, _joined(-1, filters, rows)), columns)
    result = op.Reshape(product, _joined(batch, -1, *lengths))
    return result if bias is None else op.Add(result, op.Reshape(bias, _joined(-1, *[1] * len(kernel))))


def _taps(channels: int, kernel: Sequence[int], dtype: ir.DataType) -> Any:
    """Kernels of a depthwise convolution that give every element of a window as a channel of its own."""
    count = math.prod(kernel)
    one_each = np.tile(np.eye(count), (channels, 1)).reshape(channels * count, 1, *kernel)
    return constant(one_each, dtype)


def _joined(*parts: Any) -> Any:
    """A shape of numbers and of vectors that the run computes."""
    if all(isinstance(part, int) for part in parts):
        return ints(*parts)
    return onnxscript.opset21.Concat(*(ints(p) if isinstance(p, int) else p for p in parts), axis=0)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {torch.ops.modelport.grouped_convolution.default: translate}
"""What `torch.onnx.export` needs to know."""
