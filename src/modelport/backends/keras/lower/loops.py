"""Loops: `tf.while_loop`, and with it Keras' recurrent layers, as ONNX `Scan` or `Loop`.

A loop that counts to a limit and reads lists step by step (`keras.layers.RNN`, `keras.ops.scan`, `tf.map_fn`) is a
`Scan`; any other is a `Loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.lists import Reserved, filled, zeros
from modelport.backends.keras.lower.lowering import Frame
from modelport.backends.keras.lower.static import Unknown, sizes
from modelport.backends.keras.lower.subgraph import Subgraph, dtype_of
from modelport.backends.keras.lower.table import op


@dataclass
class _Plan:
    """What each variable of a loop is.

    Attributes:
        body: the function that makes the next values; its inputs and outputs are the variables.
        kept: variables that never change.
        counters: variables that start at 0 and count the steps.
        written: lists that get one element in each step, by variable: the op that writes it.
        last: those of them that are one element long: the last element that is written stays.
        read: elements of lists that are read step by step: the ops that read them.
        limits: where the loop counts to a limit: the tensors around the loop that say it; empty for another loop.
    """

    body: Any
    kept: set[int] = field(default_factory=set)
    counters: set[int] = field(default_factory=set)
    written: dict[int, Any] = field(default_factory=dict)
    last: set[int] = field(default_factory=set)
    read: list[Any] = field(default_factory=list)
    limits: list[Any] = field(default_factory=list)

    @property
    def states(self) -> list[int]:
        """The variables that one step gives to the next."""
        return [i for i in range(len(self.body.inputs)) if i not in self.kept | self.counters | set(self.written)]


def _origin(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _plan(g: Context) -> _Plan:
    graph = g.frame.graph
    cond, body = (graph._get_function(g.attr(name).name).graph for name in ("cond", "body"))
    plan = _Plan(body)
    places = {tensor.name: i for i, tensor in enumerate(body.inputs)}
    results = [_origin(tensor) for tensor in body.outputs]
    plan.kept = {i for i, tensor in enumerate(results) if places.get(tensor.name) == i}
    counting = {i for i, tensor in enumerate(results) if _counts(g, i, tensor, places)}
    plan.limits = _limits(g, cond, counting, plan.kept)
    if plan.limits:
        plan.counters = counting
        _find_lists(g, plan, places, results)
    return plan


def _counts(g: Context, place: int, result: Any, places: dict[str, int]) -> bool:
    """Whether a variable starts at 0 and grows by 1."""
    start = g.static(place)
    if start is None or start.ndim or start.dtype.kind not in "iu" or start != 0 or result.op.type != "AddV2":
        return False
    a, b = result.op.inputs
    return any(places.get(_origin(x).name) == place and _constant(y) == 1 for x, y in ((a, b), (b, a)))


def _constant(tensor: Any) -> Any:
    """The number that a scalar constant is."""
    import tensorflow as tf

    origin = _origin(tensor)
    value = tf.get_static_value(origin) if origin.op.type == "Const" else None
    return None if value is None or np.ndim(value) else value


def _limits(g: Context, cond: Any, counting: set[int], kept: set[int]) -> list[Any]:
    """The tensors that the counters stay below; empty where the condition is another one."""
    places = {tensor.name: i for i, tensor in enumerate(cond.inputs)}
    found: dict[str, Any] = {}
    parts = [_origin(cond.outputs[0])]
    while parts:
        part = parts.pop()
        if part.op.type == "LogicalAnd":
            parts += [_origin(tensor) for tensor in part.op.inputs]
            continue
        if part.op.type != "Less":
            return []
        counter, limit = (_origin(tensor) for tensor in part.op.inputs)
        outside = g.op.inputs[places[limit.name]] if places.get(limit.name) in kept else None
        number = _constant(limit)
        if places.get(counter.name) not in counting or (outside is None and number is None):
            return []
        if outside is not None:
            found[outside.name] = outside
        else:
            found[str(number)] = np.asarray(number)
    return list(found.values())


def _find_lists(g: Context, plan: _Plan, places: dict[str, int], results: list[Any]) -> None:
    """Which lists are written and read step by step."""
    names = {places_name for places_name, i in places.items() if i in plan.counters}
    for i, result in enumerate(results):
        if result.dtype.name != "variant" or i in plan.kept or result.op.type != "TensorListSetItem":
            continue
        source, index, _ = result.op.inputs
        alone = sum(tensor is plan.body.inputs[i] for op_ in plan.body.get_operations() for tensor in op_.inputs) == 1
        if places.get(_origin(source).name) != i or not alone or not _is_reserved(g, i):
            continue
        if _origin(index).name in names:
            plan.written[i] = result.op
        elif _constant(index) == 0 and g.frame.statics.elements(_reserved(g, i).count) == [1]:
            plan.written[i] = result.op
            plan.last.add(i)
    for op_ in plan.body.get_operations():
        reads = op_.type == "TensorListGetItem" and _origin(op_.inputs[1]).name in names
        if reads and places.get(_origin(op_.inputs[0]).name) in plan.kept:
            plan.read.append(op_)


def _is_reserved(g: Context, place: int) -> bool:
    return isinstance(g.value(g.op.inputs[place]), Reserved)


def _reserved(g: Context, place: int) -> Reserved:
    found = g.value(g.op.inputs[place])
    assert isinstance(found, Reserved)
    return found


@op("While", "StatelessWhile", needs=())
def while_(g: Context) -> list[Any]:
    plan = _plan(g)
    return _scan(g, plan) if plan.limits and plan.read else _loop(g, plan)


def _scan(g: Context, plan: _Plan) -> list[Any]:
    inner, steps = Subgraph(g, f"{g.path or 'loop'}.step"), _limit(g, plan)
    starts = [_start(g, plan, i) for i in plan.states]
    frame = inner.frame(g.attr("body").name, _given(g, plan, _inputs(g, inner, plan, starts)))
    rows: dict[str, ir.Value] = {}
    elements: dict[str, ir.Value] = {}
    for item in plan.read:
        source, element = frame.given[_origin(item.inputs[0]).name], item.outputs[0]
        if source.name not in rows:
            rows[source.name] = _rows(g, plan, source, steps)
            elements[source.name] = inner.input(f"{g.path or 'loop'}.element", dtype_of(element), sizes(element))
        frame.values[element.name] = elements[source.name]
    if counters := [plan.body.inputs[i] for i in plan.counters if _is_used(plan, plan.body.inputs[i])]:
        zero, one = np.asarray(0, np.int64), np.asarray(1, np.int64)
        rows[""] = g("Range", zero, g("Squeeze", steps, [0]), one)
        number = inner.input(f"{g.path or 'loop'}.number", ir.DataType.INT64, ())
        for symbol in counters:
            frame.values[symbol.name] = inner.context(frame).cast(number, dtype_of(symbol))
    outputs = _outputs(g, plan, frame)
    body = inner.finish(outputs)
    results = g.many("Scan", [*starts, *rows.values()], len(outputs), num_scan_inputs=len(rows), body=body)
    return _results(g, plan, list(results), steps)


def _loop(g: Context, plan: _Plan) -> list[Any]:
    inner, steps = Subgraph(g, f"{g.path or 'loop'}.step"), _limit(g, plan) if plan.limits else None
    starts = [_start(g, plan, i) for i in plan.states]
    number = inner.input(f"{g.path or 'loop'}.number", ir.DataType.INT64, ())
    going = inner.input(f"{g.path or 'loop'}.going", ir.DataType.BOOL, ())
    frame = inner.frame(g.attr("body").name, _given(g, plan, _inputs(g, inner, plan, starts)))
    for i in plan.counters:
        frame.values[plan.body.inputs[i].name] = inner.context(frame).cast(number, dtype_of(plan.body.inputs[i]))
    outputs = _outputs(g, plan, frame)
    on = going if plan.limits else _holds(g, plan, inner, outputs)
    # Without states, an input that is left out would be the last one, and a Loop has two at least.
    first = np.asarray(True) if plan.limits else _holds(g, plan, None, starts)
    most = None if steps is None else g("Squeeze", steps, [0])
    results = g.many("Loop", [most, first, *starts], len(outputs), body=inner.finish([on, *outputs]))
    return _results(g, plan, list(results), steps)


def _limit(g: Context, plan: _Plan) -> ir.Value:
    """How many steps the loop takes, as a vector of one number."""
    limits = [g.lowering.constant(x) if isinstance(x, np.ndarray) else g.value(x) for x in plan.limits]
    rows = [g("Reshape", g.int64(limit), [1]) for limit in limits]
    return rows[0] if len(rows) == 1 else g("Min", *rows)


def _start(g: Context, plan: _Plan, place: int) -> ir.Value:
    """What a state is before the first step."""
    found = g.value(g.op.inputs[place])
    if not isinstance(found, Reserved):
        return filled(g, found)
    item = next((o.inputs[2] for o in plan.body.get_operations() if o.type == "TensorListSetItem"), None)
    if item is None or not item.shape.is_fully_defined():
        raise g.fail("a list is written in no fixed order, and the size of its elements is not known")
    return zeros(g, found, ir.Value(type=ir.TensorType(dtype_of(item)), shape=ir.Shape(item.shape.as_list())))


def _inputs(g: Context, inner: Subgraph, plan: _Plan, starts: Sequence[ir.Value]) -> dict[str, ir.Value]:
    """An input of the step's graph for every state, by placeholder."""
    found = {}
    for i, start in zip(plan.states, starts, strict=True):
        symbol = plan.body.inputs[i]
        is_list = symbol.dtype.name == "variant"
        dtype = (start.dtype or ir.DataType.FLOAT) if is_list else dtype_of(symbol)
        found[symbol.name] = inner.input(f"{g.path or 'loop'}.state", dtype, None if is_list else sizes(symbol))
    return found


