"""Convolution, pooling, batch normalisation and resizing; ONNX has them channels first.

The transposes around each are cancelled by `graph.layout` afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import Match, op, pattern


def to_first(rank: int) -> tuple[int, ...]:
    """The permutation (batch, *spatial, channels) -> (batch, channels, *spatial)."""
    return (0, rank - 1, *range(1, rank - 1))


def to_last(rank: int) -> tuple[int, ...]:
    """The permutation (batch, channels, *spatial) -> (batch, *spatial, channels)."""
    return (0, *range(2, rank), 1)


def padding(
    mode: str, sizes: Sequence[int | None], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> dict[str, Any]:
    """TensorFlow's padding as ONNX attributes; explicit wherever the sizes say how much it is.

    Args:
        mode: `"VALID"`, `"SAME"` or `"CAUSAL"`.
        sizes: of the spatial axes of the input, `None` where not known.
        kernel: as `strides` and `dilations`, one per spatial axis.
    """
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    if mode == "VALID":
        return {"pads": [0] * (2 * len(reach))}
    if mode == "CAUSAL":
        return {"pads": [*reach, *[0] * len(reach)]}
    if any(size is None and stride != 1 for size, stride in zip(sizes, strides, strict=True)):
        return {"auto_pad": "SAME_UPPER"}
    total = [
        r if size is None else max((-(-size // s) - 1) * s + r + 1 - size, 0)
        for size, s, r in zip(sizes, strides, reach, strict=True)
    ]
    return {"pads": [*(n // 2 for n in total), *(n - n // 2 for n in total)]}


def transposed_padding(less: Sequence[int]) -> dict[str, Any]:
    """ConvTranspose attributes, given how much smaller each size of the output is than all windows together.

    TensorFlow cuts half of it at the start, rounded down; what is negative lies beyond the last window.
    """
    cut = [max(n, 0) for n in less]
    return {
        "pads": [*(n // 2 for n in cut), *(n - n // 2 for n in cut)],
        "output_padding": [max(-n, 0) for n in less],
    }


def _spatial(values: Sequence[Any], data_format: str) -> list[Any]:
    """The spatial part of something that has one entry per axis."""
    return list(values[2:] if data_format.startswith("NC") else values[1:-1])


def _first(g: Context, x: ir.Value, data_format: str, rank: int) -> ir.Value:
    return x if data_format.startswith("NC") else g.transpose(x, to_first(rank))


def _back(g: Context, x: ir.Value, data_format: str, rank: int) -> ir.Value:
    return x if data_format.startswith("NC") else g.transpose(x, to_last(rank))


def _explicit(g: Context, data_format: str) -> list[int]:
    pairs = np.asarray(g.attr("explicit_paddings")).reshape(-1, 2)
    spatial = _spatial(list(pairs), data_format)
    return [int(pair[0]) for pair in spatial] + [int(pair[1]) for pair in spatial]


@op("Conv2D", "Conv3D")
def conv(g: Context, x: ir.Value, kernel: ir.Value) -> ir.Value:
    rank, data_format = g.rank(0), g.attr("data_format")
    shape, kernel_shape = g.shape(0), g.shape(1)
    if shape is None or kernel_shape is None or None in kernel_shape:
        raise g.fail("the sizes of a convolution's kernel are not known")
    size = [int(n or 0) for n in kernel_shape[:-2]]
    strides, dilations = (_spatial(g.attr(name), data_format) for name in ("strides", "dilations"))
    if g.attr("padding") == "EXPLICIT":
        pads: dict[str, Any] = {"pads": _explicit(g, data_format)}
    else:
        pads = padding(g.attr("padding"), _spatial(shape, data_format), size, strides, dilations)
    channels = shape[1] if data_format.startswith("NC") else shape[-1]
    groups = int(channels or 0) // int(kernel_shape[-2] or 1) or 1
    weight = g.transpose(kernel, (rank - 1, rank - 2, *range(rank - 2)))
    y = g(
        "Conv", _first(g, x, data_format, rank), weight, kernel_shape=size, strides=strides, dilations=dilations,
        group=groups, **pads,
    )  # fmt: skip
    return _back(g, y, data_format, rank)


@op("DepthwiseConv2dNative")
def depthwise_conv(g: Context, x: ir.Value, kernel: ir.Value) -> ir.Value:
    data_format, shape, kernel_shape = g.attr("data_format"), g.shape(0), g.shape(1)
    if shape is None or kernel_shape is None or None in kernel_shape:
        raise g.fail("the sizes of a convolution's kernel are not known")
    height, width, channels, multiplier = (int(n or 0) for n in kernel_shape)
    strides, dilations = (_spatial(g.attr(name), data_format) for name in ("strides", "dilations"))
    if g.attr("padding") == "EXPLICIT":
        pads: dict[str, Any] = {"pads": _explicit(g, data_format)}
    else:
        pads = padding(g.attr("padding"), _spatial(shape, data_format), [height, width], strides, dilations)
    weight = g("Reshape", g.transpose(kernel, (2, 3, 0, 1)), [channels * multiplier, 1, height, width])
    y = g(
        "Conv", _first(g, x, data_format, 4), weight, kernel_shape=[height, width], strides=strides,
        dilations=dilations, group=channels, **pads,
    )  # fmt: skip
    return _back(g, y, data_format, 4)


@op("Conv2DBackpropInput", "Conv3DBackpropInputV2", needs=(1, 2))
def conv_transpose(g: Context, kernel: ir.Value, x: ir.Value) -> ir.Value:
    rank, data_format = g.rank(2), g.attr("data_format")
    shape, kernel_shape = g.shape(2), g.shape(1)
    result = g.op.outputs[0].shape
    if shape is None or kernel_shape is None or None in kernel_shape or g.attr("padding") == "EXPLICIT":
        raise g.fail("the sizes of a transposed convolution's kernel are not known, or its padding is explicit")
    size = [int(n or 0) for n in kernel_shape[:-2]]
    strides, dilations = (_spatial(g.attr(name), data_format) for name in ("strides", "dilations"))
    less = []
    for out, n, k, s, d in zip(
        _spatial(result.as_list(), data_format), _spatial(shape, data_format), size, strides, dilations, strict=True
    ):
        reach = (k - 1) * d + 1
        if out is None or n is None:
            less.append(reach - s if g.attr("padding") == "SAME" else min(reach - s, 0))
        else:
            less.append((n - 1) * s + reach - out)
    weight = g.transpose(kernel, (rank - 1, rank - 2, *range(rank - 2)))
    y = g(
        "ConvTranspose", _first(g, x, data_format, rank), weight, kernel_shape=size, strides=strides,
        dilations=dilations, **transposed_padding(less),
    )  # fmt: skip
    return _back(g, y, data_format, rank)


@op("MaxPool", "MaxPool3D", "AvgPool", "AvgPool3D")
def pool(g: Context, x: ir.Value) -> ir.Value:
    rank, data_format, shape = g.rank(0), g.attr("data_format"), g.shape(0)
    size, strides = (_spatial(g.attr(name), data_format) for name in ("ksize", "strides"))
    if g.attr("padding") == "EXPLICIT":
        pads: dict[str, Any] = {"pads": _explicit(g, data_format)}
    else:
        pads = padding(g.attr("padding"), _spatial(shape or (), data_format), size, strides, [1] * len(size))
    settings: dict[str, Any] = {"kernel_shape": size, "strides": strides, **pads}
    kind = "AveragePool" if g.op.type.startswith("Avg") else "MaxPool"
    return _back(g, g(kind, _first(g, x, data_format, rank), **settings), data_format, rank)


@op("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def fused_batch_norm(
    g: Context, x: ir.Value, scale: ir.Value, offset: ir.Value, mean: ir.Value, variance: ir.Value
) -> list[ir.Value]:
    if g.attr("is_training"):
        raise g.fail("batch normalisation computes its statistics from the batch")
    data_format, rank = g.attr("data_format"), g.rank(0)
    y = g(
        "BatchNormalization", _first(g, x, data_format, rank), scale, offset, mean, variance, epsilon=g.attr("epsilon")
    )
    rest = [mean, variance, *[mean] * (len(g.op.outputs) - 3)]
    return [_back(g, y, data_format, rank), *rest]


_RESIZE = {
    "ResizeBilinear": ("linear", {}),
    "ResizeNearestNeighbor": ("nearest", {}),
    "ResizeBicubic": ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1}),
}


@op(*_RESIZE, needs=(0,))
def resize(g: Context, x: ir.Value) -> ir.Value:
    mode, more = _RESIZE[g.op.type]
    coordinates = "asymmetric"
    if g.attr("align_corners"):
        coordinates = "align_corners"
    elif g.attr("half_pixel_centers"):
        coordinates = "half_pixel"
    settings: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates, **more}
    if mode == "cubic" and coordinates != "half_pixel":
        settings.update(cubic_coeff_a=-0.75, exclude_outside=0)
    if mode == "nearest":
        settings["nearest_mode"] = "floor" if coordinates == "asymmetric" else "round_prefer_ceil"
    y = _resized(g, x, g.elements(1), settings)
    return g.transpose(y if mode == "nearest" else g.cast(y, g.result_dtype()), to_last(4))


def _resized(g: Context, x: ir.Value, target: Sequence[Any] | None, settings: dict[str, Any]) -> ir.Value:
    """A Resize of an image channels last, to sizes that are known or computed; its result is channels first."""
    shape = g.shape(0)
    known = target is not None and all(isinstance(n, int) for n in target)
    if target is not None and known and shape is not None and None not in shape[1:3]:
        factors = [_scale(int(old or 0), int(new)) for old, new in zip(shape[1:3], target, strict=True)]
        scales = np.asarray([1, 1, *factors], np.float32)
        return g("Resize", g.transpose(x, to_first(4)), None, scales, **settings)
    first = g.transpose(x, to_first(4))
    sides = g.int64(g.value(g.op.inputs[1]))
    return g("Resize", first, None, None, g("Concat", g("Shape", first, start=0, end=2), sides, axis=0), **settings)


_KERNELS: dict[str, dict[str, Any]] = {
    "triangle": {"mode": "linear"},
    "keyscubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
}


@op("ScaleAndTranslate", static=(1, 2, 3))
def scale_and_translate(
    g: Context, x: ir.Value, size: np.ndarray, scale: np.ndarray, translation: np.ndarray
) -> ir.Value:
    shape, kernel = g.shape(0), g.attr("kernel_type")
    if shape is None or None in shape[1:3] or kernel not in _KERNELS:
        raise g.fail(f"the sizes to resize from are not known, or ONNX has no kernel {kernel!r}")
    if translation.any() or not np.allclose(scale, size / np.asarray(shape[1:3])):
        raise g.fail("an image is moved, or scaled to another size than the one it gets")
    settings = {"antialias": int(g.attr("antialias")), "exclude_outside": 1, **_KERNELS[kernel]}
    y = _resized(g, x, [int(n) for n in size], settings)
    return g.transpose(g.cast(y, g.result_dtype()), to_last(4))


def _scale(old: int, new: int) -> np.float32:
    """The factor that makes one size of another; ONNX rounds the product down, so it must not fall short."""
    scale = np.float32(new / old)
    return scale if np.floor(old * np.float64(scale)) == new else np.nextafter(scale, np.float32(np.inf))


@op("DepthToSpace", "SpaceToDepth")
def depth_space(g: Context, x: ir.Value) -> ir.Value:
    block, data_format = g.attr("block_size"), g.attr("data_format")
    first = _first(g, x, data_format, 4)
    if g.op.type == "DepthToSpace":
        return _back(g, g("DepthToSpace", first, blocksize=block, mode="DCR"), data_format, 4)
    return _back(g, g("SpaceToDepth", first, blocksize=block), data_format, 4)


@op("SpaceToBatchND", static=(1, 2))
def space_to_batch(g: Context, x: ir.Value, blocks: np.ndarray, pads: np.ndarray) -> ir.Value:
    shape = g.shape(0)
    count = len(blocks)
    if shape is None or None in shape[1:]:
        raise g.fail("the sizes of what is put into batches are not known")
    rest = [int(n or 0) for n in shape[1:]]
    before, after = ([0, *(int(p[side]) for p in pads), *[0] * (len(rest) - count)] for side in (0, 1))
    x = g("Pad", x, [*before, *after]) if pads.any() else x
    padded = [n + b + a for n, b, a in zip(rest, before[1:], after[1:], strict=True)]
    split = [part for n, b in zip(padded, blocks, strict=False) for part in (n // int(b), int(b))]
    x = g("Reshape", x, [-1, *split, *padded[count:]])
    inner, outer = [1 + 2 * i for i in range(count)], [2 + 2 * i for i in range(count)]
    x = g("Transpose", x, perm=[*outer, 0, *inner, *range(1 + 2 * count, 1 + count + len(rest))])
    return g("Reshape", x, [-1, *split[::2], *padded[count:]])


@op("BatchToSpaceND", static=(1, 2))
def batch_to_space(g: Context, x: ir.Value, blocks: np.ndarray, crops: np.ndarray) -> ir.Value:
    shape = g.shape(0)
    count = len(blocks)
    if shape is None or None in shape[1:]:
        raise g.fail("the sizes of what is taken out of batches are not known")
    rest = [int(n or 0) for n in shape[1:]]
    x = g("Reshape", x, [*(int(b) for b in blocks), -1, *rest])
    pairs = [axis for i in range(count) for axis in (count + 1 + i, i)]
    x = g("Transpose", x, perm=[count, *pairs, *range(2 * count + 1, 1 + count + len(rest))])
    grown = [n * int(b) for n, b in zip(rest, blocks, strict=False)]
    x = g("Reshape", x, [-1, *grown, *rest[count:]])
    if not crops.any():
        return x
    starts, ends = [int(c[0]) for c in crops], [n - int(c[1]) for n, c in zip(grown, crops, strict=True)]
    return g("Slice", x, starts, ends, list(range(1, 1 + count)))


@pattern("BatchToSpaceND")
def dilated_conv(g: Context) -> Match | None:
    """A convolution between SpaceToBatchND and BatchToSpaceND is a dilated one."""
    inner = g.op.inputs[0].op
    outer = inner.inputs[0].op if inner.type in ("Conv2D", "DepthwiseConv2dNative") else None
    if outer is None or outer.type != "SpaceToBatchND" or len(outer.inputs[0].shape) != 4:
        return None
    blocks, crops = (g.frame.statics.value(t) for t in g.op.inputs[1:])
    others, pads = (g.frame.statics.value(t) for t in outer.inputs[1:])
    kernel = inner.inputs[1].shape.as_list()
    if blocks is None or crops is None or pads is None or others is None or None in kernel:
        return None
    if (
        not np.array_equal(blocks, others)
        or len(blocks) != 2
        or set(inner.get_attr("strides")) != {1}
        or inner.get_attr("padding") != b"VALID"
    ):
        return None
    depthwise = inner.type == "DepthwiseConv2dNative"
    trimmed = [[int(p[0]), int(p[1] - c[1])] for p, c in zip(pads, crops, strict=True)]
    if crops[:, 0].any():
        return None

    def emit(g: Context, x: ir.Value, w: ir.Value) -> ir.Value:
        groups = kernel[2] if depthwise else outer.inputs[0].shape[-1] // kernel[2]
        weight = g.transpose(w, (2, 3, 0, 1)) if depthwise else g.transpose(w, (3, 2, 0, 1))
        if depthwise:
            weight = g("Reshape", weight, [kernel[2] * kernel[3], 1, *kernel[:2]])
        edges = [trimmed[0][0], trimmed[1][0], trimmed[0][1], trimmed[1][1]]
        settings = {"kernel_shape": kernel[:2], "dilations": [int(b) for b in blocks], "pads": edges, "group": groups}
        return g.transpose(g("Conv", g.transpose(x, to_first(4)), weight, **settings), to_last(4))

    return Match((outer.inputs[0], inner.inputs[1]), emit)
