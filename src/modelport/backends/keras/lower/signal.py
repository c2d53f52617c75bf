"""Fourier transforms. A complex tensor is a real one with real and imaginary parts on a last axis of its own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.static import sizes
from modelport.backends.keras.lower.table import op

_PARTS = {"complex64": ir.DataType.FLOAT, "complex128": ir.DataType.DOUBLE}


def _known(g: Context, value: ir.Value) -> ir.Value:
    """A complex result, with the dtype of its parts and the shape of the pair."""
    result = g.op.outputs[0]
    shape = sizes(result)
    value.type = ir.TensorType(_PARTS[result.dtype.name])
    value.shape = None if shape is None else ir.Shape([*shape, 2])
    return value


def _of_size(g: Context, x: ir.Value, size: int, *, behind: int = 0) -> ir.Value:
    """The axis that is transformed cut, or filled up with zeros; `behind` axes follow it in the graph.

    Raises:
        UnsupportedOpError: the size that it has is not known.
    """
    shape = g.shape(0)
    own = None if shape is None else shape[-1]
    if own is None:
        raise g.fail("the size of the axis that is transformed is not known")
    if own > size:
        return g("Slice", x, [0], [size], [-1 - behind])
    if own < size:
        before, after = [0] * (g.rank(0) - 1), [0] * behind
        return g("Pad", x, [*before, 0, *after, *before, size - own, *after])
    return x


@op("RFFT", static=(1,), complex_=True)
def rfft(g: Context, x: ir.Value, length: np.ndarray) -> ir.Value:
    x = _of_size(g, x, int(length.ravel()[0]))
    x.type = x.type or ir.TensorType(g.dtype(0))
    return _known(g, g("DFT", g("Unsqueeze", x, [-1]), None, np.asarray(-2, np.int64), onesided=1))


@op("IRFFT", static=(1,), complex_=True)
def irfft(g: Context, x: ir.Value, length: np.ndarray) -> ir.Value:
    count = int(length.ravel()[0])
    x = _of_size(g, x, count // 2 + 1, behind=1)
    found = g("DFT", x, np.asarray(count, np.int64), np.asarray(-2, np.int64), inverse=1, onesided=1)
    return g("Gather", found, np.asarray(0, np.int64), axis=-1)


@op("FFT", "IFFT", "FFT2D", "IFFT2D", "FFT3D", "IFFT3D", complex_=True)
def fft(g: Context, x: ir.Value) -> ir.Value:
    axes = {"2D": (-2, -3), "3D": (-2, -3, -4)}.get(g.op.type[-2:], (-2,))
    for axis in axes:
        x = g("DFT", x, None, np.asarray(axis, np.int64), inverse=int(g.op.type.startswith("I")))
    return _known(g, x)


@op("Real", "Imag", complex_=True)
def part(g: Context, x: ir.Value) -> ir.Value:
    return g("Gather", x, np.asarray(int(g.op.type == "Imag"), np.int64), axis=-1)


@op("ComplexAbs", complex_=True)
def complex_abs(g: Context, x: ir.Value) -> ir.Value:
    return g("ReduceL2", x, [-1], keepdims=0)


@op("Complex", complex_=True)
def complex_(g: Context, real: ir.Value, imaginary: ir.Value) -> ir.Value:
    return _known(g, g("Concat", g("Unsqueeze", real, [-1]), g("Unsqueeze", imaginary, [-1]), axis=-1))


@op("Conj", complex_=True)
def conjugate(g: Context, x: ir.Value) -> ir.Value:
    return _known(g, g("Mul", x, np.asarray([1, -1], _PARTS[g.op.inputs[0].dtype.name].numpy())))


@op("Angle", complex_=True)
def angle(g: Context, x: ir.Value) -> ir.Value:
    real, imaginary = (g("Gather", x, np.asarray(i, np.int64), axis=-1) for i in range(2))
    size, zero = g("ReduceL2", x, [-1], keepdims=0), np.asarray(0, np.float32)
    # Half of the angle has a tangent of one form, for all but the numbers below zero.
    sum_ = g("Where", g("Equal", size, zero), np.asarray(1, np.float32), g("Add", size, real))
    below = g("And", g("Equal", imaginary, zero), g("Less", real, zero))
    angles = g("Mul", g("Atan", g("Div", imaginary, sum_)), np.asarray(2, np.float32))
    return g("Where", below, np.asarray(np.pi, np.float32), angles)
