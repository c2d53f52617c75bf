"""Attention, and what goes with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from keras import layers, ops

from modelport.backends.keras.ops.registry import op
from modelport.backends.keras.ops.tensors import along, cast, dtype, keras_dtype, part, plus, precise, rank, size, sizes
from modelport.graph.splice import BUILD_DOMAIN, is_op, scalar


def _heads(x: Any, count: int) -> Any:
    """(batch, sequence, heads * features) -> (batch, heads, sequence, features)."""
    return ops.transpose(_with_rest(x, (count, size(x, 2) // count)), (0, 2, 1, 3))


def _joined(x: Any) -> Any:
    """(batch, heads, sequence, features) -> (batch, sequence, heads * features)."""
    return _with_rest(ops.transpose(x, (0, 2, 1, 3)), (size(x, 1) * size(x, 3),))


def _with_rest(x: Any, rest: tuple[int, ...]) -> Any:
    """(batch, sequence, ...) with other sizes after these two, which may be unknown."""
    if sizes(x)[1] is not None:
        return ops.reshape(x, (-1, sizes(x)[1], *rest))
    return layers.Reshape((-1, *rest), dtype=dtype(x))(x)


def _bias(q: Any, k: Any, mask: Any, limits: tuple[int | None, int | None], offset: Any) -> Any:
    """What is added to the scores: the mask, and -inf outside of what a query may see.

    Args:
        q: (batch, heads, queries, features).
        k: (batch, heads, keys, features).
        mask: boolean (true is seen) or added; may have fewer keys.
        limits: how far to the left and to the right a query sees; `None` is all the way.
        offset: the place of the first query among the keys: a number, or one per batch row (batch, 1, 1, 1).
    """
    bias = None if mask is None else _added(mask, k.shape[2])
    left, right = limits
    if left is None and right is None:
        return bias
    ahead = ops.subtract(_places(k, 3), plus(_places(q, 2), offset))
    seen: Any = None
    for allowed in (
        None if right is None else ops.less_equal(ahead, right),
        None if left is None else ops.greater_equal(ahead, -left),
    ):
        if allowed is not None:
            seen = allowed if seen is None else ops.logical_and(seen, allowed)
    window = ops.where(seen, *_OPEN_OR_HIDDEN)
    return window if bias is None else plus(bias, window)


_OPEN_OR_HIDDEN = np.zeros((), np.float32), np.array(-np.inf, np.float32)


def _added(mask: Any, total: int | None) -> Any:
    """A mask as what is added to the scores of all the keys."""
    bias = ops.where(mask, *_OPEN_OR_HIDDEN) if dtype(mask) == "bool" else cast(mask, "float32")
    named = mask.shape[-1]
    if total is None or named is None or named >= total:
        return bias
    widths = [(0, 0)] * (rank(mask) - 1) + [(0, total - named)]
    return ops.pad(bias, widths, constant_values=float("-inf"))


def _places(x: Any, axis: int) -> Any:
    """0, 1, ... for the positions of (batch, heads, positions, features), along axis 2 or 3 of four."""
    count = x.shape[2]
    if count is not None:
        return np.arange(count, dtype=np.int32).reshape((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1))
    ones = ops.ones_like(x[:1, :1, :, :1], dtype="int32")
    places = ops.subtract(ops.cumsum(ones, axis=2), 1)
    return places if axis == 2 else ops.transpose(places, (0, 1, 3, 2))


def _copies(q: Any, k: Any) -> int:
    """How many heads of queries share one of keys."""
    heads = q.shape[1], k.shape[1]
    return 1 if heads[0] == heads[1] else size(q, 1) // size(k, 1)


@op("Attention")
def attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    past_key: Any = None,
    past_value: Any = None,
    lengths: Any = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int = 1,
    site: Any = None,
) -> Any:
    packed = rank(q) == 3
    if packed:
        q, k, v = _heads(q, q_num_heads or 1), _heads(k, kv_num_heads or 1), _heads(v, kv_num_heads or 1)
    if past_key is not None:
        k, v = ops.concatenate([past_key, k], axis=2), ops.concatenate([past_value, v], axis=2)
    present = (k, v)
    offset: Any = 0 if past_key is None else size(past_key, 2)
    if lengths is not None and past_key is None:
        offset = ops.reshape(ops.subtract(cast(lengths, "int32"), size(q, 2)), (-1, 1, 1, 1))
    right = 0 if is_causal else None if right_window_size < 0 else right_window_size
    if is_causal and right_window_size >= 0:
        right = min(0, right_window_size)
    bias = _bias(q, k, mask, (None if left_window_size < 0 else left_window_size, right), offset)
    if lengths is not None:
        ends = ops.reshape(cast(lengths, "int32"), (-1, 1, 1, 1))
        unseen = ops.where(ops.less(_places(k, 3), ends), *_OPEN_OR_HIDDEN)
        bias = unseen if bias is None else plus(bias, unseen)
    scores = _scores(q, k, scale)
    scores, shown = _capped(scores, bias, softcap, qk_matmul_output_mode)
    sighted = lengths is None and left_window_size < 0 and right in (None, 0) and _shows_all(site)
    shares, blind = _shares(scores, bias, softmax_precision, sighted=sighted)
    result = _weighted(cast(shares, dtype(q)), v, blind)
    result = _joined(result) if packed else result
    if qk_matmul_output_mode == 3 and outputs > 3:
        shown = cast(shares if blind is None else ops.where(blind, ops.zeros_like(shares), shares), dtype(q))
    return (result, *present, shown)[:outputs] if outputs > 1 else result


@op("Attention", domain=BUILD_DOMAIN)
def attention_with_dropout(
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    *,
    dropout: float,
    is_causal: int = 0,
    scale: float | None = None,
    site: Any,
) -> Any:
    """Attention whose weights are dropped in training, by a Dropout layer."""
    bias = _bias(q, k, mask, (None, 0 if is_causal else None), 0)
    shares, blind = _shares(_scores(q, k, scale), bias, None, sighted=_shows_all(site))
    return _weighted(site.dropped(cast(shares, dtype(q)), dropout), v, blind)


def _shows_all(site: Any) -> bool:
    """Whether it is known that no query of a node is blind: there is no mask, or it adds finite numbers only."""
    if site is None:
        return False
    node: ir.Node = site.node
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is None:
        return True
    if is_op(mask, "Unsqueeze"):
        mask = mask.producer().inputs[0]
    if not is_op(mask, "Where"):
        return False
    numbers = [scalar(value) for value in mask.producer().inputs[1:]]
    return all(number is not None and np.isfinite(number) for number in numbers)


def _scores(q: Any, k: Any, scale: float | None) -> Any:
    """`scale * q @ k.T`, a product for every head; keys may be shared by groups of queries."""
    factor = size(q, 3) ** -0.5 if scale is None else scale
    return ops.matmul(ops.multiply(q, float(factor)), ops.transpose(_shared(k, _copies(q, k)), (0, 1, 3, 2)))


def _shared(x: Any, copies: int) -> Any:
    return ops.repeat(x, copies, axis=1) if copies > 1 else x


def _capped(scores: Any, bias: Any, softcap: float, mode: int) -> tuple[Any, Any]:
    """The scores, and those at the stage that `qk_matmul_output_mode` names."""
    shown = scores
    if softcap:
        scores = ops.multiply(ops.tanh(ops.divide(scores, softcap)), softcap)
        shown = scores if mode == 1 else shown
    if mode == 2:
        shown = scores if bias is None else plus(scores, cast(bias, dtype(scores)))
    return scores, shown


def _shares(scores: Any, bias: Any, precision: int | None, *, sighted: bool) -> tuple[Any, Any]:
    """The attention weights, and which queries see no key (`None` where all do): those shall get zeros."""
    blind = None
    if bias is not None:
        if not sighted:
            # A softmax over nothing but -inf would be NaN, in the gradient too.
            lowest = -6e4 if dtype(scores) == "float16" else -3e38
            blind = ops.equal(ops.max(bias, axis=-1, keepdims=True), float("-inf"))
            bias = ops.maximum(bias, lowest)
        scores = plus(scores, cast(bias, dtype(scores)))
    data = scores if precision is None else cast(scores, keras_dtype(precision))
    return ops.softmax(data, axis=-1), blind


def _weighted(shares: Any, v: Any, blind: Any) -> Any:
    """The values, each by its share."""
    result = ops.matmul(shares, _shared(v, _copies(shares, v)))
    return result if blind is None else ops.where(blind, ops.zeros_like(result), result)


@op("RotaryEmbedding")
def rotary_embedding(
    x: Any,
    cosines: Any,
    sines: Any,
    places: Any = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Any:
    packed = rank(x) == 3
    data = (
        ops.reshape(x, (-1, size(x, 1), num_heads, size(x, 2) // num_heads))
        if packed
        else ops.transpose(x, (0, 2, 1, 3))
    )
    width = rotary_embedding_dim or size(data, 3)
    if places is not None:
        cosines, sines = ops.take(cosines, places, axis=0), ops.take(sines, places, axis=0)
    cosines, sines = ops.expand_dims(cosines, 2), ops.expand_dims(sines, 2)
    turned, rest = part(data, 3, 0, width), part(data, 3, width, None)
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = part(turned, 3, 0, width // 2), part(turned, 3, width // 2, None)
    real = ops.subtract(ops.multiply(cosines, a), ops.multiply(sines, b))
    imaginary = plus(ops.multiply(sines, a), ops.multiply(cosines, b))
    if interleaved:
        turned = ops.reshape(ops.stack([real, imaginary], axis=-1), (-1, *sizes(data)[1:3], width))
    else:
        turned = ops.concatenate([real, imaginary], axis=-1)
    result = ops.concatenate([turned, rest], axis=-1) if width < size(data, 3) else turned
    return ops.reshape(result, (-1, *sizes(x)[1:])) if packed else ops.transpose(result, (0, 2, 1, 3))


@op("LinearAttention")
def linear_attention(
    q: Any,
    k: Any,
    v: Any,
    past: Any = None,
    decay: Any = None,
    beta: Any = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    outputs: int = 1,
) -> Any:
    kind = dtype(q)
    q, k, v = (cast(_heads(x, n), "float32") for x, n in ((q, q_num_heads), (k, kv_num_heads), (v, kv_num_heads)))
    factor = scale or size(q, 3) ** -0.5
    state = ops.matmul(ops.transpose(part(k, 2, 0, 1), (0, 1, 3, 2)), part(v, 2, 0, 1))
    state = ops.zeros_like(state) if past is None else cast(past, "float32")
    gates = None if decay is None else ops.exp(_per_head(decay, kv_num_heads))
    rates = None if beta is None else _per_head(beta, kv_num_heads)
    results = []
    for step in range(size(q, 2)):
        key, value = (ops.expand_dims(x[:, :, step], 3 - i) for i, x in enumerate((k, v)))
        if gates is not None and "gated" in update_rule:
            state = ops.multiply(state, ops.expand_dims(gates[:, :, step], 3))
        if "delta" in update_rule:
            value = ops.subtract(value, ops.matmul(ops.transpose(key, (0, 1, 3, 2)), state))
            value = value if rates is None else ops.multiply(value, ops.expand_dims(rates[:, :, step], 3))
        state = plus(state, ops.multiply(key, value))
        seen = ops.repeat(state, q_num_heads // kv_num_heads, axis=1) if q_num_heads > kv_num_heads else state
        results.append(ops.matmul(ops.expand_dims(q[:, :, step], 2), seen))
    result = cast(_joined(ops.multiply(ops.concatenate(results, axis=2), factor)), kind)
    return (result, cast(state, kind)) if outputs > 1 else result


def _per_head(x: Any, heads: int) -> Any:
    """What each head, or all of them, has -> (batch, heads or 1, sequence, features or 1).

    It comes as (batch, sequence, heads), (batch, sequence, heads * features) or (batch, sequence, 1).
    """
    return cast(_heads(x, 1 if size(x, 2) == 1 else heads), "float32")


@op("CausalConvWithState")
def causal_conv_with_state(
    x: Any, weight: Any, bias: Any = None, past: Any = None, *, activation: str = "none", outputs: int = 1
) -> Any:
    reach = size(weight, 2) - 1
    kind = dtype(x)
    data = ops.pad(x, ((0, 0), (0, 0), (reach, 0))) if past is None else ops.concatenate([past, x], axis=2)
    total: Any = None
    for tap in range(reach + 1):
        seen = precise(part(data, 2, tap, tap - reach or None))
        term = ops.multiply(seen, along(precise(weight[:, 0, tap]), 1, 3))
        total = term if total is None else plus(total, term)
    total = total if bias is None else plus(total, along(precise(bias), 1, 3))
    total = cast(ops.silu(total) if activation in ("silu", "swish") else total, kind)
    return (total, part(data, 2, -reach, None) if reach else data[:, :, :0]) if outputs > 1 else total
