"""Fused operators of ONNX Runtime: activations with a bias, products, norms with what is added before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from modelport.graph.upgrade.rewriting import Rewrite, Rewriter

FUSED: dict[str, Rewriter] = {}


def fused(op_type: str) -> Callable[[Rewriter], Rewriter]:
    def register(function: Rewriter) -> Rewriter:
        FUSED[op_type] = function
        return function

    return register


@fused("Gelu")
def gelu(site: Rewrite) -> ir.Value:
    return site.op("Gelu", site.given(0))


@fused("BiasGelu")
def bias_gelu(site: Rewrite) -> ir.Value:
    return site.op("Gelu", site.total(site.given(0), site.input(1)))


@fused("FastGelu")
def fast_gelu(site: Rewrite) -> ir.Value:
    return site.op("Gelu", site.total(site.given(0), site.input(1)), approximate="tanh")


@fused("QuickGelu")
def quick_gelu(site: Rewrite) -> ir.Value:
    x = site.given(0)
    slope = site.op("Mul", x, site.like(site.attribute("alpha", 1.702), x))
    return site.op("Mul", x, site.op("Sigmoid", slope))


@fused("BiasAdd")
def bias_add(site: Rewrite) -> ir.Value:
    return site.total(site.given(0), site.given(1), site.given(2))


@fused("FusedMatMul")
def fused_matmul(site: Rewrite) -> ir.Value:
    if site.attribute("transBatchA", 0) or site.attribute("transBatchB", 0):
        raise site.refused("it moves the axes of the batch (transBatchA, transBatchB)")
    a = _transposed(site, site.given(0)) if site.attribute("transA", 0) else site.given(0)
    b = _transposed(site, site.given(1)) if site.attribute("transB", 0) else site.given(1)
    product, alpha = site.op("MatMul", a, b), site.attribute("alpha", 1.0)
    return product if alpha == 1 else site.op("Mul", product, site.like(alpha, site.given(0)))


FUSED["TransposeMatMul"] = fused_matmul


def _transposed(site: Rewrite, value: ir.Value) -> ir.Value:
    rank = site.rank(value)
    if rank is None:
        raise site.refused(f"the rank of {value.name!r} is not known")
    if rank < 2:
        return value
    return site.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


_ACTIVATIONS = {"Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


def _activated(site: Rewrite, value: ir.Value, numbers: Sequence[float]) -> ir.Value:
    """The activation that is part of a fused operator."""
    name = site.attribute("activation", "")
    if not name:
        return value
    if name == "Clip":
        low, high = (site.like(number, value) for number in numbers)
        return site.op("Clip", value, low, high)
    if name == "HardSwish":
        return site.op("HardSwish", value)
    if name not in _ACTIVATIONS:
        raise site.refused(f"its activation {name!r} is not known")
    return site.op(name, value, **dict(zip(_ACTIVATIONS[name], numbers, strict=False)))


@fused("FusedGemm")
def fused_gemm(site: Rewrite) -> ir.Value:
    settings = {name: site.attribute(name) for name in ("alpha", "beta", "transA", "transB")}
    numbers = [site.attribute(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    product = site.op("Gemm", site.given(0), site.given(1), site.input(2), **settings)
    return _activated(site, product, [number for number in numbers if number is not None])


@fused("FusedConv")
def fused_conv(site: Rewrite) -> ir.Value:
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    settings = {name: site.attribute(name) for name in names}
    product = site.op("Conv", site.given(0), site.given(1), site.input(2), **settings)
    return _activated(site, site.total(product, site.input(3)), site.attribute("activation_params", ()))


def _only(site: Rewrite, *places: int) -> None:
    """Refuse outputs that the standard's operator does not have."""
    extra = [index for index in range(len(site.node.outputs)) if index not in places and site.used(index)]
    if extra:
        raise site.refused(f"its outputs {extra}, statistics for training, are used")


@fused("SkipLayerNormalization")
def skip_layer_normalization(site: Rewrite) -> Sequence[ir.Value | None]:
    _only(site, 0, 3)
    total = site.total(site.given(0), site.given(1), site.input(4))
    epsilon = site.attribute("epsilon", 1e-12)
    return [
        site.op("LayerNormalization", total, site.given(2), site.input(3), axis=-1, epsilon=epsilon),
        None,
        None,
        total,
    ]


@fused("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(site: Rewrite) -> Sequence[ir.Value | None]:
    _only(site, 0, 3)
    total = site.total(site.given(0), site.given(1), site.input(3))
    epsilon = site.attribute("epsilon", 1e-12)
    return [site.op("RMSNormalization", total, site.given(2), axis=-1, epsilon=epsilon), None, None, total]


@fused("EmbedLayerNormalization")
def embed_layer_normalization(site: Rewrite) -> Sequence[ir.Value | None]:
    ids, segments, words, positions, kinds, scale, shift, mask, places = (site.input(index) for index in range(9))
    if ids is None or words is None or positions is None:
        raise site.refused("its ids or its tables are missing")
    if places is None:
        length = site.op("Shape", ids, start=1, end=2)
        where = site.op("Slice", positions, site.constant([0]), length, site.constant([0]))
    else:
        where = site.op("Gather", positions, places)
    total = site.total(site.op("Gather", words, ids), where)
    if segments is not None and kinds is not None:
        total = site.op("Add", total, site.op("Gather", kinds, segments))
    epsilon = site.attribute("epsilon", 1e-12)
    normal = site.op("LayerNormalization", total, scale, shift, axis=-1, epsilon=epsilon)
    lengths = None
    if site.used(1):
        if mask is None:
            raise site.refused("the lengths that it counts are used, and it has no mask")
        lengths = site.op("ReduceSum", site.op("Cast", mask, to=int(ir.DataType.INT32)), site.constant([1]), keepdims=0)
    return [normal, lengths, total]


@fused("GroupNorm")
def group_norm(site: Rewrite) -> ir.Value:
    x, last = site.given(0), site.attribute("channels_last", 1)
    rank = site.rank(x)
    if rank is None:
        raise site.refused("the rank of its input is not known")
    if last:
        x = site.op("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])
    epsilon, groups = site.attribute("epsilon", 1e-5), site.attribute("groups")
    y = site.op("GroupNormalization", x, site.given(1), site.given(2), epsilon=epsilon, num_groups=groups)
    if site.attribute("activation", 0):
        y = site.op("Mul", y, site.op("Sigmoid", y))
    return site.op("Transpose", y, perm=[0, *range(2, rank), 1]) if last else y
