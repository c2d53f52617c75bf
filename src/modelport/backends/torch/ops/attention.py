"""Attention and its position encodings."""

from __future__ import annotations

import math
from typing import Any, cast

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import nn

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.layers import short
from modelport.backends.torch.operands import Operands
from modelport.backends.torch.ops.dropout import dropout_path
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Tensor
from modelport.graph.splice import BUILD_DOMAIN


def _heads(x: Tensor, count: int | None) -> Any:
    """(batch, sequence, heads * size) as (batch, heads, sequence, size)."""
    if x.rank == 4:
        return x
    if not count:
        raise CannotBuild("its inputs have three axes and no number of heads")
    return torch.unflatten(x, 2, (count, -1)).transpose(1, 2)


def _repeats(q: Tensor, k: Tensor, queries: int | None, keys: int | None) -> int:
    """How many heads of queries share one of keys."""
    if q.rank == k.rank == 4 and q.value is not None and k.value is not None:
        (mine, theirs) = (cast(ir.Shape, x.value.shape)[1] for x in (q, k) if x.value is not None)
        if mine == theirs and not isinstance(mine, int) and mine.value is not None:
            return 1
    return _count(q, queries) // _count(k, keys)


def _count(x: Tensor, given: int | None) -> int:
    count = given or (x.dims[1] if x.rank == 4 else None)
    if count is None:
        raise CannotBuild("its number of heads is not known; make that axis static")
    return count


def _length(x: Tensor) -> Any:
    return x.size_of(2 if x.rank == 4 else 1)


@op("Attention")
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
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
    node: ir.Node,
) -> tuple[Any, ...]:
    repeats = _repeats(q, k, q_num_heads, kv_num_heads)
    query, key, value = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    lengths = (_length(q), _length(k))
    offset: Any = 0
    if past_key is not None and past_value is not None:
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        offset = past_key.size_of(2)
        lengths = (lengths[0], lengths[1] + offset)
    elif nonpad_kv_seqlen is not None:
        offset = torch.reshape(nonpad_kv_seqlen, [-1, 1, 1, 1]) - lengths[0]
    present = (key, value)
    bounds = (left_window_size, 0 if is_causal else right_window_size)
    plain = is_causal and left_window_size < 0 and attn_mask is None and past_key is None and nonpad_kv_seqlen is None
    wanted = len(node.outputs) > 3 and bool(node.outputs[3].uses() or node.outputs[3].is_graph_output())
    fused = not wanted and not softcap and softmax_precision is None
    bias = None if plain else _bias(q, attn_mask, nonpad_kv_seqlen, lengths, offset, bounds, conditions=fused)
    if fused:
        options: dict[str, Any] = {"scale": scale} if scale is not None else {}
        options |= {"enable_gqa": True} if repeats != 1 else {}
        options |= {"is_causal": True} if plain else {}
        y, scores = F.scaled_dot_product_attention(query, key, value, bias, **options), None
    else:
        bias = _bias(q, None, None, lengths, 0, (-1, 0)) if plain else bias
        if repeats != 1:
            key, value = (torch.repeat_interleave(part, repeats, 1) for part in (key, value))
        root = math.sqrt(scale) if scale is not None else query.size(3) ** -0.25
        precision = torch_dtype(softmax_precision) if softmax_precision else q.element
        y, scores = _written_out(
            query * root, key * root, value, bias, softcap, precision, qk_matmul_output_mode, q.element
        )
    y = torch.flatten(y.transpose(1, 2), 2) if q.rank == 3 else y
    return (y, *present, scores) if wanted else (y, *present)


def _bias(
    q: Tensor,
    mask: Tensor | None,
    valid: Tensor | None,
    lengths: tuple[Any, Any],
    offset: Any,
    bounds: tuple[int, int],
    *,
    conditions: bool = False,
) -> Any:
    """What is added to the scores: 0 where a query may look, -inf where it may not; `None` where it always may.

    Args:
        conditions: whether a mask of booleans may stay one.
    """
    allowed: list[Any] = []
    columns = torch.arange(lengths[1], device=q.device)
    if min(bounds) >= 0 or max(bounds) >= 0:
        rows = torch.arange(lengths[0], device=q.device).unsqueeze(1) + offset
        allowed += [columns >= rows - bounds[0]] if bounds[0] >= 0 else []
        allowed += [columns <= rows + bounds[1]] if bounds[1] >= 0 else []
    if valid is not None:
        allowed.append(columns < torch.reshape(valid, [-1, 1, 1, 1]))
    total: Any = None
    if mask is not None:
        total = _widened(mask, lengths[1])
        if mask.element == torch.bool:
            allowed, total = [total, *allowed], None
    if conditions and len(allowed) == 1 and total is None and mask is not None:
        return allowed[0]
    if allowed:
        every = allowed[0]
        for part in allowed[1:]:
            every = torch.logical_and(every, part)
        blocked = torch.where(every, 0.0, -math.inf).to(q.element)
        total = blocked if total is None else total + blocked
    return total


