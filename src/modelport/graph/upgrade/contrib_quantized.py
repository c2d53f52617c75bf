"""The quantized operators of ONNX Runtime, as the standard's operators between DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from modelport.graph.upgrade.rewriting import Rewrite, Rewriter

QUANTIZED: dict[str, Rewriter] = {}


def quantized(*op_types: str) -> Callable[[Rewriter], Rewriter]:
    def register(function: Rewriter) -> Rewriter:
        QUANTIZED.update(dict.fromkeys(op_types, function))
        return function

    return register


def _floats(site: Rewrite, first: int) -> ir.Value:
    """The numbers behind three inputs: quantized, scale, zero point."""
    return site.op("DequantizeLinear", site.given(first), site.given(first + 1), site.input(first + 2))


def _steps(site: Rewrite, value: ir.Value, first: int) -> ir.Value:
    """A result in the scale and zero point of two inputs."""
    return site.op("QuantizeLinear", value, site.given(first), site.input(first + 1))


@quantized("QuantizeLinear", "DequantizeLinear")
def linear(site: Rewrite) -> ir.Value:
    return site.op(site.node.op_type, site.given(0), site.given(1), site.input(2), axis=site.attribute("axis"))


@quantized("QLinearAdd", "QLinearMul")
def arithmetic(site: Rewrite) -> ir.Value:
    op_type = site.node.op_type.removeprefix("QLinear")
    return _steps(site, site.op(op_type, _floats(site, 0), _floats(site, 3)), 6)


@quantized("QLinearSigmoid")
def sigmoid(site: Rewrite) -> ir.Value:
    return _steps(site, site.op("Sigmoid", _floats(site, 0)), 3)


@quantized("QLinearLeakyRelu")
def leaky_relu(site: Rewrite) -> ir.Value:
    return _steps(site, site.op("LeakyRelu", _floats(site, 0), alpha=site.attribute("alpha")), 3)


@quantized("QLinearSoftmax")
def softmax(site: Rewrite) -> ir.Value:
    x, axis = _floats(site, 0), site.attribute("axis", -1)
    rank = site.rank(site.given(0))
    last = rank is not None and axis in (-1, rank - 1)
    if site.attribute("opset", 13) < 13 and not last:
        raise site.refused("it normalises several axes together, as Softmax did before opset 13")
    return _steps(site, site.op("Softmax", x, axis=axis), 3)


@quantized("QLinearGlobalAveragePool")
def global_average_pool(site: Rewrite) -> ir.Value:
    if site.attribute("channels_last", 0):
        raise site.refused("it has its channels last")
    return _steps(site, site.op("GlobalAveragePool", _floats(site, 0)), 3)


@quantized("QLinearAveragePool")
def average_pool(site: Rewrite) -> ir.Value:
    if site.attribute("channels_last", 0):
        raise site.refused("it has its channels last")
    names = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
    settings = {name: site.attribute(name) for name in names}
    return _steps(site, site.op("AveragePool", _floats(site, 0), **settings), 3)


@quantized("QLinearConcat")
def concat(site: Rewrite) -> ir.Value:
    parts = [_floats(site, first) for first in range(2, len(site.node.inputs), 3)]
    return _steps(site, site.op("Concat", *parts, axis=site.attribute("axis")), 0)


@quantized("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(site: Rewrite) -> ir.Value:
    steps, scale, zero = site.ops("DynamicQuantizeLinear", 3, site.given(0))
    product = site.op("MatMulInteger", steps, site.given(1), zero, site.input(3))
    return _scaled(site, product, scale, site.given(2), site.input(4))


@quantized("MatMulIntegerToFloat")
def matmul_integer_to_float(site: Rewrite) -> ir.Value:
    product = site.op("MatMulInteger", site.given(0), site.given(1), site.input(4), site.input(5))
    return _scaled(site, product, site.given(2), site.given(3), site.input(6))


def _scaled(site: Rewrite, product: ir.Value, a: ir.Value, b: ir.Value, bias: ir.Value | None) -> ir.Value:
    numbers = site.op("Cast", product, to=int(site.dtype(b)))
    return site.total(site.op("Mul", numbers, site.op("Mul", a, b)), bias)


@quantized("MatMulNBits")
def matmul_n_bits(site: Rewrite) -> ir.Value:
    """A weight of 4 or 8 bits, in blocks along its rows, each with a scale."""
    rows, columns, bits = site.attribute("N"), site.attribute("K"), site.attribute("bits", 4)
    block = site.attribute("block_size")
    packed, scales, zeros = site.array(site.input(1)), site.array(site.input(2)), site.array(site.input(3))
    if packed is None or scales is None or (zeros is None) != (site.input(3) is None):
        raise site.refused("its weight, scales or zero points are computed when the model runs")
    if bits not in (4, 8) or site.input(4) is not None:
        raise site.refused(f"its weight has {bits} bits, or an order of its own (g_idx)")
    count = -(-columns // block)
    kind = ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8
    weight = unpacked(packed, bits).reshape(rows, count * block)
    if zeros is None:
        points = site.constant(np.full((rows, count), 1 << (bits - 1)), kind)
    elif zeros.dtype == np.uint8:
        points = site.constant(unpacked(zeros.reshape(rows, -1), bits)[:, :count], kind)
    else:
        raise site.refused("its zero points are no integers")
    scale = site.constant(scales.reshape(rows, count), ir.DataType.from_numpy(scales.dtype))
    numbers = site.op("DequantizeLinear", site.constant(weight, kind), scale, points, axis=1, block_size=block)
    if count * block != columns:
        numbers = site.op("Slice", numbers, site.constant([0]), site.constant([columns]), site.constant([1]))
    product = site.op("MatMul", site.given(0), site.op("Transpose", numbers, perm=[1, 0]))
    return site.total(product, site.input(5))


def unpacked(array: np.ndarray, bits: int) -> np.ndarray:
    """One number per element, of bytes that hold one of 8 bits or two of 4, the lower one first."""
    if bits == 8:
        return array
    both = np.stack([array & 15, array >> 4], axis=-1)
    return both.reshape(*array.shape[:-1], -1)
