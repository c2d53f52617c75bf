"""Operators that multiply and accumulate: how many times each does, and what else it computes.

A multiply-accumulate (MAC) is one product added to a sum. They are counted as `torch.utils.flop_counter` and fvcore
count products: convolutions, matrix products, attention and recurrences, over every element of the result, those that
padding or a causal mask make zero too.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from modelport.graph.cost.sized import Sized, Untold


class Work(NamedTuple):
    """What one run of a node computes.

    Attributes:
        macs: multiply-accumulates.
        others: floating-point operations besides; the node's FLOPs are `2 * macs + others`.
    """

    macs: int = 0
    others: int = 0

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.others


Rule = Callable[[Sized], Work]
PRODUCTS: dict[str, Rule] = {}
"""Rules by operator, `domain.operator` outside ONNX's own domain."""

_SCALING = 2
"""Operations that bring one element of a quantized result to its scale and zero point."""

_SAMPLE = 8
"""Operations of one bilinear sample: four products, three sums, the mask."""


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        PRODUCTS.update(dict.fromkeys(op_types, function))
        return function

    return register


def _convolution(site: Sized, weight: int, bias: int) -> Work:
    result = prod(site.out())
    return Work(result * prod(site.dims(weight)[1:]), result if site.has(bias) else 0)


@rule("Conv")
def conv(site: Sized) -> Work:
    return _convolution(site, 1, 2)


@rule("ConvInteger")
def conv_integer(site: Sized) -> Work:
    return Work(prod(site.out()) * prod(site.dims(1)[1:]))


@rule("QLinearConv")
def qlinear_conv(site: Sized) -> Work:
    macs, bias = _convolution(site, 3, 8)
    return Work(macs, bias + _SCALING * prod(site.out()))


@rule("ConvTranspose")
def conv_transpose(site: Sized) -> Work:
    return Work(prod(site.dims(0)) * prod(site.dims(1)[1:]), prod(site.out()) if site.has(2) else 0)


@rule("DeformConv")
def deform_conv(site: Sized) -> Work:
    macs, bias = _convolution(site, 1, 3)
    out, kernel = site.out(), site.dims(1)[2:]
    samples = out[0] * site.dims(0)[1] * prod(out[2:]) * prod(kernel)
    return Work(macs, bias + _SAMPLE * samples)


@rule("CausalConvWithState")
def causal_conv(site: Sized) -> Work:
    result = prod(site.out())
    activation = 2 * result if site.attr("activation", "none") != "none" else 0
    return Work(result * site.dims(1)[-1], activation + (result if site.has(2) else 0))


@rule("Gemm")
def gemm(site: Sized) -> Work:
    inner = site.dims(0)[0 if site.attr("transA", 0) else 1]
    result = prod(site.out())
    return Work(result * inner, result if site.has(2) else 0)


@rule("MatMul", "MatMulInteger")
def matmul(site: Sized) -> Work:
    return Work(prod(site.out()) * site.dims(0)[-1])


@rule("QLinearMatMul")
def qlinear_matmul(site: Sized) -> Work:
    result = prod(site.out())
    return Work(result * site.dims(0)[-1], _SCALING * result)


@rule("com.microsoft.MatMulNBits")
def matmul_n_bits(site: Sized) -> Work:
    rows, result = prod(site.dims(0)[:-1]), prod(site.out())
    return Work(rows * site.attr("N") * site.attr("K"), result if site.has(5) else 0)


@rule("Einsum")
def einsum(site: Sized) -> Work:
    """Two operands at a time, from left to right; an index that no one needs any more is summed over."""
    terms, kept = _einsum_terms(site)
    first, *rest = terms
    macs = others = 0
    for place, term in enumerate(rest):
        needed = set(kept).union(*rest[place + 1 :])
        both = {**first, **{index: max(size, first.get(index, 1)) for index, size in term.items()}}
        left = {index: size for index, size in both.items() if index in needed}
        if len(left) < len(both):
            macs += prod(both.values())
        else:
            others += prod(both.values())
        first = left
    if len(terms) == 1 and set(first) - set(kept):
        others += prod(first.values())
    return Work(macs, others)


def _einsum_terms(site: Sized) -> tuple[list[dict[str, int]], list[str]]:
    """The size of each index of every operand, and the indices of the result; an axis of `...` is named by its place
    from the end."""
    text, arrow, result = site.attr("equation").replace(" ", "").partition("->")
    terms = []
    for place, term in enumerate(text.split(",")):
        shape = site.dims(place)
        terms.append(dict(zip(_indices(term, len(shape)), shape, strict=True)))
    if arrow:
        named = {index for term in terms for index in term if index.startswith("...")}
        return terms, [*result.replace("...", ""), *(named if "..." in result else ())]
    letters = text.replace(",", "").replace("...", "")
    every = {index for term in terms for index in term}
    return terms, [index for index in every if letters.count(index) == 1 or index.startswith("...")]


def _indices(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    axes = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"...{axes - place}" for place in range(axes)), *after]


@rule("Attention")
def attention(site: Sized) -> Work:
    """Scores and their use, and what is done to each score: scaled, masked, capped, softmax."""
    query, key, value = (_heads(site, index) for index in range(3))
    batch, heads, length, size = query
    steps = key[2] + (site.dims(4)[2] if site.has(4) else 0)
    scores = batch * heads * length * steps
    masked = site.has(3) or site.attr("is_causal", 0)
    each = 1 + SOFTMAX + (1 if masked else 0) + (3 if site.attr("softcap", 0.0) else 0)
    return Work(scores * (size + value[3]), scores * each)


SOFTMAX = 3
"""Operations per element: the power, the sum, the quotient."""


def _heads(site: Sized, index: int) -> tuple[int, int, int, int]:
    """Batch, heads, length and head size of the query, key or value."""
    dims = site.dims(index)
    if len(dims) == 4:
        return dims[0], dims[1], dims[2], dims[3]
    count = site.attr("kv_num_heads" if index else "q_num_heads", 0)
    if len(dims) != 3 or not count:
        raise Untold(f"the heads of {site.node.name}")
    return dims[0], count, dims[1], dims[2] // count


@rule("LinearAttention")
def linear_attention(site: Sized) -> Work:
    """The outer product into the state, the query on it and, for the delta rules, what the state already says."""
    (batch, heads, length, size), (_, shared, _, _), value = (_heads(site, index) for index in range(3))
    update = site.attr("update_rule", "gated_delta")
    state = size * value[3]
    macs = batch * length * state * (heads + shared * (2 if update.endswith("delta") else 1))
    return Work(macs, batch * length * state * shared if update.startswith("gated") else 0)


@rule("LSTM", "GRU", "RNN")
def recurrent(site: Sized) -> Work:
    """Every gate is a product with the input and one with the state; elementwise work per unit and step.

    LSTM: 4 sums of both products, 5 activations, 3 products and a sum; GRU: 3, 3 and 5; RNN: 1 and 1. A bias adds one
    operation per gate.
    """
    gates, each = {"LSTM": (4, 13), "GRU": (3, 11), "RNN": (1, 2)}[site.node.op_type]
    directions, rows, size = site.dims(1)
    hidden = rows // gates
    steps = directions * prod(site.dims(0)[:2])
    bias = gates if site.has(3) else 0
    return Work(steps * rows * (size + hidden), steps * hidden * (each + bias))


@rule("AffineGrid")
def affine_grid(site: Sized) -> Work:
    return Work(prod(site.out()) * site.dims(0)[-1])
