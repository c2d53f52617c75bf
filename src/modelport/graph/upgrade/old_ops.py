"""Old forms of operators that ONNX's version converter refuses or gets wrong, written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from modelport.graph.upgrade.rewriting import Rewrite, Rewriter

OLD: dict[str, tuple[int, Rewriter]] = {}
"""By operator: the opset from which on its form is left to the converter, and what writes an older one anew."""


def old(op_types: str, until: int) -> Callable[[Rewriter], Rewriter]:
    """Register a function for some operators, as they are written before an opset."""

    def register(function: Rewriter) -> Rewriter:
        OLD.update(dict.fromkeys(op_types.split(), (until, function)))
        return function

    return register


def rewriter(op_type: str, version: int) -> Rewriter | None:
    """What writes an operator of an old opset anew; `None` where that is the converter's part."""
    until, function = OLD.get(op_type, (0, None))
    return function if version < until else None


@old("Softmax LogSoftmax Hardmax", until=13)
def flattened(site: Rewrite) -> ir.Value:
    """These flattened their input to a matrix: all axes from `axis` on were normalised together."""
    x, axis = site.given(0), site.attribute("axis", 1)
    dims = site.dims(x)
    if dims is not None:
        axis += len(dims) if axis < 0 else 0
        together = [index for index in range(axis, len(dims)) if dims[index] != 1]
        if len(together) < 2:
            return site.op(site.node.op_type, x, axis=together[0] if together else axis)
    shape = site.op("Shape", x)
    matrix = site.op(site.node.op_type, site.op("Flatten", x, axis=axis), axis=-1)
    return site.op("Reshape", matrix, shape)


@old("Upsample", until=10)
def upsample(site: Rewrite) -> ir.Value:
    """Upsample counted from the corner of the first pixel, where Resize counts from the pixels' centres."""
    scales = site.input(1)
    if scales is None:
        scales = site.constant(site.attribute("scales", ()), ir.DataType.FLOAT)
    return _resized(site, scales, "floor")


@old("Resize", until=11)
def resize(site: Rewrite) -> ir.Value:
    """As Upsample; the nearest pixel is the next lower one on an axis that grows, the next higher one on others."""
    scales = site.given(1)
    known = site.array(scales)
    if known is None or site.attribute("mode", "nearest") != "nearest" or bool((known >= 1).all()):
        return _resized(site, scales, "floor")
    if bool((known <= 1).all()):
        return _resized(site, scales, "ceil")
    grown = _resized(site, site.constant(np.maximum(known, 1), ir.DataType.FLOAT), "floor")
    return _resized(site, site.constant(np.minimum(known, 1), ir.DataType.FLOAT), "ceil", grown)


def _resized(site: Rewrite, scales: ir.Value, nearest: str, x: ir.Value | None = None) -> ir.Value:
    mode = site.attribute("mode", "nearest")
    return site.op(
        "Resize",
        x or site.given(0),
        None,
        scales,
        mode="linear" if mode == "bilinear" else mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode=nearest if mode == "nearest" else None,
    )


@old("BatchNormalization", until=14)
def batch_normalization(site: Rewrite) -> Sequence[ir.Value | None]:
    """It trained where more outputs than the first were listed, used or not; `spatial=0` gave every pixel its own."""
    x, *rest = (site.given(index) for index in range(5))
    epsilon = site.attribute("epsilon", 1e-5)
    if site.used(3) or site.used(4):
        raise site.refused("its saved mean and variance are used, which newer opsets do not have")
    if not site.attribute("spatial", 1) and site.rank(x) != 2:
        return [_each_pixel(site, x, rest, epsilon)]
    settings = {"epsilon": epsilon, "momentum": site.attribute("momentum")}
    if any(value.name for value in site.node.outputs[1:]):
        return site.ops("BatchNormalization", 3, x, *rest, training_mode=1, **settings)
    return [site.op("BatchNormalization", x, *rest, **settings)]


def _each_pixel(site: Rewrite, x: ir.Value, rest: Sequence[ir.Value], epsilon: float) -> ir.Value:
    scale, shift, mean, variance = rest
    deviation = site.op("Sqrt", site.op("Add", variance, site.like(epsilon, x)))
    normal = site.op("Div", site.op("Sub", x, mean), deviation)
    return site.op("Add", site.op("Mul", normal, scale), shift)


@old("Clip", until=11)
def clip(site: Rewrite) -> ir.Value:
    """The bounds are inputs of the dtype of what is clipped now; one that is not given still bounds nothing."""
    x = site.given(0)
    bounds = [site.attribute(name) for name in ("min", "max")]
    return site.op("Clip", x, *(None if bound is None else site.like(bound, x) for bound in bounds))


