"""Operators that multiply and accumulate nothing: their floating-point operations, or none where they move data.

An elementary function of one element is one operation, whatever a kernel needs for it; an operator that the standard
defines by several counts all of them. Normalizations count as fvcore counts them (two operations per element for a
BatchNormalization, five for the others with scale and bias), poolings and reductions one per element that they read.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2, prod

from modelport.graph.cost.products import SOFTMAX, Rule, Work
from modelport.graph.cost.sized import Sized, Untold

_PER_OUTPUT = {
    1: (
        "Abs Acos Acosh Add Asin Asinh Atan Atanh Bernoulli Ceil Cos Cosh Div Equal Erf Exp Floor Greater "
        "GreaterOrEqual IsInf IsNaN LeakyRelu Less LessOrEqual Log Mod Mul Neg Pow PRelu RandomNormal "
        "RandomNormalLike RandomUniform RandomUniformLike Reciprocal Relu Round Sigmoid Sign Sin Sinh Sqrt Sub Tan "
        "Tanh ThresholdedRelu"
    ),
    2: "Clip DequantizeLinear HardSigmoid HardSwish QuantizeLinear Range Softplus Softsign Swish",
    3: "Celu Elu Mish Selu Shrink SwiGLU",
    4: "DynamicQuantizeLinear HammingWindow HannWindow",
    7: "BlackmanWindow",
}
_PER_INPUT = {
    1: (
        "ArgMax ArgMin Col2Im CumProd CumSum GlobalAveragePool GlobalMaxPool Hardmax NegativeLogLikelihoodLoss "
        "ReduceLogSum ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum"
    ),
    2: "BatchNormalization GlobalLpPool ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare",
    3: "LogSoftmax LpNormalization Softmax",
    4: "MeanVarianceNormalization RMSNormalization SoftmaxCrossEntropyLoss",
    5: "GroupNormalization InstanceNormalization",
}
assert SOFTMAX in _PER_INPUT

_MOVING = (
    "BitCast Cast CastLike CenterCropPad Compress Concat ConcatFromSequence Constant ConstantOfShape DepthToSpace "
    "Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop MaxUnpool NonZero OneHot Optional "
    "OptionalGetElement OptionalHasElement Pad Reshape ReverseSequence Scan SequenceAt SequenceConstruct SequenceEmpty "
    "SequenceErase SequenceInsert SequenceLength Shape Size Slice SpaceToDepth Split SplitToSequence Squeeze "
    "TensorScatter Tile Transpose Trilu Unsqueeze Where"
)
MOVES = frozenset(_MOVING.split())
"""Operators that move and choose data and compute nothing; those that hold graphs cost what is inside."""

OTHERS: dict[str, Rule] = {}
"""Rules by operator; of ONNX's own domain."""


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        OTHERS.update(dict.fromkeys(op_types, function))
        return function

    return register


def _per_output(times: int) -> Rule:
    return lambda site: Work(others=times * prod(site.out()))


def _per_input(times: int) -> Rule:
    return lambda site: Work(others=times * prod(site.dims(0)))


for _table, _rule in ((_PER_OUTPUT, _per_output), (_PER_INPUT, _per_input)):
    for _times, _names in _table.items():
        OTHERS.update(dict.fromkeys(_names.split(), _rule(_times)))


@rule("Sum", "Max", "Min")
def several(site: Sized) -> Work:
    return Work(others=(len(site.node.inputs) - 1) * prod(site.out()))


@rule("Mean")
def mean(site: Sized) -> Work:
    return Work(others=len(site.node.inputs) * prod(site.out()))


@rule("Gelu")
def gelu(site: Sized) -> Work:
    each = 8 if site.attr("approximate", "none") == "tanh" else 5
    return Work(others=each * prod(site.out()))


@rule("LayerNormalization")
def layer_normalization(site: Sized) -> Work:
    return Work(others=(5 if site.has(2) else 4) * prod(site.dims(0)))


@rule("MaxPool", "AveragePool", "LpPool")
def pool(site: Sized) -> Work:
    each = 2 if site.node.op_type == "LpPool" else 1
    return Work(others=each * prod(site.out()) * prod(site.attr("kernel_shape")))


@rule("LRN")
def local_response(site: Sized) -> Work:
    return Work(others=(site.attr("size") + 5) * prod(site.out()))


def _taps(mode: str, axes: int) -> int:
    """The samples that one result of an interpolation over some axes is the weighted sum of; 0 for the nearest."""
    return {"linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}.get(mode, 0) ** axes


@rule("Resize")
def resize(site: Sized) -> Work:
    before, after = site.dims(0), site.out()
    axes = sum(old != new for old, new in zip(before, after, strict=True))
    return Work(others=2 * _taps(site.attr("mode", "nearest"), axes) * prod(after) if axes else 0)


@rule("GridSample")
def grid_sample(site: Sized) -> Work:
    return Work(others=2 * _taps(site.attr("mode", "linear"), len(site.out()) - 2) * prod(site.out()))


@rule("RoiAlign")
def roi_align(site: Sized) -> Work:
    samples = site.attr("sampling_ratio", 0)
    if samples < 1:
        raise Untold(f"the samples of {site.node.name}")
    return Work(others=8 * samples**2 * prod(site.out()))


@rule("ScatterElements", "ScatterND")
def scatter(site: Sized) -> Work:
    return Work(others=0 if site.attr("reduction", "none") == "none" else prod(site.dims(2)))


@rule("RotaryEmbedding")
def rotary_embedding(site: Sized) -> Work:
    """Of each pair two products and one sum per element, in the part that turns."""
    dims = site.dims(0)
    heads = site.attr("num_heads", 0)
    size = dims[-1] // heads if len(dims) == 3 and heads else dims[-1]
    turning = site.attr("rotary_embedding_dim", 0) or size
    return Work(others=3 * prod(dims) * turning // size)


@rule("DFT")
def dft(site: Sized) -> Work:
    """`5 n log2(n)` per signal: the count of Cooley and Tukey's algorithm, as FFTW reports its speed."""
    axis = site.node.inputs[2] if site.has(2) else None
    place = -2 if axis is None or axis.const_value is None else int(axis.const_value.numpy())
    dims, result = site.dims(0), site.out()
    length = max(dims[place], result[place])
    signals = prod(dims[:-1]) // dims[place]
    return Work(others=round(5 * length * log2(length) * signals) if length > 1 else 0)


@rule("STFT")
def stft(site: Sized) -> Work:
    """A DFT, see `dft`, of every frame, and its window."""
    batch, frames, bins, _ = site.out()
    length = 2 * (bins - 1) if site.attr("onesided", 1) else bins
    each = 5 * length * log2(length) if length > 1 else 0
    return Work(others=round(batch * frames * (each + (length if site.has(2) else 0))))


@rule("Det")
def det(site: Sized) -> Work:
    """`2/3 n^3` of an LU decomposition (Golub and Van Loan, *Matrix Computations*, 4th ed., section 3.2)."""
    dims = site.dims(0)
    return Work(others=round(2 / 3 * dims[-1] * prod(dims)))
