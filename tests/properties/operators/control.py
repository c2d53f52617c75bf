"""Graphs inside graphs, lists of tensors, and what may be missing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.properties import oracle
from tests.properties.drawing import BOOL, F32, F64, FLOATS, I32, I64, NUMBERS, Scope, Unfit, Value
from tests.properties.operators.registry import TABLE, operator

DEEPEST = 2


def grow(s: Scope, count: int) -> None:
    """Add so many operators of the table, less those that do not fit."""
    fitting = [entry for entry in TABLE if entry.since <= s.opset <= entry.until and not (entry.outermost and s.depth)]
    if s.source.functions:
        fitting = [entry for entry in fitting if entry.function.__name__ in s.source.functions]
    for _ in range(count):
        s.attempt(s.choose(fitting).function)


def _info(value: Value, name: str = "") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name or value.name, oracle.tensor_type(value.worlds[0]), [None] * value.rank)


def body(s: Scope, inputs: list[Value], outputs: list[Value]) -> onnx.GraphProto:
    """What a scope holds as the graph of an attribute; an output is always made by a node inside."""
    named = []
    taken: set[str] = {value.name for value in inputs}
    made = {name for node in s.nodes for name in node.output}
    for value in outputs:
        if value.name not in made or value.name in taken:
            value = s.op("Identity", value)
        taken.add(value.name)
        named.append(value)
    infos = [_info(value) for value in inputs]
    return helper.make_graph(s.nodes, s.source.fresh("body"), infos, [_info(v) for v in named], s.initializers)


def given(s: Scope, arrays: tuple[np.ndarray, ...], grain: float = 0.0) -> Value:
    """An input of a subgraph, as it is in the first round."""
    value = Value(s.source.fresh("i"), arrays, grain)
    s.values.append(value)
    return value


def condition(s: Scope) -> Value:
    """A truth that is known, given, or computed."""
    kind = s.choose(["computed", "given", "known"])
    if kind == "known":
        return s.given(np.asarray(s.chance(50)))
    if kind == "given":
        return s.value((BOOL,), 0, fresh=lambda: s.leaf((), BOOL))
    x = s.value((F32, F64, I64), range(1, 5))
    if s.chance(40):
        return s.op("Greater", s.op("Cast", s.op("Size", x), to=1), s.given(np.asarray(s.integer(0, 30), F32)))
    mean = s.op("ReduceMax", s.op("Cast", x, to=1), keepdims=0)
    return s.op("Less", mean, s.given(np.asarray(s.real(-1, 2), F32)))


@operator(9, weight=3)
def branch(s: Scope) -> None:
    """An If whose branches give as many values of the same dtypes."""
    if s.depth >= DEEPEST:
        raise Unfit
    test = condition(s)
    scopes = [s.inner(), s.inner()]
    for scope in scopes:
        grow(scope, s.integer(1, 3))
    one, other = scopes
    left, right = [], []
    for _ in range(s.integer(1, 2)):
        x = one.value((*NUMBERS, BOOL))
        left.append(x)
        right.append(
            other.value(
                (x.dtype,),
                x.rank,
                lambda v, x=x: v.dims == x.dims or s.chance(10),
                lambda x=x: other.op("Identity", x) if visible(other, x) else s.leaf(x.dims, x.dtype),
            )
        )
    graphs = {"then_branch": body(one, [], left), "else_branch": body(other, [], right)}
    s.ops("If", [test], (True,) * len(left), **graphs)


def visible(s: Scope, x: Value) -> bool:
    return any(value is x for value in s.visible())


def kept(s: Scope, state: Value) -> Value:
    """The next state: a value inside that has the dtype and sizes of the state."""
    found = [
        v for v in s.values if not v.is_sequence and v.dtype == state.dtype and v.dims == state.dims and v is not state
    ]
    if found and s.chance(70):
        new = s.choose(found[::-1])
    else:
        x = s.value((state.dtype,))
        new = s.op("Add", state, s.op("ReduceMax", x, keepdims=0))
    return s.op("Tanh", new) if state.dtype in FLOATS and s.chance(60) else new


def rounds(s: Scope) -> Value | None:
    """How often: a number that is known, given or a size; or nothing."""
    kind = s.choose(["known", "size", "given", "none"])
    if kind == "none":
        return None
    if kind == "known":
        return s.ints(s.integer(0, 4)) if s.chance(70) else s.ints([s.integer(1, 3)])
    if kind == "given":
        return s.leaf((), I64, 1, 4)
    x = s.value(NUMBERS, range(1, 4))
    return s.op("Gather", s.op("Shape", x), s.ints(s.integer(0, x.rank - 1)))


@operator(11, weight=3)
def loop(s: Scope) -> None:
    """States that are carried, a condition that may end it, and values collected."""
    if s.depth >= DEEPEST:
        raise Unfit
    count = rounds(s)
    states = [s.value((F32, F64, I64, I32), range(4)) for _ in range(s.integer(1, 2))]
    start = s.given(np.asarray(True)) if s.chance(50) else None
    inner = s.inner()
    turn = given(inner, (np.asarray(0),) * 4)
    go_on = given(inner, (np.asarray(True),) * 4)
    carried = [given(inner, state.worlds, state.grain) for state in states]
    grow(inner, s.integer(1, 3))
    after = [kept(inner, state) for state in carried]
    if count is None or s.chance(30):
        proceed = inner.op("Less", turn, inner.ints(s.integer(1, 3)))
    else:
        proceed = go_on if s.chance(60) else inner.given(np.asarray(True))
    # The standard does not say which sizes a stack has when there is no round.
    stacks = 0 if count is not None and not all(np.all(array) for array in count.worlds) else s.integer(0, 2)
    collected = [inner.value((F32, I64, F64, BOOL)) for _ in range(stacks)]
    graph = body(inner, [turn, go_on, *carried], [proceed, *after, *collected])
    s.ops("Loop", [count, start, *states], (True,) * (len(after) + len(collected)), body=graph)


@operator(9, weight=3)
def scan(s: Scope) -> None:
    """States that are carried over slices of values, and values collected."""
    if s.depth >= DEEPEST:
        raise Unfit
    first = s.value((F32, F64, I64), range(1, 5))
    states = [s.value((F32, F64, I64), range(4)) for _ in range(s.integer(0, 2))]
    axis = s.integer(0, first.rank - 1) if s.chance(30) else 0
    length = first.dims[axis]
    scanned, axes = [first], [axis]
    if s.chance(40):
        other = s.value(
            (F32, I64), range(1, 4), lambda v: v.dims[0] == length, lambda: s.leaf((length, *s.dims(s.integer(0, 2))))
        )
        scanned, axes = [*scanned, other], [*axes, 0]
    backwards = [int(s.chance(30)) for _ in scanned]
    inner = s.inner()
    carried = [given(inner, state.worlds, state.grain) for state in states]
    slices = []
    for value, place, back in zip(scanned, axes, backwards, strict=True):
        if any(array.shape[place] == 0 for array in value.worlds):
            raise Unfit
        arrays = tuple(np.take(array, -1 if back else 0, place) for array in value.worlds)
        slices.append(given(inner, tuple(np.asarray(array) for array in arrays), value.grain))
    grow(inner, s.integer(1, 3))
    after = [kept(inner, state) for state in carried]
    collected = [inner.value((F32, I64, F64)) for _ in range(s.integer(0 if states else 1, 2))]
    graph = body(inner, [*carried, *slices], [*after, *collected])
    settings: dict[str, object] = {}
    if any(axes) or s.chance(20):
        settings["scan_input_axes"] = axes
    if any(backwards) or s.chance(20):
        settings["scan_input_directions"] = backwards
    if collected and s.chance(20):
        settings["scan_output_directions"] = [s.integer(0, 1) for _ in collected]
    # ONNX Runtime divides by zero where it turns what it has collected of nothing, and takes the process with it.
    turnable = all(value.rank and all(array.size for array in value.worlds) for value in collected)
    if collected and s.chance(15) and turnable:
        settings["scan_output_axes"] = [s.integer(0, 1) for _ in collected]
    s.ops(
        "Scan",
        [*states, *scanned],
        (True,) * (len(after) + len(collected)),
        body=graph,
        num_scan_inputs=len(scanned),
        **settings,
    )


@operator(11, weight=3, outermost=True)
def sequence(s: Scope) -> None:
    """A list of tensors is made, changed, and taken apart."""
    x = s.value((F32, I64), range(1, 4))
    if s.chance(50) and x.is_static(0):
        size = x.dims[0]
        assert isinstance(size, int)
        parts = s.choose([None, s.ints(1), s.ints([1] * size)])
        items = s.op("SplitToSequence", x, parts, axis=0, keepdims=s.choose([None, 0, 1]) if parts is None else None)
    else:
        items = s.op(
            "SequenceConstruct",
            x,
            *(
                s.value((x.dtype,), x.rank, lambda v: v.dims == x.dims, lambda: s.leaf(x.dims, x.dtype))
                for _ in range(s.integer(0, 2))
            ),
        )
    for _ in range(s.integer(0, 2)):
        length = len(items.worlds[0])
        if s.chance(50):
            if not length:
                raise Unfit
            items = s.op(
                "SequenceInsert",
                items,
                s.op("SequenceAt", items, s.ints(0)),
                s.ints(s.integer(0, length)) if s.chance(60) else None,
            )
        elif length > 1:
            items = s.op("SequenceErase", items, s.ints(s.integer(-length, length - 1)) if s.chance(60) else None)
    length = len(items.worlds[0])
    if not length:
        raise Unfit
    end = s.choose(["at", "concat", "length", "stack"])
    if end == "at":
        s.op("SequenceAt", items, s.ints(s.integer(-length, length - 1), s.choose([I64, I32])))
    elif end == "length":
        s.op("SequenceLength", items)
    else:
        s.op(
            "ConcatFromSequence",
            items,
            axis=s.integer(0, max(items.worlds[0][0].ndim - 1, 0)),
            new_axis=1 if end == "stack" else s.choose([None, 0]),
        )


@operator(17, outermost=True)
def sequence_map(s: Scope) -> None:
    """The same graph over every tensor of a list."""
    x = s.value((F32,), range(1, 4))
    items = s.op("SequenceConstruct", x, *(s.leaf(x.dims, F32) for _ in range(s.integer(1, 2))))
    # The reference evaluator shows the body nothing of the graph around it.
    inner = Scope(s.source, closed=True)
    item = given(inner, x.worlds, x.grain)
    grow(inner, s.integer(1, 2))
    found = inner.value((F32, I64))
    mapped = s.op("SequenceMap", items, body=body(inner, [item], [found]))
    s.op("SequenceAt", mapped, s.ints(0))