@old("Pad", until=11)
def pad(site: Rewrite) -> ir.Value:
    """The number to pad with is an input now, and only where it is one that pads."""
    pads, mode = site.attribute("pads", site.attribute("paddings")), site.attribute("mode", "constant")
    if pads is None:
        raise site.refused("it says no pads")
    x, number = site.given(0), site.attribute("value")
    fill = site.like(number, x) if number is not None and mode == "constant" else None
    return site.op("Pad", x, site.constant(pads), fill, mode=mode)


@old("Split", until=18)
def split(site: Rewrite) -> Sequence[ir.Value | None]:
    """Without sizes it made equal parts; how many they are has to be said now."""
    sizes, given, count = site.input(1), site.attribute("split"), len(site.node.outputs)
    if sizes is None and given is not None:
        sizes = site.constant(given)
    parts = count if sizes is None else None
    return site.ops("Split", count, site.given(0), sizes, axis=site.attribute("axis", 0), num_outputs=parts)


@old("GroupNormalization", until=21)
def group_normalization(site: Rewrite) -> ir.Value:
    """Each group had one scale and one bias, where now each channel has its own."""
    groups, dims = site.attribute("num_groups"), site.dims(site.given(0))
    if dims is None or not isinstance(dims[1], int):
        raise site.refused("how many channels it has is not known")

    def spread(value: ir.Value) -> ir.Value:
        column = site.op("Unsqueeze", value, site.constant([1]))
        each = site.op("Expand", column, site.constant([groups, dims[1] // groups]))
        return site.op("Reshape", each, site.constant([dims[1]]))

    scale, bias = spread(site.given(1)), spread(site.given(2))
    settings = {"epsilon": site.attribute("epsilon"), "num_groups": groups}
    return site.op("GroupNormalization", site.given(0), scale, bias, **settings)


@old("Cast", until=6)
def cast(site: Rewrite) -> ir.Value:
    """The dtype was given by its name."""
    name = str(site.attribute("to", ""))
    if name.upper() not in ir.DataType.__members__:
        raise site.refused(f"it casts to {name!r}, which is no dtype")
    return site.op("Cast", site.given(0), to=int(ir.DataType[name.upper()]))


@old("Add Sub Mul Div Pow And Or Xor Equal Greater Less", until=7)
def broadcast(site: Rewrite) -> ir.Value:
    """The second input stood at an axis of the first one; now it stands at the last axes."""
    a, b, axis = site.given(0), site.given(1), site.attribute("axis")
    if site.attribute("broadcast", 0) and axis is not None:
        whole, part = site.rank(a), site.rank(b)
        if whole is None or part is None:
            raise site.refused(f"its inputs are broadcast from axis {axis} on, and their ranks are not known")
        behind = whole - part - (axis + whole if axis < 0 else axis)
        if behind > 0:
            b = site.op("Unsqueeze", b, site.constant(range(-behind, 0)))
    return site.op(site.node.op_type, a, b)


@old("LayerNormalization", until=17)
def layer_normalization(site: Rewrite) -> Sequence[ir.Value | None]:
    """ONNX Runtime wrote it before the standard had it, with the same meaning."""
    settings = {name: site.attribute(name) for name in ("axis", "epsilon", "stash_type")}
    inputs = [site.input(index) for index in range(3)]
    return site.ops("LayerNormalization", len(site.node.outputs), *inputs, **settings)


@old("SimplifiedLayerNormalization", until=1 << 30)
def simplified_layer_normalization(site: Rewrite) -> ir.Value:
    """ONNX Runtime's name for RMSNormalization; it is in the standard's domain there."""
    if site.used(1):
        raise site.refused("its second output, the inverse deviation, is used")
    settings = {name: site.attribute(name) for name in ("axis", "epsilon", "stash_type")}
    return site.op("RMSNormalization", site.given(0), site.given(1), **settings)


@old("PRelu", until=7)
def prelu(site: Rewrite) -> ir.Value:
    """A slope of one axis belonged to the channels; now it would stand at the last axis."""
    x, slope = site.given(0), site.given(1)
    count, dims = site.rank(x), site.dims(slope)
    if count is not None and dims is not None and len(dims) == 1 and dims[0] != 1 and count > 2:
        slope = site.op("Unsqueeze", slope, site.constant(range(1, count - 1)))
    return site.op("PRelu", x, slope)
