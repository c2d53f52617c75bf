"""Pixels: colours, patches, boxes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op


def _channel(g: Context, x: ir.Value, place: int) -> ir.Value:
    return g("Slice", x, [place], [place + 1], [-1])


def _to_hsv(g: Context, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Hue, saturation and value from 0 to 1 (Smith, Color gamut transform pairs, SIGGRAPH 1978)."""
    red, green, blue = (_channel(g, x, i) for i in range(3))
    value = g("ReduceMax", x, [-1], keepdims=1)
    span = g("Sub", value, g("ReduceMin", x, [-1], keepdims=1))
    some = g("Greater", span, 0)
    safe = g("Where", some, span, np.asarray(1, g.dtype(0).numpy()))
    saturation = g("Where", g("Greater", value, 0), g("Div", span, value), 0)

    def sixth(a: ir.Value, b: ir.Value, turn: float) -> ir.Value:
        return g("Add", g("Div", g("Sub", a, b), safe), turn)

    others = g("Where", g("Equal", green, value), sixth(blue, red, 2.0), sixth(red, green, 4.0))
    hue = g("Div", g("Where", g("Equal", red, value), sixth(green, blue, 0.0), others), 6.0)
    hue = g("Where", g("Less", hue, 0), g("Add", hue, 1.0), hue)
    return g("Where", some, hue, 0), saturation, value


def _to_rgb(g: Context, hue: ir.Value, saturation: ir.Value, value: ir.Value) -> ir.Value:
    """The inverse: every colour is a trapezoid over the hue."""
    places = g("Mul", g("Sub", hue, g("Floor", hue)), 6.0)

    def clipped(x: ir.Value) -> ir.Value:
        return g("Min", g("Max", x, 0.0), 1.0)

    red = clipped(g("Sub", g("Abs", g("Sub", places, 3.0)), 1.0))
    green = clipped(g("Sub", 2.0, g("Abs", g("Sub", places, 2.0))))
    blue = clipped(g("Sub", 2.0, g("Abs", g("Sub", places, 4.0))))
    pure = g("Concat", red, green, blue, axis=-1)
    return g("Mul", value, g("Add", g("Mul", saturation, g("Sub", pure, 1.0)), 1.0))


@op("RGBToHSV")
def rgb_to_hsv(g: Context, x: ir.Value) -> ir.Value:
    return g("Concat", *_to_hsv(g, x), axis=-1)


@op("HSVToRGB")
def hsv_to_rgb(g: Context, x: ir.Value) -> ir.Value:
    return _to_rgb(g, *(_channel(g, x, i) for i in range(3)))


@op("AdjustHue", "AdjustSaturation")
def adjusted(g: Context, x: ir.Value, amount: ir.Value) -> ir.Value:
    hue, saturation, value = _to_hsv(g, x)
    if g.op.type == "AdjustHue":
        return _to_rgb(g, g("Add", hue, amount), saturation, value)
    return _to_rgb(g, hue, g("Min", g("Max", g("Mul", saturation, amount), 0.0), 1.0), value)


@op("AdjustContrastv2")
def contrast(g: Context, x: ir.Value, factor: ir.Value) -> ir.Value:
    mean = g("ReduceMean", x, [-3, -2], keepdims=1)
    return g("Add", g("Mul", g("Sub", x, mean), factor), mean)


@op("ExtractImagePatches")
def patches(g: Context, x: ir.Value) -> ir.Value:
    """A convolution whose filters have one tap each."""
    shape = g.shape(0)
    channels = None if shape is None else shape[-1]
    if channels is None:
        raise g.fail("the number of channels is not known")
    _, high, wide, _ = g.attr("ksizes")
    taps = np.zeros((high, wide, channels, channels, high, wide), g.dtype(0).numpy())
    for i, j in np.ndindex(high, wide):
        taps[i, j, :, :, i, j] = np.eye(channels)
    strides, rates = g.attr("strides")[1:3], g.attr("rates")[1:3]
    pads = [0] * 4
    if g.attr("padding") == "SAME":
        lengths = (shape or ())[1:3]
        if None in lengths:
            raise g.fail("the size of the images is not known")
        spans = [(k - 1) * rate + 1 for k, rate in zip((high, wide), rates, strict=True)]
        sizes = zip(lengths, strides, spans, strict=True)
        total = [max((-(-int(n or 0) // step) - 1) * step + span - int(n or 0), 0) for n, step, span in sizes]
        pads = [*(n // 2 for n in total), *(n - n // 2 for n in total)]
    images = g("Transpose", x, perm=[0, 3, 1, 2])
    filters = taps.reshape(-1, channels, high, wide)
    found = g("Conv", images, filters, strides=strides, dilations=rates, pads=pads)
    return g("Transpose", found, perm=[0, 2, 3, 1])


@op("NonMaxSuppressionV2", "NonMaxSuppressionV3")
def non_max_suppression(
    g: Context, boxes: ir.Value, scores: ir.Value, most: ir.Value, overlap: ir.Value, score: ir.Value | None = None
) -> ir.Value:
    limits = [g("Reshape", value, [1]) for value in (g.int64(most), overlap)]
    least = None if score is None else g("Reshape", score, [1])
    found = g("NonMaxSuppression", g("Unsqueeze", boxes, [0]), g("Unsqueeze", scores, [0, 1]), *limits, least)
    return g("Cast", g("Gather", found, np.asarray(2), axis=1), to=ir.DataType.INT32.value)


@op("ResizeArea", static=(1,))
def resized_by_area(g: Context, x: ir.Value, target: np.ndarray) -> ir.Value:
    shape = g.shape(0)
    lengths = (None, None) if shape is None else shape[1:3]
    if g.attr("align_corners") or any(n is None or n % int(m) for n, m in zip(lengths, target.ravel(), strict=True)):
        raise g.fail("areas are averaged where they are whole pixels")
    kernel = [int(n or 0) // int(m) for n, m in zip(lengths, target.ravel(), strict=True)]
    images = g("Transpose", g("Cast", x, to=ir.DataType.FLOAT.value), perm=[0, 3, 1, 2])
    return g("Transpose", g("AveragePool", images, kernel_shape=kernel, strides=kernel), perm=[0, 2, 3, 1])
