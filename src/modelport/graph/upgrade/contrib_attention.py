"""The attentions of ONNX Runtime, as the standard's Attention."""

from __future__ import annotations

import onnx_ir as ir

from modelport.graph.upgrade.rewriting import Rewrite, Rewriter


def attention(site: Rewrite) -> ir.Value:
    """One weight for queries, keys and values; the mask lets positions of the keys pass."""
    if site.input(4) is not None or site.attribute("do_rotary", 0) or site.used(1):
        raise site.refused("it keeps past keys and values or turns its queries (do_rotary)")
    joined = site.op("MatMul", site.given(0), site.given(1))
    joined = site.total(joined, site.input(2))
    sizes = site.attribute("qkv_hidden_sizes")
    if sizes is None:
        query, key, value = site.ops("Split", 3, joined, axis=-1, num_outputs=3)
    else:
        query, key, value = site.ops("Split", 3, joined, site.constant(list(sizes)), axis=-1)
    return _attended(site, query, key, value, site.input(3), site.input(5))


def multi_head_attention(site: Rewrite) -> ir.Value:
    """Queries, keys and values by themselves, of three axes each, with one bias for all."""
    query, key, value, bias = (site.input(index) for index in range(4))
    kept = any(site.input(index) is not None for index in range(6, 10)) or site.used(1) or site.used(2)
    if query is None or key is None or value is None or kept:
        raise site.refused("its keys and values are packed, or kept from a step before")
    if any(site.rank(each) != 3 for each in (query, key, value)):
        raise site.refused("its query, key and value do not all have three axes (batch, position, features)")
    if bias is not None:
        widths = [dims[-1] for each in (query, key, value) if (dims := site.dims(each)) is not None]
        if not all(isinstance(width, int) for width in widths):
            raise site.refused("how its bias is shared among query, key and value is not known")
        parts = site.ops("Split", 3, bias, site.constant(widths), axis=0)
        query, key, value = (site.op("Add", *pair) for pair in zip((query, key, value), parts, strict=True))
    return _attended(site, query, key, value, site.input(4), site.input(5))


def _attended(
    site: Rewrite,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    mask: ir.Value | None,
    bias: ir.Value | None,
) -> ir.Value:
    heads = site.attribute("num_heads")
    extra = [] if mask is None else [_as_bias(site, mask, key)]
    extra += [] if bias is None else [bias]
    return site.op(
        "Attention",
        query,
        key,
        value,
        site.total(*extra) if extra else None,
        q_num_heads=heads,
        kv_num_heads=heads,
        is_causal=site.attribute("unidirectional", 0) or None,
        scale=site.attribute("scale"),
    )


def _as_bias(site: Rewrite, mask: ir.Value, key: ir.Value) -> ir.Value:
    """A mask of ones and zeros, or of lengths, as what is added to the scores (batch, heads, queries, keys)."""
    dims = site.dims(mask)
    if dims is None or len(dims) not in (1, 2, 3):
        raise site.refused("its mask is not one of lengths, of (batch, keys) or of (batch, queries, keys)")
    if len(dims) == 1:
        if dims != (site.dims(site.given(0)) or (None,))[:1]:
            raise site.refused("its mask holds more than one length per row")
        positions = site.op("Range", site.constant(0), _length(site, key), site.constant(1))
        ends = site.op("Unsqueeze", site.op("Cast", mask, to=int(ir.DataType.INT64)), site.constant([1]))
        passes = site.op("Less", positions, ends)
        axes = [1, 2]
    else:
        passes = site.op("Cast", mask, to=int(ir.DataType.BOOL))
        axes = [1, 2] if len(dims) == 2 else [1]
    x = site.given(0)
    closed = site.like(site.attribute("mask_filter_value", -10000.0), x)
    return site.op("Where", site.op("Unsqueeze", passes, site.constant(axes)), site.like(0.0, x), closed)


def _length(site: Rewrite, key: ir.Value) -> ir.Value:
    return site.op("Squeeze", site.op("Shape", key, start=1, end=2), site.constant([0]))


def rotary_embedding(site: Rewrite) -> ir.Value:
    """The standard's, with the tables behind the positions."""
    x, positions, cosines, sines = (site.given(index) for index in range(4))
    if site.rank(positions) != 2:
        raise site.refused("its positions are not given for every token")
    if site.attribute("scale", 1.0) != 1 or site.attribute("is_packed_batching", 0):
        raise site.refused("it scales its positions, or its batch is packed")
    settings: dict[str, int | None] = {
        name: site.attribute(name) or None for name in ("interleaved", "num_heads", "rotary_embedding_dim")
    }
    return site.op("RotaryEmbedding", x, cosines, sines, positions, **settings)


ATTENTION: dict[str, Rewriter] = {
    "Attention": attention,
    "MultiHeadAttention": multi_head_attention,
    "RotaryEmbedding": rotary_embedding,
}
