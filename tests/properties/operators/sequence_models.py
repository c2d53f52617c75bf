"""Over time: recurrent layers, attention, positions."""

from __future__ import annotations

from tests.properties.drawing import BOOL, F32, I32, I64, Dim, Scope, Value
from tests.properties.operators.registry import operator
from tests.properties.operators.shape import least

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@operator(7, weight=4)
def recurrent(s: Scope) -> None:
    name = s.choose(sorted(GATES))
    direction = s.choose([None, "forward", "reverse", "bidirectional"])
    ways = 2 if direction == "bidirectional" else 1
    features, hidden = s.integer(1, 3), s.integer(1, 3)
    layout = s.choose([None, 0, 1]) if s.opset >= 14 else None
    steps, batch = s.dim(), s.dim()
    x = s.value((F32,), 3, lambda v: v.is_static(2) and min(least(v.dims[0]), least(v.dims[1])) > 0,
                lambda: s.leaf((batch, steps, features) if layout else (steps, batch, features)))  # fmt: skip
    batch, steps = x.dims[0 if layout else 1], x.dims[1 if layout else 0]
    size = GATES[name] * hidden
    kernel, recurrent_kernel = s.weight((ways, size, x.dims[2]), F32, -1, 1), s.weight((ways, size, hidden), F32, -1, 1)
    bias = s.weight((ways, 2 * size), F32, -1, 1) if s.chance(70) else None
    lengths = s.leaf((batch,), I32, 1, max(least(steps), 1)) if s.chance(25) else None
    state: tuple[Dim, ...] = (batch, ways, hidden) if layout else (ways, batch, hidden)
    first = s.leaf(state, F32) if s.chance(40) else None
    more: list[Value | None] = []
    settings: dict[str, object] = {"hidden_size": hidden, "direction": direction, "layout": layout}
    if name == "LSTM":
        more = [
            s.leaf(state, F32) if s.chance(40) else None,
            s.weight((ways, 3 * hidden), F32) if s.chance(25) else None,
        ]
    if name == "GRU":
        settings["linear_before_reset"] = s.choose([None, 0, 1])
    if s.chance(25):
        settings["clip"] = s.real(0.5, 3)
    if name == "LSTM" and s.chance(15):
        settings["input_forget"] = 1
    if s.chance(25):
        some = [s.choose(["Tanh", "Sigmoid", "Relu"]) for _ in range({"RNN": 1, "GRU": 2, "LSTM": 3}[name])]
        settings["activations"] = some * ways
    outputs = [s.chance(70) for _ in range(3 if name == "LSTM" else 2)]
    if not any(outputs):
        outputs[0] = True
    s.ops(name, [x, kernel, recurrent_kernel, bias, lengths, first, *more], outputs, **settings)


@operator(23, weight=2)
def attention(s: Scope) -> None:
    heads, width = s.integer(1, 3), 2 * s.integer(1, 2)
    groups = heads if s.chance(60) else 1
    batch, queries, keys = s.dim(), s.dim(), s.dim()
    values = width if s.chance(70) else 3
    flat = s.chance(40)
    shapes = [(heads, queries, width), (groups, keys, width), (groups, keys, values)]
    q, k, v = (s.leaf((batch, n, h * w) if flat else (batch, h, n, w), F32) for h, n, w in shapes)
    settings: dict[str, object] = {
        "is_causal": s.choose([None, 0, 1]),
        "scale": s.maybe(s.real(0.2, 1)),
        "softcap": s.choose([None, None, 2.0]),
    }
    if flat:
        settings |= {"q_num_heads": heads, "kv_num_heads": groups}
    mask, past = None, []
    if s.chance(25):
        before = s.integer(1, 3)
        past = [s.leaf((batch, groups, before, w), F32) for w in (width, values)]
    if not past and s.chance(40):
        dims: tuple[Dim, ...] = s.choose(
            [(queries, keys), (1, 1, queries, keys), (batch, 1, queries, keys), (batch, heads, queries, keys)]
        )
        mask = s.leaf(dims, s.choose([F32, BOOL]))
        if mask.dtype == BOOL:
            # A query that may see no key has no defined answer.
            mask = s.op(
                "Or",
                mask,
                s.op("Equal", s.op("Sub", mask_numbers(s, mask), mask_numbers(s, mask)), mask_numbers(s, mask)),
            )
    s.ops("Attention", [q, k, v, mask, *past], (True, bool(past), bool(past)), **settings)


def mask_numbers(s: Scope, mask: Value) -> Value:
    return s.op("Cast", mask, to=7)


@operator(23)
def rotary(s: Scope) -> None:
    heads, width = s.integer(1, 2), 2 * s.integer(1, 3)
    steps = s.integer(1, 4)
    flat = s.chance(50)
    batch = s.dim()
    x = s.leaf((batch, steps, heads * width) if flat else (batch, heads, steps, width))
    rotated = 2 * s.integer(1, width // 2) if s.chance(30) else 0
    half = (rotated or width) // 2
    positions = s.leaf((batch, steps), I64, 0, 5) if s.chance(60) else None
    dims: tuple[Dim, ...] = (6, half) if positions is not None else (batch, steps, half)
    caches = [s.leaf(dims, F32, -1, 1) for _ in range(2)]
    settings = {"num_heads": heads if flat else None, "rotary_embedding_dim": rotated or None}
    s.op("RotaryEmbedding", x, *caches, positions, interleaved=s.choose([None, 0, 1]), **settings)


@operator(27)
def linear_attention(s: Scope) -> None:
    groups = s.integer(1, 2)
    heads, width, values = groups * s.integer(1, 2), s.integer(1, 3), s.integer(1, 3)
    batch, steps = s.dim(), s.integer(1, 4)
    q, k, v = (s.leaf((batch, steps, n), F32, -1, 1) for n in (heads * width, groups * width, groups * values))
    rule = s.choose(["linear", "gated", "delta", "gated_delta"])
    past = s.leaf((batch, groups, width, values), F32) if s.chance(40) else None
    decay = s.leaf((batch, steps, groups * (width if s.chance(50) else 1)), F32, -1, 0) if "gated" in rule else None
    beta = s.leaf((batch, steps, groups), F32, 0, 1) if "delta" in rule else None
    s.ops("LinearAttention", [q, k, v, past, decay, beta], (True, s.chance(60)), q_num_heads=heads, kv_num_heads=groups,
          update_rule=rule, scale=s.maybe(s.real(0.5, 1)))  # fmt: skip