def _given(g: Context, plan: _Plan, states: dict[str, ir.Value]) -> dict[str, Any]:
    """What the placeholders of the body stand for: what never changes is the tensor around the loop."""
    return {**{plan.body.inputs[i].name: g.op.inputs[i] for i in plan.kept}, **states}


def _rows(g: Context, plan: _Plan, source: Any, steps: ir.Value) -> ir.Value:
    """A list as a Scan takes it: as long as there are steps."""
    x = filled(g, g.value(source))
    made, (limit, *more) = source.op, plan.limits
    known = g.frame.statics.elements(limit) if not isinstance(limit, np.ndarray) else [int(limit)]
    if made.type == "TensorListFromTensor" and not more and known is not None:
        tensor = made.inputs[0]
        size = None if sizes(tensor) is None else (sizes(tensor) or ())[0]
        if known == [Unknown(tensor.name, 0) if size is None else size]:
            return x
    return g("Slice", x, [0], steps, [0])


def _is_used(plan: _Plan, counter: Any) -> bool:
    """Whether a counter is more than the number of the element that a step reads or writes."""
    settled = {id(made) for made in (*plan.read, *plan.written.values())}
    waiting, last = [counter], {id(tensor) for tensor in plan.body.outputs}
    while waiting:
        tensor = waiting.pop()
        for user in tensor.consumers():
            if user.type == "Identity":
                waiting.append(user.outputs[0])
            elif id(user) not in settled and not (
                user.type == "AddV2" and all(id(t) in last or _is_counted(t, last) for t in user.outputs)
            ):
                return True
    return False


