"""Operators whose weights are a layer's: they become `torch.nn` modules where the weights' names fit one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import nn

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.operands import Operands
from modelport.backends.torch.padding import Window, crop_or_pad_output, pad_input
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Constant, Operand, Tensor, Weight, WeightRef

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE_NORM = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
F_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
F_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _dims(operand: Operand) -> tuple[int | None, ...]:
    """The static sizes of a weight, however it is given."""
    if isinstance(operand, WeightRef):
        return operand.dims
    if isinstance(operand, Constant):
        return operand.array.shape
    return cast(Tensor, operand).dims


def _sizes(operand: Operand) -> tuple[int, ...]:
    """As `_dims`, for a weight that has to have a static shape."""
    dims = _dims(operand)
    if None in dims:
        raise CannotBuild(f"its weight has the shape {dims}; give it a static one")
    return cast(tuple[int, ...], dims)


def _is_all(operand: Operand | None, number: float) -> bool:
    """Whether an operand is a constant of one value, which a layer has without being given it."""
    return isinstance(operand, Constant) and bool(np.all(operand.array == number))


@op("Linear", domain="modelport")
def linear(
    x: Tensor, weight: Weight, bias: Weight = None, *, transposed: int = 0, node: ir.Node, operands: Operands
) -> Tensor:
    out_features, in_features = _sizes(weight)[::-1] if transposed else _sizes(weight)
    path = operands.weights.place(
        lambda: nn.Linear(in_features, out_features, bias is not None),
        {"weight": weight, "bias": bias},
        node,
        transposed=bool(transposed),
    )
    if path is not None:
        return operands.call(path, x)
    matrix = operands.tensor(weight)
    offset = None if bias is None else operands.tensor(bias)
    return F.linear(x, matrix.transpose(0, 1) if transposed else matrix, offset)


@op("Embedding", domain="modelport")
def embedding(ids: Tensor, weight: Weight, *, node: ir.Node, operands: Operands) -> Tensor:
    rows, columns = _sizes(weight)
    ids = ids if ids.element in (torch.int64, torch.int32) else ids.to(torch.int64)
    path = operands.weights.place(lambda: nn.Embedding(rows, columns), {"weight": weight}, node)
    return F.embedding(ids, operands.tensor(weight)) if path is None else operands.call(path, ids)


@op("Conv")
def conv(
    x: Tensor,
    weight: Weight,
    bias: Weight = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    node: ir.Node,
    operands: Operands,
) -> Tensor:
    kernel = tuple(kernel_shape or _sizes(weight)[2:])
    window = Window.read(kernel, strides, dilations, pads, auto_pad)
    _supported(len(kernel), _CONV)
    x, padding = pad_input(x, window)
    settings: dict[str, Any] = {"stride": window.strides, "padding": padding, "dilation": window.dilations}
    settings["groups"] = group
    out, per_group = _sizes(weight)[:2]
    path = operands.weights.place(
        lambda: _CONV[len(kernel)](per_group * group, out, kernel, bias=bias is not None, **settings),
        {"weight": weight, "bias": bias},
        node,
    )
    if path is not None:
        return operands.call(path, x)
    offset = None if bias is None else operands.tensor(bias)
    return F_CONV[len(kernel)](x, operands.tensor(weight), offset, **settings)


def _supported(rank: int, table: dict[int, Any]) -> None:
    if rank not in table:
        raise CannotBuild(f"it has {rank} spatial axes; torch has layers for {sorted(table)}")


@op("ConvTranspose")
def conv_transpose(
    x: Tensor,
    weight: Weight,
    bias: Weight = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    node: ir.Node,
    operands: Operands,
) -> Tensor:
    kernel = tuple(kernel_shape or _sizes(weight)[2:])
    window = Window.read(kernel, strides, dilations, pads, auto_pad)
    _supported(len(kernel), _CONV_TRANSPOSE)
    padding, extra, crop = crop_or_pad_output(x, window, output_padding, output_shape)
    settings: dict[str, Any] = {"stride": window.strides, "padding": padding, "output_padding": extra}
    settings |= {"groups": group, "dilation": window.dilations}
    into, per_group = _sizes(weight)[:2]
    path = operands.weights.place(
        lambda: _CONV_TRANSPOSE[len(kernel)](into, per_group * group, kernel, bias=bias is not None, **settings),
        {"weight": weight, "bias": bias},
        node,
    )
    if path is not None:
        return crop(operands.call(path, x))
    offset = None if bias is None else operands.tensor(bias)
    return crop(F_CONV_TRANSPOSE[len(kernel)](x, operands.tensor(weight), offset, **settings))


@op("BatchNormalization")
def batch_normalization(
    x: Tensor,
    scale: Weight,
    bias: Weight,
    mean: Weight,
    var: Weight,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    node: ir.Node,
    operands: Operands,
) -> Any:
    if training_mode:
        tensors = [operands.tensor(operand) for operand in (scale, bias, mean, var)]
        return _batch_normalization_training(x, tensors, epsilon, momentum)
    weights = {
        "weight": None if _is_all(scale, 1) else scale,
        "bias": None if _is_all(bias, 0) else bias,
        "running_mean": mean,
        "running_var": var,
    }
    features = _dims(mean)[0]
    affine = any(weights[key] is not None for key in ("weight", "bias"))
    path = operands.weights.place(
        lambda: _BATCH_NORM[x.rank](features, eps=short(epsilon), momentum=short(1 - momentum), affine=affine),
        weights,
        node,
        buffers=("running_mean", "running_var"),
    )
    if path is not None:
        return operands.call(path, x)
    if isinstance(mean, WeightRef):
        operands.note("dropped", node, "its weights' names fit no layer; its running statistics stay as they are")
    statistics = operands.tensor(mean), operands.tensor(var)
    return F.batch_norm(x, *statistics, operands.tensor(scale), operands.tensor(bias), eps=epsilon)


def short(number: float) -> float:
    """The decimal that a float32 attribute was written from (0.1, not 0.10000000149)."""
    return float(f"{number:.6g}")


def _batch_normalization_training(
    x: Tensor, tensors: Sequence[Tensor], epsilon: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    scale, bias, mean, var = tensors
    axes = [axis for axis in range(x.rank) if axis != 1]
    batch_var, batch_mean = torch.var_mean(x, axes, correction=0)
    y = F.batch_norm(x, batch_mean, batch_var, scale, bias, False, 0.0, epsilon)
    running_mean = mean * momentum + batch_mean * (1 - momentum)
    return y, running_mean, var * momentum + batch_var * (1 - momentum)


@op("InstanceNormalization")
def instance_normalization(
    x: Tensor, scale: Weight, bias: Weight, *, epsilon: float = 1e-5, node: ir.Node, operands: Operands
) -> Tensor:
    path = None
    if x.rank in _INSTANCE_NORM:
        features = _dims(scale)[0]
        path = operands.weights.place(
            lambda: _INSTANCE_NORM[x.rank](features, eps=short(epsilon), affine=True),
            {"weight": scale, "bias": bias},
            node,
        )
    if path is not None:
        return operands.call(path, x)
    weight = None if _is_all(scale, 1) else operands.tensor(scale)
    return F.instance_norm(x, weight=weight, bias=None if _is_all(bias, 0) else operands.tensor(bias), eps=epsilon)


@op("LayerNormalization")
def layer_normalization(
    x: Tensor,
    scale: Weight,
    bias: Weight = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    node: ir.Node,
    operands: Operands,
) -> Any:
    first = axis % x.rank
    shape = x.dims[first:]
    statistics = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if None in shape or statistics or _dims(scale) != shape or (bias is not None and _dims(bias) != shape):
        return _layer_normalization(x, scale, bias, first, epsilon, operands)
    weight = None if _is_all(scale, 1) else scale
    offset = None if _is_all(bias, 0) else bias
    path = operands.weights.place(
        lambda: nn.LayerNorm(cast(list[int], list(shape)), eps=short(epsilon)),
        {"weight": weight, "bias": offset},
        node,
    )
    if path is not None:
        return operands.call(path, x)
    parts = [None if operand is None else operands.tensor(operand) for operand in (weight, offset)]
    return F.layer_norm(x, shape, parts[0], parts[1], epsilon)  # type: ignore[arg-type]


def _layer_normalization(
    x: Tensor, scale: Operand, bias: Operand | None, axis: int, epsilon: float, operands: Operands
) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(axis, x.rank))
    var, mean = torch.var_mean(x.float() if x.element in (torch.float16, torch.bfloat16) else x, axes, correction=0,
                               keepdim=True)  # fmt: skip
    inverse = torch.rsqrt(var + epsilon)
    y = ((x - mean) * inverse).to(x.element) * operands.tensor(scale)
    return y if bias is None else y + operands.tensor(bias), mean, inverse


@op("RMSNormalization")
def rms_normalization(
    x: Tensor,
    scale: Weight,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    node: ir.Node,
    operands: Operands,
) -> Any:
    shape = x.dims[axis % x.rank :]
    if None in shape or _dims(scale) != shape or x.element != torch_dtype(stash_type):
        wide = x.to(torch_dtype(stash_type))
        mean = torch.mean(torch.square(wide), list(range(axis % x.rank, x.rank)), keepdim=True)
        return (wide * torch.rsqrt(mean + epsilon)).to(x.element) * operands.tensor(scale)
    sizes = cast(list[int], list(shape))
    path = operands.weights.place(lambda: nn.RMSNorm(sizes, eps=short(epsilon)), {"weight": scale}, node)
    return F.rms_norm(x, sizes, operands.tensor(scale), epsilon) if path is None else operands.call(path, x)


@op("GroupNormalization")
def group_normalization(
    x: Tensor,
    scale: Weight,
    bias: Weight,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    node: ir.Node,
    operands: Operands,
) -> Tensor:
    channels = _dims(scale)[0]
    weight = None if _is_all(scale, 1) else scale
    offset = None if _is_all(bias, 0) else bias
    path = operands.weights.place(
        lambda: nn.GroupNorm(num_groups, channels, eps=short(epsilon)),
        {"weight": weight, "bias": offset},
        node,
    )
    if path is not None:
        return operands.call(path, x)
    parts = [None if operand is None else operands.tensor(operand) for operand in (weight, offset)]
    return F.group_norm(x, num_groups, parts[0], parts[1], epsilon)


@op("PRelu")
def prelu(x: Tensor, slope: Weight, *, node: ir.Node, operands: Operands) -> Tensor:
    source = _unreshaped(node.inputs[1], operands)
    dims = (1,) * (x.rank - len(_dims(slope))) + _dims(slope)
    per_channel = len(_dims(slope)) == 1 and x.rank > 2 and dims[-1] == x.dims[1] and dims[-1] not in (1, x.dims[-1])
    if per_channel:
        # Slopes of the first opsets: one per channel, which does not broadcast as ONNX has it today.
        dims = (1, dims[-1]) + (1,) * (x.rank - 2)
    # ONNX aligns the slopes with the last axes, torch's layer with axis 1: alike for (C, 1, 1) on (N, C, H, W).
    aligned = all(dim == 1 for axis, dim in enumerate(dims) if axis != 1)
    if source is not None and aligned and len(_dims(source)) == 1:
        count = _sizes(source)[0]
        path = operands.weights.place(lambda: nn.PReLU(count), {"weight": source}, node)
        if path is not None:
            return operands.call(path, x)
    slopes = operands.tensor(slope)
    return torch.where(x < 0, x * (torch.reshape(slopes, dims[1:]) if per_channel else slopes), x)


def _unreshaped(value: ir.Value | None, operands: Operands) -> WeightRef | None:
    """The weight that a value is, or is only another shape of."""
    while value is not None and value.producer() is not None:
        producer = cast(ir.Node, value.producer())
        if producer.domain or producer.op_type not in ("Reshape", "Unsqueeze"):
            return None
        value = producer.inputs[0]
    known = value is not None and value.name in operands.weights
    return WeightRef(cast(ir.Value, value), str(cast(ir.Value, value).name)) if known else None
