"""Keras layers as the ONNX operators that have their parameters, with portable names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.layers import contraction, is_carrier, spans
from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.conv import padding, to_first, to_last, transposed_padding
from modelport.backends.keras.lower.flow import native_layout
from modelport.backends.keras.lower.table import layer
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.splice import BUILD_DOMAIN


def _unknown_rank(layer: Any, arguments: dict[str, Any]) -> str:
    inputs = next(iter(arguments.values()))
    return "" if getattr(inputs.shape, "rank", None) is not None else "the rank of its input is not known"


@layer("Dense", before_activation=True, refuses=_unknown_rank)
def dense(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    return linear(g, inputs, g.weight(g.layer.kernel), g.weight(g.layer.bias))


def linear(g: Context, x: ir.Value, weight: ir.Value | None, bias: ir.Value | None) -> ir.Value:
    """`x @ weight.T + bias`, the weight (out, in)."""
    if x.shape is not None and len(x.shape) == 2:
        return g("Gemm", x, weight, *([bias] if bias is not None else []), transB=1)
    assert weight is not None
    # One node until the transposes around it are cancelled, so that none comes between the product and its bias.
    y = g("Linear", x, weight, *([bias] if bias is not None else []), domain="modelport")
    y.type = ir.TensorType(g.result_dtype())
    if x.shape is not None and weight.shape is not None:
        y.shape = ir.Shape([*x.shape[:-1], weight.shape[0]])
    return y


def _einsum_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    inputs = arguments["inputs"]
    if inputs.shape.rank is None:
        return "the rank of its input is not known"
    if is_carrier(layer):
        return ""
    axes = contraction(layer.equation, inputs.shape.rank)
    if axes is None:
        return f"its equation {layer.equation!r} is no Linear"
    return ""


@layer("EinsumDense", before_activation=True, refuses=_einsum_refuses)
def einsum_dense(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    kernel, bias = g.layer.kernel, g.layer.bias
    if is_carrier(g.layer):
        held = g.held(kernel)
        row = g("Unsqueeze", held, [0])
        # Signed bytes are uint8 in Keras only.
        row.type = held.type
        return row
    axes = contraction(g.layer.equation, len(inputs.shape or ()))
    assert axes is not None
    sizes = dict(zip(axes.kernel, kernel.shape, strict=True))
    x = g.transpose(inputs, [axes.inputs.index(c) for c in axes.batch + axes.contracted])
    leading = [(inputs.shape or ())[axes.inputs.index(c)] for c in axes.batch]
    into = int(np.prod([sizes[c] for c in axes.contracted]))
    if len(axes.contracted) > 1:
        x = g("Reshape", x, [*[0] * len(axes.batch), into])
    x.shape, x.type = ir.Shape([*leading, into]), inputs.type
    flat_bias = bias is not None and spans(g.layer.bias_axes, axes)
    y = linear(g, x, g.weight(kernel), g.weight(bias) if flat_bias else None)
    if len(axes.new) != 1:
        y = g("Reshape", y, [*[0] * len(axes.batch), *(sizes[c] for c in axes.new)])
    y = g.transpose(y, [(axes.batch + axes.new).index(c) for c in axes.output])
    return y if bias is None or flat_bias else g("Add", y, g.weight(bias))


@layer("Embedding")
def embedding(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    ids = inputs if inputs.dtype in (ir.DataType.INT32, ir.DataType.INT64) else g.cast(inputs, ir.DataType.INT32)
    return g("Gather", g.weight(g.layer.embeddings), ids, axis=0)


def _conv_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    return _unknown_rank(layer, arguments)


def _spatial(shape: Any, channels_first: bool) -> list[int | None]:
    sizes = [n if isinstance(n, int) else None for n in (shape or ())]
    return sizes[2:] if channels_first else sizes[1:-1]


def _convolved(g: Context, x: ir.Value, emit: Callable[[ir.Value, list[int | None]], ir.Value]) -> ir.Value:
    """What `emit` makes of the input channels first, in the layer's own layout."""
    rank = len(x.shape or ())
    channels_first = g.layer.data_format == "channels_first"
    sizes = _spatial(x.shape, channels_first)
    if channels_first:
        return emit(x, sizes)
    first = g.transpose(x, to_first(rank))
    return g.transpose(emit(first, sizes), to_last(rank))


def _conv(g: Context, x: ir.Value, weight: Any, bias: Any, group: int, sizes: list[int | None]) -> ir.Value:
    layer = g.layer
    pads = padding(layer.padding.upper(), sizes, layer.kernel_size, layer.strides, layer.dilation_rate)
    settings: dict[str, Any] = {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.strides),
        "dilations": list(layer.dilation_rate),
        "group": group,
    }
    return g("Conv", x, weight, *([bias] if bias is not None else []), **settings, **pads)