def _widened(mask: Tensor, length: Any) -> Any:
    """A mask over all the keys: those that it does not reach are not looked at."""
    reach = mask.dims[-1]
    if not isinstance(length, int) or reach is None or reach == length:
        return mask
    if mask.element == torch.bool:
        return F.pad(mask.to(torch.uint8), (0, length - reach)).to(torch.bool)
    return F.pad(mask, (0, length - reach), value=-math.inf)


def _written_out(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    softcap: float,
    precision: torch.dtype,
    mode: int,
    element: torch.dtype,
) -> tuple[Any, Any]:
    """Attention step by step, for what torch's own function does not do; and its scores at the stage of `mode`."""
    scores = torch.matmul(query, key.transpose(2, 3))
    scores = torch.tanh(scores / softcap) * softcap if softcap else scores
    biased = scores if bias is None else scores + bias
    weights = F.softmax(biased.to(precision), -1)
    if bias is not None:
        # A query that may look nowhere gets zeros, not the NaN of a softmax over nothing.
        weights = torch.where(torch.amax(bias, -1, keepdim=True) == -math.inf, 0.0, weights)
    weights = weights.to(element)
    stage = {2: biased, 3: weights}.get(mode, scores)
    return torch.matmul(weights, value), stage


@op("Attention", domain=BUILD_DOMAIN)
def attention_with_dropout(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    *,
    dropout: float,
    is_causal: int = 0,
    scale: float | None = None,
    node: ir.Node,
    operands: Operands,
) -> Any:
    """Attention whose weights are dropped in training, at the rate of a Dropout that the module has for it."""
    layer = operands.create("get_attr", dropout_path(node, nn.Dropout(short(dropout)), operands))
    plain = is_causal and attn_mask is None
    bias = None if plain else _bias(q, attn_mask, None, (_length(q), _length(k)), 0, (-1, 0 if is_causal else -1),
                                         conditions=True)  # fmt: skip
    options: dict[str, Any] = {"scale": scale} if scale is not None else {}
    options |= {"enable_gqa": True} if _repeats(q, k, None, None) != 1 else {}
    options |= {"is_causal": True} if plain else {}
    return F.scaled_dot_product_attention(q, k, v, bias, dropout_p=layer.p * layer.training, **options)


@op("RotaryEmbedding")
def rotary_embedding(
    x: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Any:
    cos, sin = cos_cache, sin_cache
    if position_ids is not None:
        cos, sin = cos[position_ids], sin[position_ids]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    split = x.transpose(1, 2) if x.rank == 4 else torch.unflatten(x, 2, (num_heads, -1))
    width = rotary_embedding_dim
    rotated, rest = (split[..., :width], split[..., width:]) if width else (split, None)
    if interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        halves = torch.chunk(rotated, 2, -1)
        first, second = halves[0], halves[1]
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    y = torch.flatten(torch.stack([real, imaginary], -1), -2) if interleaved else torch.cat([real, imaginary], -1)
    y = y if rest is None else torch.cat([y, rest], -1)
    return y.transpose(1, 2) if x.rank == 4 else torch.flatten(y, 2)


@op("LinearAttention")
def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_state: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
) -> tuple[Any, Any]:
    """The recurrence, unrolled over the steps, in float32."""
    steps, features, values = query.dims[1], query.dims[2], value.dims[2]
    if steps is None or features is None or values is None:
        raise CannotBuild("its number of steps or features is not known; make both static")
    size = features // q_num_heads
    q, k, v = (
        torch.unflatten(part, 2, (heads, -1)).to(torch.float32)
        for part, heads in ((query, q_num_heads), (key, kv_num_heads), (value, kv_num_heads))
    )
    gates = None if decay is None else torch.unflatten(torch.exp(decay.to(torch.float32)), 2, (kv_num_heads, -1))
    state: Any = query.new_zeros((query.size_of(0), kv_num_heads, size, values // kv_num_heads), dtype=torch.float32)
    state = state if past_state is None else past_state.to(torch.float32)
    outputs = []
    for step in range(steps):
        now = [torch.select(part, 1, step) for part in (q, k, v)]
        if gates is not None:
            state = state * torch.select(gates, 1, step).unsqueeze(-1)
        if beta is not None:
            known = torch.matmul(now[1].unsqueeze(-2), state).squeeze(-2)
            now[2] = torch.select(beta, 1, step).to(torch.float32).unsqueeze(-1) * (now[2] - known)
        state = state + now[1].unsqueeze(-1) * now[2].unsqueeze(-2)
        read = torch.repeat_interleave(state, q_num_heads // kv_num_heads, 1) if q_num_heads != kv_num_heads else state
        outputs.append(torch.matmul(now[0].unsqueeze(-2), read).squeeze(-2))
    y = torch.flatten(torch.stack(outputs, 1), 2) * (scale or 1 / math.sqrt(size))
    return y.to(query.element), state.to((past_state if past_state is not None else query).element)
