"""The engine of the layout pass: values stored in another order of axes, and transposes made only where needed.

A permutation `p` says how a value is stored: axis `i` of the stored tensor is axis `p[i]` of the value. The engine
visits every node once, in order; its rule asks for inputs in the order it wants (`take`), renumbers the node's axes,
and says in which order the outputs now are (`give`). Before that, one backward sweep collects in which order the
consumers of each value want it (`want`), which breaks ties.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.graph.names import unique_name

Perm = tuple[int, ...]
Dims = tuple[int | str | None, ...]


def identity(rank: int) -> Perm:
    return tuple(range(rank))


def inverse(perm: Perm) -> Perm:
    """Where each axis of the value is stored."""
    places = [0] * len(perm)
    for place, axis in enumerate(perm):
        places[axis] = place
    return tuple(places)


def steps(have: Perm, want: Perm) -> Perm:
    """The `perm` attribute of the Transpose from one stored order to another."""
    places = inverse(have)
    return tuple(places[axis] for axis in want)


def without(perm: Perm, axes: Collection[int]) -> Perm:
    return tuple(axis for axis in perm if axis not in axes)


def renumbered(perm: Sequence[int]) -> Perm:
    """The order of axes that remain, counted anew from 0."""
    rank = {axis: place for place, axis in enumerate(sorted(perm))}
    return tuple(rank[axis] for axis in perm)


def movable(dims: Dims, have: Perm, want: Perm) -> tuple[int, ...] | None:
    """The fewest axes of size 1 whose move alone makes one order of the other; `None` where that is not enough."""
    units = [axis for axis, dim in enumerate(dims) if dim == 1]
    if without(have, units) != without(want, units):
        return None
    for count in range(len(units) + 1):
        for axes in combinations(units, count):
            if without(have, axes) == without(want, axes):
                return axes
    return None


@dataclass
class Stored:
    """The forms in which one value of the source graph is available.

    Attributes:
        dims: the value's sizes in its own order; `None` where the rank is not known.
        forms: the tensors by stored order.
        primary: the order in which it is computed.
        constant: whether it depends on weights and constants only.
    """

    dims: Dims | None
    forms: dict[Perm, ir.Value]
    primary: Perm
    constant: bool = False

    @property
    def rank(self) -> int | None:
        return None if self.dims is None else len(self.dims)


Wants = Callable[[ir.Node, Perm | None], Iterable[tuple[int, Perm]]]


@dataclass(frozen=True)
class Rule:
    """How one operator takes part.

    Attributes:
        apply: rewrites a node for stored forms; `False`, with nothing changed, where it cannot: the node then gets
            its inputs in their own order.
        wants: the orders it would like for its inputs, given the order that its output is wanted in.
        always: whether it applies to nodes of which all inputs are constant, too.
    """

    apply: Callable[[Relayout, ir.Node], bool]
    wants: Wants
    always: bool = False


def rank_of(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def dims_of(value: ir.Value) -> Dims | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def is_read(value: ir.Value) -> bool:
    """Whether a node or the graph's result depends on a value."""
    return bool(value.uses()) or value.is_graph_output()


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The contents of a small initializer or Constant; `None` where they are not fixed, or many."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size > 4096 else tensor.numpy()


def as_is(node: ir.Node, out: Perm | None) -> list[tuple[int, Perm]]:
    """What an operator without a rule wants: every input in its own order."""
    return [(i, identity(rank)) for i, value in enumerate(node.inputs) if (rank := rank_of(value)) is not None]