@layer("Conv1D", "Conv2D", "Conv3D", before_activation=True, refuses=_conv_refuses)
def conv(g: Context, inputs: ir.Value) -> ir.Value:
    weight, bias = g.weight(g.layer.kernel), g.weight(g.layer.bias)
    return _convolved(g, inputs, lambda x, sizes: _conv(g, x, weight, bias, g.layer.groups, sizes))


@layer("DepthwiseConv1D", "DepthwiseConv2D", before_activation=True, refuses=_conv_refuses)
def depthwise_conv(g: Context, inputs: ir.Value) -> ir.Value:
    kernel = g.layer.kernel
    weight, bias = g.weight(kernel), g.weight(g.layer.bias)
    return _convolved(g, inputs, lambda x, sizes: _conv(g, x, weight, bias, int(kernel.shape[-2]), sizes))


@layer("SeparableConv1D", "SeparableConv2D", before_activation=True, refuses=_conv_refuses)
def separable_conv(g: Context, inputs: ir.Value) -> ir.Value:
    deep, point = g.layer.depthwise_kernel, g.layer.pointwise_kernel
    weights, bias = (g.weight(deep), g.weight(point)), g.weight(g.layer.bias)

    def emit(x: ir.Value, sizes: list[int | None]) -> ir.Value:
        y = _conv(g, x, weights[0], None, int(deep.shape[-2]), sizes)
        return g("Conv", y, weights[1], *([bias] if bias is not None else []), kernel_shape=[1] * len(sizes))

    return _convolved(g, inputs, emit)


def _transpose_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if reason := _unknown_rank(layer, arguments):
        return reason
    return "its padding is neither valid nor same" if layer.padding not in ("valid", "same") else ""


@layer(
    "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", before_activation=True, refuses=_transpose_refuses
)  # fmt: skip
def conv_transpose(g: Context, inputs: ir.Value) -> ir.Value:
    layer = g.layer
    weight, bias = g.weight(layer.kernel), g.weight(layer.bias)
    extra = layer.output_padding or (None,) * len(layer.kernel_size)
    extra = (extra,) * len(layer.kernel_size) if isinstance(extra, int) else extra
    less = [
        _transposed_less(layer.padding, k, s, d, o)
        for k, s, d, o in zip(layer.kernel_size, layer.strides, layer.dilation_rate, extra, strict=True)
    ]

    def emit(x: ir.Value, sizes: list[int | None]) -> ir.Value:
        return g(
            "ConvTranspose", x, weight, *([bias] if bias is not None else []),
            kernel_shape=list(layer.kernel_size), strides=list(layer.strides), dilations=list(layer.dilation_rate),
            **transposed_padding(less),
        )  # fmt: skip

    return _convolved(g, inputs, emit)


