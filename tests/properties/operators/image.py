"""Windows that slide over images: convolutions, pools, resizes, samples."""

from __future__ import annotations

import numpy as np

from tests.properties.drawing import F32, F64, I64, Scope, Unfit, Value
from tests.properties.operators.registry import operator
from tests.properties.operators.shape import least


def image(s: Scope, ranks: tuple[int, ...] = (4, 3, 5), channels: int | None = None, least_size: int = 3) -> Value:
    """(batch, channels, *sizes), with static channels."""

    def fits(v: Value) -> bool:
        known = v.is_static(1) and (channels is None or v.dims[1] == channels)
        return known and all(least(dim) > 0 for dim in v.dims) and all(least(dim) >= least_size for dim in v.dims[2:])

    def fresh() -> Value:
        rank = s.choose(ranks)
        spatial = [dim if least(dim) >= least_size else s.integer(least_size, 7) for dim in s.dims(rank - 2)]
        return s.leaf((s.dim(), channels or s.integer(1, 4), *spatial), F32 if s.chance(85) else F64)

    return s.value((F32, F64), ranks, fits, fresh)


def windows(s: Scope, x: Value, kernel: list[int], *, dilates: bool = True) -> dict[str, list[int] | str | None]:
    """Strides, dilations and pads of windows that fit into an image."""
    rank = x.rank - 2
    found: dict[str, list[int] | str | None] = {}
    if s.chance(50):
        found["strides"] = [s.integer(1, 2) for _ in range(rank)]
    if dilates and all(least(dim) >= 5 for dim in x.dims[2:]) and s.chance(60):
        found["dilations"] = [s.integer(1, 2) for _ in range(rank)]
    kind = s.choose(["none", "pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if kind == "pads":
        found["pads"] = [min(s.integer(0, 2), kernel[i % rank] - 1) for i in range(2 * rank)]
    elif kind == "VALID" or (kind != "none" and "dilations" not in found and _reaches(found, kernel)):
        found["auto_pad"] = kind
    return found


def _reaches(settings: dict[str, list[int] | str | None], kernel: list[int]) -> bool:
    """Whether windows leave nothing out; else the padding to the same size would be negative."""
    strides = settings.get("strides")
    return not isinstance(strides, list) or all(size >= step for size, step in zip(kernel, strides, strict=True))


@operator(1, weight=4)
def conv(s: Scope) -> None:
    x = image(s)
    rank, channels = x.rank - 2, x.dims[1]
    assert isinstance(channels, int)
    group = s.choose([1, 1, channels, *(n for n in (2,) if channels % n == 0)])
    kernel = [s.integer(1, 3) for _ in range(rank)]
    out = group * s.integer(1, 2)
    weight = s.weight((out, channels // group, *kernel), x.dtype, -1, 1)
    bias = s.weight((out,), x.dtype) if s.chance(60) else None
    s.op(
        "Conv",
        x,
        weight,
        bias,
        group=s.maybe(group) if group == 1 else group,
        kernel_shape=s.maybe(kernel),
        **windows(s, x, kernel),
    )


@operator(1, weight=3)
def conv_transpose(s: Scope) -> None:
    x = image(s, (4, 3, 5), least_size=2)
    rank, channels = x.rank - 2, x.dims[1]
    assert isinstance(channels, int)
    group = s.choose([1, 1, channels])
    kernel = [s.integer(1, 3) for _ in range(rank)]
    strides = [s.integer(1, 2) for _ in range(rank)]
    each = s.integer(1, 2)
    weight = s.weight((channels, each, *kernel), x.dtype, -1, 1)
    bias = s.weight((group * each,), x.dtype) if s.chance(60) else None
    settings: dict[str, object] = {"strides": strides, "group": group, "kernel_shape": s.maybe(kernel)}
    kind = s.choose(["none", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "shape"])
    if kind == "pads":
        settings["pads"] = [s.integer(0, kernel[i % rank] - 1) for i in range(2 * rank)]
        settings["output_padding"] = s.maybe([s.integer(0, stride - 1) for stride in strides])
    elif kind == "shape" and x.is_static(*range(2, x.rank)):
        dims = x.dims[2:]
        settings["output_shape"] = [dim * stride for dim, stride in zip(dims, strides, strict=True)]
    elif kind not in ("none", "shape") and all(size >= stride for size, stride in zip(kernel, strides, strict=True)):
        settings["auto_pad"] = kind
    if s.chance(20) and kind in ("none", "pads"):
        settings["dilations"] = [s.integer(1, 2) for _ in range(rank)]
    result = s.op("ConvTranspose", x, weight, bias, **settings)
    if not all(array.size for array in result.worlds):
        # The pads take everything away; frameworks take that for a mistake.
        raise Unfit


@operator(1, weight=4)
def pool(s: Scope) -> None:
    name = s.choose(["MaxPool", "AveragePool", "LpPool"])
    x = image(s)
    rank = x.rank - 2
    kernel = [s.integer(1, 3) for _ in range(rank)]
    since = {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[name]
    settings = windows(s, x, kernel, dilates=s.opset >= since)
    extra: dict[str, object] = {}
    if s.opset >= {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[name] and "auto_pad" not in settings:
        extra["ceil_mode"] = s.choose([None, 0, 1])
    if name == "AveragePool" and s.opset >= 7:
        extra["count_include_pad"] = s.choose([None, 0, 1])
    if name == "LpPool":
        extra["p"] = s.choose([None, 1, 2, 3])
    outputs = (True, s.chance(25)) if name == "MaxPool" and s.opset >= 8 else (True,)
    s.ops(name, [x], outputs, kernel_shape=kernel, **settings, **extra)


@operator(1, weight=2)
def global_pool(s: Scope) -> None:
    name = s.choose(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
    s.op(name, image(s, least_size=1), p=s.choose([None, 1, 2]) if name == "GlobalLpPool" else None)


@operator(9)
def unpool(s: Scope) -> None:
    x = image(s, (4,), least_size=4)
    if not all(size % 2 == 0 for array in x.worlds for size in array.shape[2:]):
        raise Unfit
    values, places = s.ops("MaxPool", [x], (True, True), kernel_shape=[2, 2], strides=[2, 2])
    s.op("MaxUnpool", values, places, kernel_shape=[2, 2], strides=[2, 2])


@operator(7, until=9)
def upsample(s: Scope) -> None:
    x = image(s, (4,), least_size=1)
    scales = [1.0, 1.0, float(s.integer(1, 3)), float(s.integer(1, 2))]
    mode = s.choose([None, "nearest", "linear"])
    if s.opset < 9:
        s.op("Upsample", x, scales=scales, mode=mode)
    else:
        s.op("Upsample", x, s.given(np.asarray(scales, np.float32)), mode=mode)


@operator(10, weight=4)
def resize(s: Scope) -> None:
    x = image(s, (4, 3, 5) if s.opset >= 11 else (4,), least_size=2)
    mode = s.choose(["nearest", "linear", "cubic"] if s.opset >= 11 and x.rank == 4 else ["nearest", "linear"])
    if s.opset == 10:
        s.op("Resize", x, s.given(np.asarray([1, 1, 2, s.integer(1, 3)], np.float32)), mode=mode)
        return
    places = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"] + (
        ["half_pixel_symmetric"] if s.opset >= 19 else []
    )
    place = s.choose([None, *places])
    settings: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": place}
    if mode == "nearest":
        settings["nearest_mode"] = s.choose([None, "round_prefer_ceil", "floor", "ceil", "round_prefer_floor"])
    if mode == "cubic":
        settings |= {"cubic_coeff_a": s.choose([None, -0.5]), "exclude_outside": s.choose([None, 0, 1])}
    if mode != "nearest" and s.opset >= 18 and s.chance(30):
        settings["antialias"] = 1
    axes = list(range(2, x.rank))
    short = s.opset >= 18 and s.chance(50)
    if short:
        settings["axes"] = axes
    head = 0 if short else 2
    empty = None if s.opset >= 13 else s.given(np.zeros(0, np.float32))
    # What is one pixel is said of the size, and the evaluator takes it for what the scale leads to.
    by_size = place == "pytorch_half_pixel" or s.chance(50)
    if by_size and (short or x.is_static(0)):
        if mode == "nearest" and not x.is_static():
            raise Unfit
        # Where a quotient of sizes is no short binary fraction, the nearest of two pixels hangs on its last bit.
        sizes = [x.dims[axis] * s.integer(1, 2) if mode == "nearest" else s.integer(1, 8) for axis in axes]
        target = [*([] if short else x.dims[:2]), *sizes]
        # A policy makes a scale of the sizes again, of which the same holds, and what `_check_placed` says.
        if s.opset >= 18 and s.chance(20) and place != "pytorch_half_pixel":
            policies = ["stretch"] if place == "half_pixel_symmetric" else ["not_larger", "not_smaller", "stretch"]
            settings["keep_aspect_ratio_policy"] = s.choose(policies) if short else None
        s.op("Resize", x, empty, empty, s.ints(target), **settings)
        return
    factors = [s.choose([2.0, 1.0, 3.0, 0.5, 1.5, 0.75]) for _ in axes]
    _check_placed(settings, x, axes, factors)
    scales = [1.0] * head + factors
    s.op("Resize", x, empty, s.given(np.asarray(scales, np.float32)), **settings)


def _check_placed(settings: dict[str, object], x: Value, axes: list[int], factors: list[float]) -> None:
    """The standard says where the samples lie, whatever the rounding.

    What is one pixel wide is so by the size that is reached, which the evaluator takes before it is rounded down; where
    the centre is shifted by the rest, the evaluator's choice of the pixels around it hangs on the last bit.

    Raises:
        Unfit: it does not.
    """
    place = settings["coordinate_transformation_mode"]
    hangs = place == "half_pixel_symmetric"
    sizes = [array.shape[axis] * factor for array in x.worlds for axis, factor in zip(axes, factors, strict=True)]
    if any(not size.is_integer() and (hangs or (place == "pytorch_half_pixel" and size < 2)) for size in sizes):
        raise Unfit


@operator(16)
def grid_sample(s: Scope) -> None:
    linear, cubic = ("linear", "cubic") if s.opset >= 20 else ("bilinear", "bicubic")
    x = image(s, (4, 5) if s.opset >= 20 else (4,), least_size=2)
    mode = s.choose([None, linear, "nearest", cubic] if x.rank == 4 else [None, linear, "nearest"])
    grid = s.leaf((x.dims[0], *(s.integer(1, 4) for _ in range(x.rank - 2)), x.rank - 2), x.dtype, -1.3, 1.3)
    # The standard does not say whether a cubic clamps its position or its taps.
    padding = s.choose([None, "zeros", "border", "reflection"] if mode != cubic else [None, "zeros"])
    corners = s.choose([None, 0, 1])
    s.op("GridSample", x, grid, mode=mode, padding_mode=padding, align_corners=corners)


@operator(20)
def affine_grid(s: Scope) -> None:
    batch, rank = s.integer(1, 3), s.choose([2, 3])
    theta = s.leaf((batch, rank, rank + 1), F32)
    s.op(
        "AffineGrid",
        theta,
        s.ints([batch, 2, *(s.integer(2, 4) for _ in range(rank))]),
        align_corners=s.choose([None, 0, 1]),
    )


@operator(10)
def regions(s: Scope) -> None:
    x = image(s, (4,), least_size=4)
    count = s.integer(1, 3)
    corner, extent = s.array((count, 2), x.dtype, 0, 1.5), s.array((count, 2), x.dtype, 1, 2)
    boxes = s.given(np.concatenate([corner, corner + extent], -1), "w")
    batch = s.leaf((count,), I64, 0, least(x.dims[0]) - 1)
    mode = s.choose([None, "avg", "max"])
    place = s.choose([None, "half_pixel", "output_half_pixel"]) if s.opset >= 16 else None
    sizes = {"output_height": s.integer(1, 3), "output_width": s.integer(1, 3), "sampling_ratio": s.integer(0, 2)}
    s.op(
        "RoiAlign",
        x,
        boxes,
        batch,
        mode=mode,
        coordinate_transformation_mode=place,
        spatial_scale=s.maybe(s.real(0.5, 1.0)),
        **sizes,
    )


@operator(19)
def deformable_conv(s: Scope) -> None:
    x = image(s, (4,), least_size=3)
    channels, kernel = x.dims[1], [s.integer(1, 2), s.integer(1, 3)]
    assert isinstance(channels, int)
    if not x.is_static(2, 3) or x.worlds[0].size > 100:
        raise Unfit
    sizes = [dim - k + 1 for dim, k in zip(x.dims[2:], kernel, strict=True) if isinstance(dim, int)]
    taps = kernel[0] * kernel[1]
    offset = s.leaf((x.dims[0], 2 * taps, *sizes), x.dtype, -1.3, 1.3)
    out = s.integer(1, 2)
    mask = s.leaf((x.dims[0], taps, *sizes), x.dtype) if s.chance(40) else None
    bias = s.weight((out,), x.dtype) if s.chance(50) else None
    s.op("DeformConv", x, s.weight((out, channels, *kernel), x.dtype), offset, bias, mask)


@operator(27)
def causal_conv(s: Scope) -> None:
    channels, taps = s.integer(1, 3), s.integer(1, 3)
    x = s.leaf((s.dim(), channels, s.integer(1, 5)))
    bias = s.weight((channels,)) if s.chance(50) else None
    past = s.leaf((x.dims[0], channels, taps - 1)) if taps > 1 and s.chance(50) else None
    s.ops("CausalConvWithState", [x, s.weight((channels, 1, taps)), bias, past], (True, s.chance(50)),
          activation=s.choose([None, "none", "silu", "swish"]))  # fmt: skip


@operator(1)
def local_response(s: Scope) -> None:
    x = image(s, (4,), least_size=1)
    s.op(
        "LRN",
        x,
        size=s.choose([1, 3, 5]),
        alpha=s.maybe(s.real(0.01, 0.5)),
        beta=s.maybe(s.real(0.5, 1.0)),
        bias=s.maybe(s.real(1.0, 2.0)),
    )
