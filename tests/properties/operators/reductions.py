"""Over axes: sums and their kin, extremes and where they are, running sums, normalised exponentials."""

from __future__ import annotations

import numpy as np

from tests.properties.drawing import F16, F32, F64, FLOATS, I32, I64, INTEGERS, NUMBERS, Scope, Unfit, Value
from tests.properties.operators.registry import operator

REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
              "ReduceProd", "ReduceSum", "ReduceSumSquare")  # fmt: skip


def some_axes(s: Scope, x: Value) -> list[int]:
    """Some axes in any order, counted from either end."""
    axes = [axis for axis in range(x.rank) if s.chance(40)]
    if s.chance(20):
        axes.reverse()
    return [axis - x.rank if s.opset >= 11 and s.chance(25) else axis for axis in axes]


@operator(weight=6)
def reduce(s: Scope) -> None:
    name = s.choose(REDUCTIONS)
    x = s.bounded(0.1, 50) if name == "ReduceLogSum" else s.value((F32, F64, I32, I64, F16))
    if name == "ReduceProd" and x.dtype in INTEGERS and any(_overflows(array) for array in x.worlds):
        # What lies beyond int32, ONNX Runtime multiplies otherwise.
        raise Unfit
    if name == "ReduceL2" and x.dtype in INTEGERS and any(_overflows_as_a_square(array) for array in x.worlds):
        # The reference evaluator squares in the integer's own dtype.
        raise Unfit
    axes, keep = some_axes(s, x), s.choose([None, 0, 1])
    if s.opset < (13 if name == "ReduceSum" else 18):
        s.op(name, x, axes=axes or None, keepdims=keep)
    else:
        empty = s.choose([None, 1, 0]) if not axes else None
        given = s.ints(axes) if axes or s.chance(30) else None
        s.op(name, x, given, keepdims=keep, noop_with_empty_axes=empty)


def _overflows(array: np.ndarray) -> bool:
    return bool(np.maximum(np.abs(array.astype(np.float64)), 1.0).prod() >= 2.0**31)


def _overflows_as_a_square(array: np.ndarray) -> bool:
    return bool((array.astype(np.float64) ** 2).sum() >= float(np.iinfo(array.dtype).max))


@operator(7, weight=2)
def extreme(s: Scope) -> None:
    x = s.value(NUMBERS)
    if x.dtype in FLOATS and any(np.any(np.signbit(array) & (array == 0)) for array in x.worlds):
        # Keras orders the two zeros.
        raise Unfit
    axis = s.axis(x)
    last = s.choose([None, 0, 1]) if s.opset >= 12 else None
    s.op(s.choose(["ArgMax", "ArgMin"]), x, axis=s.maybe(axis), keepdims=s.choose([None, 0, 1]), select_last_index=last)


@operator(11, weight=2)
def cumulative(s: Scope) -> None:
    x = s.value((F32, F64, I32, I64))
    name = "CumProd" if s.opset >= 26 and s.chance(40) else "CumSum"
    axis = s.ints(s.axis(x), s.choose([I64, I32]))
    s.op(name, x, axis, exclusive=s.choose([None, 1, 0]), reverse=s.choose([None, 1, 0]))


@operator(10, weight=2)
def top_k(s: Scope) -> None:
    x = s.value((F32, F64, I64, I32) if s.opset >= 11 else FLOATS)
    axis = s.axis(x)
    size = x.dims[axis]
    k = s.integer(1, size if isinstance(size, int) else min(size))
    attributes = {"largest": s.choose([None, 0, 1]), "sorted": s.choose([None, 1])} if s.opset >= 11 else {}
    s.ops("TopK", [x, s.ints([k])], (True, True), axis=axis, **attributes)


@operator(7, weight=3)
def normalised_exponential(s: Scope) -> None:
    x = s.value()
    axis = s.axis(x)
    s.op(s.choose(["Softmax", "LogSoftmax", "Hardmax"]), x, axis=s.maybe(axis))


@operator(12)
def loss(s: Scope) -> None:
    name = s.choose(["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"])
    x = s.value((F32, F64), (2, 3, 4), lambda v: v.is_static(1))
    classes = x.dims[1]
    assert isinstance(classes, int)
    target = s.leaf((x.dims[0], *x.dims[2:]), s.choose([I64, I32]), 0, classes - 1)
    weight = s.weight((classes,), x.dtype, 0.2, 2) if s.chance(40) else None
    settings = {
        "reduction": s.choose([None, "mean", "sum", "none"]),
        "ignore_index": s.maybe(s.integer(0, classes - 1)),
    }
    outputs = (True, s.chance(30)) if name.startswith("Softmax") else (True,)
    s.ops(name, [x, target, weight], outputs, **settings)


@operator(11)
def determinant(s: Scope) -> None:
    size = s.integer(1, 3)
    x = s.value(
        (F32, F64),
        (2, 3, 4),
        lambda v: v.dims[-2:] == (size, size),
        lambda: s.leaf((*s.dims(s.integer(0, 2)), size, size)),
    )
    s.op("Det", x)


@operator(17)
def spectrum(s: Scope) -> None:
    """A discrete Fourier transform of real or complex numbers."""
    inverse, onesided = s.choose([None, 1, 0]), s.choose([None, 1, 0])
    if inverse:
        onesided = None if s.opset < 20 else onesided
    complex_ = bool(inverse) or s.chance(40)
    rank = s.integer(2, 4)
    x = s.leaf((*s.dims(rank - 1), 2 if complex_ else 1), s.choose([F32, F64]))
    axis = s.integer(0 if s.opset >= 20 else 1, rank - 2)
    length = s.ints(s.integer(2, 6)) if s.chance(30) else None
    if onesided and complex_:
        raise Unfit
    if s.opset < 20:
        s.op("DFT", x, length, axis=axis, inverse=inverse, onesided=onesided)
    else:
        s.op("DFT", x, length, s.ints(axis), inverse=inverse, onesided=onesided)


@operator(17)
def window(s: Scope) -> None:
    size = s.ints(s.integer(2, 9), s.choose([I64, I32]))
    s.op(s.choose(["HannWindow", "HammingWindow", "BlackmanWindow"]), size, periodic=s.choose([None, 0, 1]))


@operator(17)
def short_time_spectrum(s: Scope) -> None:
    length, frame = s.integer(8, 16), s.integer(3, 6)
    x = s.leaf((s.dim(), length, 1), F32)
    frames = s.weight((frame,), F32, 0.1, 1) if s.chance(50) else None
    size = s.ints(frame) if frames is None or s.chance(50) else None
    s.op("STFT", x, s.ints(s.integer(1, 4)), frames, size, onesided=s.choose([None, 0, 1]))


@operator(17)
def mel_weights(s: Scope) -> None:
    settings = [s.ints(s.integer(2, 8)), s.ints(s.choose([16, 32])), s.ints(8000)]
    edges = [s.given(np.asarray(number, np.float32)) for number in (s.choose([0.0, 20.0]), 3000.0)]
    s.op("MelWeightMatrix", *settings, *edges)