def _is_counted(tensor: Any, last: set[int]) -> bool:
    """Whether a tensor only becomes a result of the step."""
    return all(user.type == "Identity" and id(user.outputs[0]) in last for user in tensor.consumers())


def _outputs(g: Context, plan: _Plan, frame: Frame) -> list[Any]:
    """The states after a step, and the elements that it writes."""
    symbols = [plan.body.outputs[i] for i in plan.states] + [made.inputs[2] for made in plan.written.values()]
    return [g.lowering.value(frame, symbol) for symbol in symbols]


def _holds(g: Context, plan: _Plan, inner: Subgraph | None, states: Sequence[ir.Value]) -> ir.Value:
    """The condition of the loop on some states: in the step's graph, or before the loop."""
    name = g.attr("cond").name
    cond = g.frame.graph._get_function(name).graph
    given = {cond.inputs[i].name: g.op.inputs[i] for i in plan.kept}
    given.update({cond.inputs[i].name: value for i, value in zip(plan.states, states, strict=True)})
    frame = Frame(cond, given, inner.tape if inner else g.frame.tape, g.frame)
    return g.lowering.value(frame, cond.outputs[0])


def _results(g: Context, plan: _Plan, made: list[ir.Value], steps: ir.Value | None) -> list[Any]:
    """The variables after the last step."""
    states = dict(zip(plan.states, made, strict=False))
    written = dict(zip(plan.written, made[len(plan.states) :], strict=True))
    return [_result(g, plan, i, states, written, steps) for i in range(len(plan.body.inputs))]


def _result(
    g: Context, plan: _Plan, i: int, states: dict[int, ir.Value], written: dict[int, ir.Value], steps: ir.Value | None
) -> Any:
    symbol = g.op.inputs[i]
    if i in states:
        return states[i]
    if i in written:
        item = plan.written[i].inputs[2]
        value = written[i]
        value.type, inner = ir.TensorType(dtype_of(item)), sizes(item)
        value.shape = None if inner is None else ir.Shape([None, *inner])
        return g("Gather", value, [-1], axis=0) if i in plan.last else value
    if i in plan.counters and steps is not None:
        return g.cast(g("Squeeze", steps, [0]), dtype_of(symbol))
    return None if symbol.dtype.name == "resource" else g.value(symbol)