def _transposed_less(mode: str, kernel: int, stride: int, dilation: int, extra: int | None) -> int:
    """How much smaller one size of a Keras transposed convolution is than all its windows together.

    They are (n - 1) * stride + reach. Keras makes n * stride of n where it pads, and n * stride + reach - stride or
    n * stride, the larger, where it does not; with `output_padding` it makes that of them, less reach // 2 twice where
    it pads.
    """
    reach = (kernel - 1) * dilation + 1
    if extra is not None:
        return (2 * (reach // 2) if mode == "same" else 0) - extra
    return reach - stride if mode == "same" else min(reach - stride, 0)


def _upsampling_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return "it interpolates"
    return _unknown_rank(layer, arguments)


@layer("UpSampling1D", "UpSampling2D", "UpSampling3D", refuses=_upsampling_refuses)
def upsampling(g: Context, inputs: ir.Value) -> ir.Value:
    size = g.layer.size
    factors = [size] if isinstance(size, int) else list(size)
    scales = np.asarray([1, 1, *factors], np.float32)
    settings: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    rank = len(inputs.shape or ())
    if getattr(g.layer, "data_format", "channels_last") == "channels_first":
        return g("Resize", inputs, None, scales, **settings)
    return g.transpose(g("Resize", g.transpose(inputs, to_first(rank)), None, scales, **settings), to_last(rank))


def _axis_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if reason := _unknown_rank(layer, arguments):
        return reason
    return "" if isinstance(layer.axis, int) or len(layer.axis) == 1 else "it normalises more than one axis"


def _channels_first(g: Context, x: ir.Value, axis: Any, emit: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """What `emit` makes of the input with one axis moved to place 1, moved back."""
    rank = len(x.shape or ())
    (place,) = (axis,) if isinstance(axis, int) else axis
    place %= rank
    perm = [0, place, *(n for n in range(1, rank) if n != place)]
    return g.transpose(emit(g.transpose(x, perm)), [perm.index(n) for n in range(rank)])


def _or_constant(g: Context, variable: Any, number: float, size: int, dtype: ir.DataType) -> Any:
    return np.full(size, number, dtype.numpy()) if variable is None else g.weight(variable)


def _batch_norm_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if arguments["inputs"].dtype.name != "float32":
        return "it computes in another dtype than its input has"
    return _axis_refuses(layer, arguments)


@layer("BatchNormalization", refuses=_batch_norm_refuses)
def batch_norm(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    layer = g.layer
    size, dtype = int(layer.moving_mean.shape[0]), g.result_dtype()
    weights = [
        _or_constant(g, layer.gamma, 1.0, size, dtype),
        _or_constant(g, layer.beta, 0.0, size, dtype),
        g.weight(layer.moving_mean),
        g.weight(layer.moving_variance),
    ]
    settings: dict[str, Any] = {"epsilon": float(layer.epsilon), "momentum": float(layer.momentum)}
    return _channels_first(g, inputs, layer.axis, lambda x: g("BatchNormalization", x, *weights, **settings))


def _layer_norm_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    inputs = arguments["inputs"]
    if layer.rms_scaling or inputs.dtype.name != "float32":
        return "it scales by the root mean square, or computes in another dtype than its input has"
    if reason := _unknown_rank(layer, arguments):
        return reason
    rank = inputs.shape.rank
    axes = sorted(n % rank for n in ([layer.axis] if isinstance(layer.axis, int) else layer.axis))
    return "" if axes == list(range(axes[0], rank)) else "the axes it normalises are not the last ones"


@layer("LayerNormalization", refuses=_layer_norm_refuses)
def layer_norm(g: Context, inputs: ir.Value) -> ir.Value:
    layer, rank = g.layer, len(inputs.shape or ())
    axes = [layer.axis] if isinstance(layer.axis, int) else layer.axis
    first = min(n % rank for n in axes) - rank
    shape = [n if isinstance(n, int) else 1 for n in (inputs.shape or ())][first:]
    scale = np.ones(shape, np.float32) if layer.gamma is None else g.weight(layer.gamma)
    beta = [] if layer.beta is None else [g.weight(layer.beta)]
    return g("LayerNormalization", inputs, scale, *beta, axis=first, epsilon=float(layer.epsilon))


@layer("GroupNormalization", refuses=_batch_norm_refuses)
def group_norm(g: Context, inputs: ir.Value) -> ir.Value:
    layer = g.layer
    size = int((inputs.shape or ())[layer.axis])
    scale, bias = (_or_constant(g, v, n, size, g.result_dtype()) for v, n in ((layer.gamma, 1.0), (layer.beta, 0.0)))
    groups = size if layer.groups == -1 else layer.groups
    settings: dict[str, Any] = {"num_groups": int(groups), "epsilon": float(layer.epsilon)}
    return _channels_first(g, inputs, layer.axis, lambda x: g("GroupNormalization", x, scale, bias, **settings))


@layer("PReLU")
def prelu(g: Context, inputs: ir.Value) -> ir.Value:
    weight = g.lowering.weights[id(g.layer.alpha.handle)]
    slope = g.weight(g.layer.alpha)
    assert slope is not None
    aligned = weight.layout.native[-1:] == weight.layout.portable
    return g("PRelu", inputs, slope if aligned else native_layout(g, slope, weight.layout))


def _dropout_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    return "" if layer.noise_shape is None else _unknown_rank(layer, arguments)


@layer("Dropout", refuses=_dropout_refuses)
def dropout(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    if g.layer.noise_shape is None:
        return _dropout(g, inputs, g.layer.rate)
    return _spatial_dropout(g, inputs, [axis for axis, size in enumerate(g.layer.noise_shape) if size == 1])


def _dropout(g: Context, x: ir.Value, rate: float) -> ir.Value:
    return g("Dropout", x, np.asarray(rate, np.float32)) if rate else g("Identity", x)


@layer("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", refuses=_unknown_rank)
def spatial_dropout(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    first = 2 if getattr(g.layer, "data_format", "") == "channels_first" else 1
    return _spatial_dropout(g, inputs, range(first, first + len(inputs.shape or ()) - 2))


def _spatial_dropout(g: Context, x: ir.Value, axes: Iterable[int]) -> ir.Value:
    shared = [axis for axis in axes if (x.shape or ())[axis] != 1]
    if not shared or not g.layer.rate:
        return _dropout(g, x, g.layer.rate)
    return g(SPATIAL_DROPOUT, x, np.asarray(g.layer.rate, np.float32), domain=BUILD_DOMAIN, axes=shared)


@layer("AlphaDropout", "GaussianDropout")
def other_dropout(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    g.note("changed", f"{type(g.layer).__name__} becomes Dropout({g.layer.rate:g}), which differs from it in training")
    return _dropout(g, inputs, g.layer.rate)


@layer("GaussianNoise")
def gaussian_noise(g: Context, inputs: ir.Value, **_: Any) -> ir.Value:
    g.note("dropped", f"GaussianNoise({g.layer.stddev:g}) adds noise in training only; the portable graph has none")
    return g("Identity", inputs)