@dataclass
class Relayout:
    """One graph being laid out.

    Attributes:
        graph: changed in place.
        rules: by domain and operator.
        weights: names of initializers that must stay (a new constant never replaces one).
        wanted: the order that all consumers of a value agree on.
        computed: the order in which each output of the graph came about, by name, once it is laid out.
        is_open: whether the outputs of the graph may come about in any order, of which `computed` then tells.
    """

    graph: ir.Graph
    rules: Mapping[tuple[str, str], Rule]
    weights: Collection[str] = ()
    wanted: dict[ir.Value, Perm | None] = field(default_factory=dict)
    computed: dict[str, Perm] = field(default_factory=dict)
    is_open: bool = False
    _stored: dict[ir.Value, Stored] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _constants: dict[tuple[Any, ...], ir.Value] = field(default_factory=dict)
    _absorbed: list[ir.Node] = field(default_factory=list)
    _cursor: ir.Node | None = None
    _cursor_is_constant: bool = False
    _read: set[int] = field(default_factory=set)
    _output_names: list[str] = field(default_factory=list)

    # What a rule asks.

    def entry(self, value: ir.Value) -> Stored:
        """The forms of a value; one of an outer graph or an input has its own order only."""
        if value not in self._stored:
            dims = dims_of(value)
            constant = value.is_initializer() and not value.is_graph_input()
            order = identity(len(dims or ()))
            self._stored[value] = Stored(dims, {order: value}, order, constant)
        return self._stored[value]

    def rank(self, value: ir.Value | None) -> int | None:
        return None if value is None else self.entry(value).rank

    def perm(self, value: ir.Value) -> Perm:
        """The order in which a value is computed."""
        return self.entry(value).primary

    def is_constant(self, value: ir.Value | None) -> bool:
        return value is None or self.entry(value).constant

    def const(self, value: ir.Value | None) -> np.ndarray | None:
        """The contents of a small constant (axes, shapes); `None` where they are not fixed."""
        return None if value is None or not self.is_constant(value) else constant_array(value)

    def cost(self, value: ir.Value, perm: Perm) -> int:
        """How many Transposes of activations one more form of a value takes."""
        entry = self.entry(value)
        if entry.constant or perm in entry.forms or entry.dims is None:
            return 0
        return int(all(movable(entry.dims, have, perm) is None for have in entry.forms))

    # What a rule does.

    def form(self, value: ir.Value, perm: Perm) -> ir.Value:
        """A value stored in an order; made where there is none yet."""
        entry = self.entry(value)
        if entry.dims is None:
            own = entry.forms[entry.primary]
            entry.dims, entry.primary = (None,) * len(perm), identity(len(perm))
            entry.forms = {entry.primary: own}
        if perm not in entry.forms:
            entry.forms[perm] = self._made(value, entry, entry.dims, perm)
        return entry.forms[perm]

    def own(self, value: ir.Value) -> ir.Value:
        """A value in its own order of axes."""
        rank = self.rank(value)
        return value if rank is None else self.form(value, identity(rank))

    def take(self, node: ir.Node, index: int, perm: Perm) -> None:
        """Let a node read an input in an order."""
        value = node.inputs[index]
        assert value is not None
        self.replace(node, index, self.form(value, perm))

    def replace(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        self._read.add(index)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        if node.inputs[index] is not value:
            node.replace_input_with(index, value)

    def give(self, node: ir.Node, index: int, perm: Perm, dims: Dims | None = None) -> None:
        """Say that an output of a node is computed in an order from now on."""
        value = node.outputs[index]
        dims = dims if dims is not None else dims_of(value) or (None,) * len(perm)
        self._stored[value] = Stored(dims, {perm: value}, perm, self._cursor_is_constant)
        if perm != identity(len(perm)):
            value.shape = ir.Shape([dims[axis] for axis in perm])
            value.name = self._fresh(f"{value.name}_{''.join(map(str, perm))}")

    def stand_in(self, node: ir.Node, forms: dict[Perm, ir.Value], primary: Perm, dims: Dims | None = None) -> None:
        """Say that a node's output is available as other tensors, so that the node is needed no longer."""
        dims = dims or dims_of(node.outputs[0]) or (None,) * len(primary)
        self._stored[node.outputs[0]] = Stored(dims, forms, primary, self._cursor_is_constant)
        self._absorbed.append(node)

    def constant(self, array: np.ndarray, like: str) -> ir.Value:
        """A new initializer; equal ones are made once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.tensor(array)
            value = ir.Value(name=self._fresh(like), shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
            value.const_value = tensor
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, numbers: Iterable[int], like: str = "axes") -> ir.Value:
        return self.constant(np.asarray(tuple(numbers), np.int64), like)

    def emit(self, op_type: str, inputs: Sequence[ir.Value], attributes: Mapping[str, Any], dims: Dims) -> ir.Value:
        """A new node before the one being visited."""
        name = self._fresh(f"{inputs[0].name}_{op_type.lower()}")
        value = ir.Value(name=name, shape=ir.Shape(dims), type=inputs[0].type)
        node = ir.node(op_type, inputs, attributes, outputs=[value], name=name)
        if self._cursor is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self._cursor, node)
        return value

    def emit_reshape(self, value: ir.Value, dims: tuple[int, ...]) -> ir.Value:
        """A value of fixed sizes with other sizes."""
        return self.emit("Reshape", [value, self.ints(dims, "shape")], {}, dims)

    # The pass.

    def run(self) -> None:
        """Lay out the graph and those inside it."""
        self._names |= set(_names_in(self.graph))
        self._output_names = [value.name or "" for value in self.graph.outputs]
        self.wanted |= self._collect_wants()
        used = {value for value in self.graph.initializers.values() if value.uses()}
        for node in tuple(self.graph):
            self._cursor = node
            self._visit(node)
        self._cursor = None
        self.computed |= zip(self._output_names, map(self.perm, self.graph.outputs), strict=True)
        self._finish_outputs()
        self.graph.remove(self._absorbed, safe=True)
        for value in used:
            if not is_read(value) and value.name not in self.weights:
                self.graph.initializers.pop(value.name)

    def _rule(self, node: ir.Node) -> Rule | None:
        return self.rules.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))

    def _visit(self, node: ir.Node) -> None:
        inside = tuple(_graphs_in(node))
        for inner in inside:
            self._read_own(inner)
            Relayout(inner, self.rules, self.weights, _names=self._names).run()
        rule = self._rule(node)
        constant = not inside and all(self.is_constant(value) for value in node.inputs)
        self._cursor_is_constant = constant
        self._read.clear()
        done = rule is not None and (rule.always or not constant) and rule.apply(self, node)
        if self._absorbed and self._absorbed[-1] is node:
            return
        for index, value in enumerate(node.inputs):
            if value is not None and index not in self._read:
                self.replace(node, index, self.own(value))
        if not done:
            for value in node.outputs:
                self.entry(value).constant = constant

    def _read_own(self, inner: ir.Graph) -> None:
        """What a graph inside a node reads from this one keeps its own order of axes."""
        for node in inner:
            for index, value in enumerate(node.inputs):
                if value in self._stored:
                    self.replace(node, index, self.own(value))
            for deeper in _graphs_in(node):
                self._read_own(deeper)
        for index, value in enumerate(inner.outputs):
            if value in self._stored:
                inner.outputs[index] = self.own(value)

    def _collect_wants(self) -> dict[ir.Value, Perm | None]:
        wanted: dict[ir.Value, Perm | None] = {}

        def wish(value: ir.Value | None, perm: Perm) -> None:
            if value is not None:
                wanted[value] = perm if wanted.get(value, perm) == perm else None

        for value in () if self.is_open else self.graph.outputs:
            wish(value, identity(rank_of(value) or 0))
        for node in reversed(self.graph):
            rule = self._rule(node)
            out = wanted.get(node.outputs[0]) if node.outputs else None
            for index, perm in (rule.wants if rule is not None else as_is)(node, out):
                wish(node.inputs[index], perm)
        return wanted

    def _finish_outputs(self) -> None:
        """Give the outputs of the graph their own order and their names back."""
        finished: dict[ir.Value, ir.Value] = {}
        outputs, names = tuple(self.graph.outputs), self._output_names
        for index, (value, name) in enumerate(zip(outputs, names, strict=True)):
            if value not in finished:
                own = self.own(value)
                if own is not value and (own in outputs or not self._is_made_here(own)):
                    own = self.emit("Identity", [own], {}, dims_of(own) or ())
                if own is not value:
                    value.name = self._fresh(f"{name}_stored")
                    own.name, own.type = name, value.type
                finished[value] = own
                outputs = (*outputs, own)
            self.graph.outputs[index] = finished[value]

    def _is_made_here(self, value: ir.Value) -> bool:
        """Whether a node of this graph gives a value: what is given to it or lies around it has another's name."""
        node = value.producer()
        return node is not None and node.graph is self.graph

    def _fresh(self, name: str) -> str:
        candidate = unique_name(name, self._names)
        self._names.add(candidate)
        return candidate

    def _made(self, value: ir.Value, entry: Stored, dims: Dims, perm: Perm) -> ir.Value:
        """One more form, from the available one that is nearest."""
        source = entry.forms[entry.primary]
        if source.is_initializer() and entry.constant and source.name not in self.weights:
            assert source.const_value is not None
            array = source.const_value.numpy().transpose(steps(entry.primary, perm))
            return self.constant(np.ascontiguousarray(array), f"{source.name}_{''.join(map(str, perm))}")
        for have, form in entry.forms.items():
            axes = movable(dims, have, perm)
            if axes is not None:
                return self._moved(form, dims, have, perm, axes)
        stored = tuple(dims[axis] for axis in perm)
        return self.emit("Transpose", [source], {"perm": steps(entry.primary, perm)}, stored)

    def _moved(self, form: ir.Value, dims: Dims, have: Perm, want: Perm, axes: tuple[int, ...]) -> ir.Value:
        """A form with axes of size 1 in other places."""
        left = tuple(dims[axis] for axis in without(have, axes))
        squeezed = self.emit(
            "Squeeze", [form, self.ints(place for place, axis in enumerate(have) if axis in axes)], {}, left
        )
        places = self.ints(place for place, axis in enumerate(want) if axis in axes)
        return self.emit("Unsqueeze", [squeezed, places], {}, tuple(dims[axis] for axis in want))


def _graphs_in(node: ir.Node) -> Iterable[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _names_in(graph: ir.Graph) -> Iterable[str]:
    for value in (*graph.inputs, *graph.initializers.values()):
        yield value.name or ""
    for node in graph.all_nodes():
        yield node.name or ""
        yield from (value.name or "" for value in node.outputs)
        for inner in _graphs_in(node):
            yield from (value.name or "" for value in (*inner.inputs, *inner.initializers.values()))
