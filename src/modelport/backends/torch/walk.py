"""One graph, walked once: each node's function leaves its torch calls in an fx graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import fx

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.host import host_op
from modelport.backends.torch.operands import Operands, identifier
from modelport.backends.torch.ops import OPS, SIZE_OPS, CannotBuild
from modelport.backends.torch.registry import HOLD_TEXT, OnHost, Op, support
from modelport.backends.torch.traced import Body, Constant, Ints, Items, Nothing, Operand, Tensor, WeightRef
from modelport.backends.torch.weights import Weights
from modelport.backends.torch.whole import Whole, whole_node
from modelport.core.errors import UnsupportedOpError
from modelport.graph.host import host_node, runs_on_host
from modelport.graph.names import scoped, unique_name
from modelport.graph.splice import is_text
from modelport.graph.subgraphs import captured
from modelport.graph.upgrade.standard import has_standard_form

_AS_STORED = frozenset({"Cast", "CastLike", "BitCast", "Identity"})
"""Operators that take dtypes for which torch has storage but no arithmetic."""


class Walk:
    """A graph on its way into an fx graph.

    Attributes:
        weights: of the module under construction; the module of a subgraph has none of its own.
        operands: the fx graph, and every form of a value in it.
        environment: what the values of the portable graph are in it.
        opsets: the opset imports of the model.
        outermost: whether it is the model's own graph, and not one inside a node.
    """

    def __init__(self, weights: Weights, opsets: Mapping[str, int]) -> None:
        self.weights = weights
        self.operands = Operands(weights)
        self.environment: dict[ir.Value, Operand] = {}
        self.opsets = dict(opsets)
        self.outermost = True

    def lookup(self, value: ir.Value) -> Operand:
        """What a value is in the fx graph."""
        if value not in self.environment:
            assert value.const_value is not None, value.name
            if value.name in self.weights:
                self.environment[value] = WeightRef(value, str(value.name))
            else:
                self.environment[value] = Constant(value, value.const_value.numpy())
        return self.environment[value]

    def walk(self, graph: ir.Graph) -> None:
        """Build every node, in order.

        Raises:
            UnsupportedOpError: torch has no counterpart for an operator.
        """
        for node in graph:
            try:
                self._build(node)
            except CannotBuild as reason:
                where = f"node {node.name!r} ({', '.join(repr(v.name) for v in node.outputs)})"
                operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
                raise UnsupportedOpError(
                    f"torch cannot build the operator {operator} of {where}: {reason}.",
                    op_type=node.op_type,
                    node=node.name or "",
                ) from reason

    def body_of(self, graph: ir.Graph) -> Body:
        """The module of a subgraph, and the arguments of it that come from around it.

        The graph's own inputs are the first inputs of the module, its outputs come as a tuple. What it uses from around
        it, weights too, are the arguments after them; constants are inside.
        """
        inner = Walk(Weights(ir.Model(ir.Graph((), (), nodes=()), ir_version=10), foreign=False), self.opsets)
        inner.operands.notes = self.operands.notes
        inner.outermost = False
        for value in graph.inputs:
            inner.take(value)
        around = captured(graph)
        arguments = tuple(argument for value in around for argument in self._hand_over(value, inner))
        inner.walk(graph)
        inner.operands.graph.output(tuple(inner.result(value) for value in graph.outputs))
        return Body(inner.module(), arguments, around)

    def whole_of(self, node: ir.Node, first: int, bodies: Sequence[Body]) -> Whole | None:
        """What a module that holds a node's graphs stands for on the way home; `None` where it has to run there too.

        Args:
            node: the node.
            first: how many arguments the module takes for the node's own inputs; those of the graphs follow.
            bodies: its graphs.
        """
        # The weights of a graph inside another node are not known here: the node around it stands for both.
        if not self.outermost or not has_standard_form(node):
            return None
        found: dict[ir.Value, tuple[Sequence[int], Any]] = {}
        known: dict[ir.Value, np.ndarray] = {}
        for value in (value for body in bodies for value in body.around):
            operand = self.lookup(value)
            if isinstance(operand, Nothing):
                return None
            if isinstance(operand, Constant):
                known[value] = operand.array
            elif isinstance(operand, Ints):
                sizes = tuple(None if isinstance(item, fx.Proxy) else item for item in operand.items)
                places = range(first, first + sizes.count(None))
                if operand.known:
                    known[value] = operand.array()
                else:
                    found[value], first = (places, sizes), places.stop
            else:
                found[value], first = ((first,), None), first + 1
        own = {value: ((place,), None) for place, value in enumerate(node.inputs) if value is not None}
        return whole_node(node, host_node(node, self.opsets, self.weights, known), found | own)

    def _hand_over(self, value: ir.Value, inner: Walk) -> Iterator[Any]:
        """Make a value known to the walk of a subgraph; the arguments that it takes for that."""
        operand = self.lookup(value)
        if isinstance(operand, (Constant, Nothing)) or (isinstance(operand, Ints) and operand.known):
            inner.environment[value] = operand
        elif isinstance(operand, Ints):
            traced = [item for item in operand.items if isinstance(item, fx.Proxy)]
            names = iter([inner.operands.wrap(inner.placeholder("size")) for _ in traced])
            items = tuple(next(names) if isinstance(item, fx.Proxy) else item for item in operand.items)
            inner.environment[value] = Ints(items, operand.rank, operand.dtype)
            yield from traced
        else:
            inner.take(value)
            yield self.operands.argument(operand)

    def take(self, value: ir.Value) -> None:
        """Make a value an input of the fx graph."""
        self.known(value, self.placeholder(str(value.name)))

    def placeholder(self, name: str) -> fx.Node:
        """An input of the fx graph, under a name of its own."""
        graph = self.operands.graph
        taken = {str(node.target) for node in graph.nodes if node.op == "placeholder"}
        return graph.placeholder(unique_name(identifier(name), taken))

    def known(self, value: ir.Value, node: fx.Node) -> None:
        """Say which node of the fx graph a value is that no node of the graph makes."""
        operand = self.operands.settle(node, value)
        if isinstance(operand, Tensor):
            self.operands.set_anchor(operand)
        self.environment[value] = operand

    def result(self, value: ir.Value) -> Any:
        """A value as the fx graph gives it out."""
        argument = self.operands.argument(self.lookup(value))
        return fx.node.map_aggregate(argument, lambda item: item.node if isinstance(item, fx.Proxy) else item)

    def _build(self, node: ir.Node) -> None:
        operands = [None if value is None else self.lookup(value) for value in node.inputs]
        before = next(iter(reversed(self.operands.graph.nodes)), None)
        result = self._on_host(node) if self._needs_host(node) else self._sizes(node, operands)
        if result is NotImplemented:
            try:
                result = self._call(node, operands)
            except OnHost as reason:
                result = self._on_host(node, f": {reason}")
        results = result if isinstance(result, tuple) else (result,)
        for value, item in zip(node.outputs, results, strict=False):
            self.environment[value] = self._settle(value, item)
        self._name_steps(node, before)
        for value in node.outputs[len(results) :]:
            if value.uses() or value.is_graph_output():
                raise CannotBuild(f"its output {value.name!r} cannot be computed in torch; do not use it")

    def _needs_host(self, node: ir.Node) -> bool:
        """Whether no torch function can compute a node, and the host can."""
        if support(node.op_type, node.domain) == "fallback":
            return True
        if (node.domain, node.op_type) in HOLD_TEXT or not runs_on_host(node.op_type, node.domain):
            return False
        return any(is_text(value) for value in (*node.inputs, *node.outputs))

    def _on_host(self, node: ir.Node, why: str = "") -> tuple[Any, ...]:
        module, values = host_op(node, self.opsets, self.weights)
        if not (self.outermost and has_standard_form(node)):
            module.whole = None
        path = self.operands.add_module(node.name or node.op_type, module)
        arguments = [self.operands.argument(self.lookup(value)) for value in values]
        results = self.operands.call(path, *arguments)
        self.operands.note(
            "fallback", node, f"{node.op_type} runs on the host by NumPy, and no gradient goes through it{why}"
        )
        return tuple(results[index] for index in range(len(node.outputs)))

    def _sizes(self, node: ir.Node, operands: Sequence[Operand | None]) -> Any:
        """The node on Python numbers, where its inputs are sizes."""
        function = SIZE_OPS.get(node.op_type)
        if node.domain or function is None:
            return NotImplemented
        if node.op_type in ("Shape", "Size"):
            assert operands[0] is not None
            return function(self.operands.tensor(operands[0]), **_attributes(node))
        if not any(isinstance(operand, Ints) for operand in operands):
            return NotImplemented
        ints = [None if operand is None else self.operands.ints(operand) for operand in operands]
        if any(i is None and operand is not None for i, operand in zip(ints, operands, strict=True)):
            return NotImplemented
        return function(*ints, **_attributes(node))

    def _call(self, node: ir.Node, operands: Sequence[Operand | None]) -> Any:
        op = OPS.get((node.domain, node.op_type))
        if op is None:
            raise CannotBuild("there is no counterpart; rewrite that part of the model with other operators")
        arguments = self._arguments(op, node, operands)
        keywords = _attributes(node)
        unknown = sorted(set(keywords) - op.keywords)
        if unknown and not op.is_open:
            raise CannotBuild(f"its attributes {unknown} are not known")
        context: dict[str, Any] = {"node": node, "operands": self.operands}
        context |= {"body_of": self.body_of, "whole_of": self.whole_of}
        keywords |= {name: item for name, item in context.items() if name in op.keywords}
        if "anchor" in op.keywords:
            keywords["anchor"] = self.operands.anchor
        return op.function(*arguments, **keywords)

    def _arguments(self, op: Op, node: ir.Node, operands: Sequence[Operand | None]) -> list[Any]:
        arguments: list[Any] = []
        for index, operand in enumerate(operands):
            parameter = op.inputs[min(index, len(op.inputs) - 1)] if op.inputs else None
            if parameter is None or (
                index >= len(op.inputs) and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
            ):
                raise CannotBuild(f"it has {len(operands)} inputs, of which {len(op.inputs)} are known")
            argument = self.operands.convert(operand, op.hints[parameter.name])
            if operand is None and parameter.default is not inspect.Parameter.empty:
                argument = parameter.default
            if isinstance(argument, Tensor) and node.op_type not in _AS_STORED:
                argument = self.operands.widened(argument)
            arguments.append(argument)
        return arguments

    def _settle(self, value: ir.Value, item: Any) -> Operand:
        """A result under its name; in its own dtype where the computation had to use a wider one."""
        if isinstance(item, (bool, int, float)):
            return self._number(value, item)
        if not isinstance(item, fx.Proxy):
            assert isinstance(item, (Ints, Constant, WeightRef, Items, Nothing)), (value.name, item)
            return item
        producer = value.producer()
        if isinstance(value.type, ir.TensorType) and producer is not None and producer.op_type not in _AS_STORED:
            target = value.type.dtype
            if target in (ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64):
                item = item.to(torch_dtype(target))
        fresh = item.node.op != "placeholder" and item.node.op != "get_attr" and "named" not in item.node.meta
        if fresh and producer is not None:
            place = producer.outputs.index(value)
            item.node._rename(_label(producer) + (f"_{place}" if place else ""))
            item.node.meta["named"] = True
        return self.operands.settle(item.node, value)

    @staticmethod
    def _number(value: ir.Value, item: float) -> Constant:
        """What an operator makes of known numbers alone."""
        assert value.dtype is not None
        # An integer beyond its dtype comes round, as it does where a run computes it.
        array = np.asarray(item).astype(value.dtype.numpy()).reshape([1] * len(value.shape or ()))
        shape = ir.Shape(array.shape)
        return Constant(ir.Value(name=value.name, type=value.type, shape=shape, const_value=ir.tensor(array)), array)

    def _name_steps(self, node: ir.Node, before: fx.Node | None) -> None:
        """Name what a node's result is computed by after the node, and after what it does."""
        for made in reversed(self.operands.graph.nodes):
            if made is before:
                return
            if "named" not in made.meta and made.op in ("call_function", "call_method", "call_module"):
                step = made.target if isinstance(made.target, str) else made.target.__name__
                made._rename(f"{_label(node)}_{identifier(step.rpartition('.')[2])}")
                made.meta["named"] = True

    def module(self) -> fx.GraphModule:
        """The finished module, less what it does not use; every weight stays in it."""
        graph = self.operands.graph
        for node in reversed(graph.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                graph.erase_node(node)
            node.meta.pop("named", None)
        self._hold_constants(graph)
        self._hold_weights(graph)
        graph.lint()
        module = fx.GraphModule(self.weights.root, graph)
        return module.eval()

    def _hold_constants(self, graph: fx.Graph) -> None:
        used = {node.target.rpartition(".")[2] for node in graph.nodes if _is_constant(node, self.weights)}
        for name in [name for name in self.operands.constants._buffers if name not in used]:
            del self.operands.constants._buffers[name]
        if not used:
            return
        self.weights.root.add_module(self.weights.constants_path, self.operands.constants)
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        first = placeholders[0] if placeholders else None
        with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
            call = graph.call_module(self.weights.constants_path, (first,))
        if first is not None:
            first.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)

    def _hold_weights(self, graph: fx.Graph) -> None:
        """Name the weights that nothing uses in the graph too: copies of a GraphModule keep only what it names."""
        paths = self.weights.finish()
        called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        named = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        with graph.inserting_before(next(iter(reversed(graph.nodes)))):
            for path in paths:
                if path not in named and path.rpartition(".")[0] not in called:
                    graph.create_node("get_attr", path, name=identifier(path))


def _is_constant(node: fx.Node, weights: Weights) -> bool:
    return node.op == "get_attr" and str(node.target).startswith(f"{weights.constants_path}.")


def _attributes(node: ir.Node) -> dict[str, Any]:
    """Attributes by name: numbers, strings, tuples, graphs, and tensors as NumPy arrays."""
    return {
        name: attr.value.numpy() if attr.type == ir.AttributeType.TENSOR else attr.value
        for name, attr in node.attributes.items()
    }


def _label(node: ir.Node) -> str:
    """What the calls that stand for a node are named after."""
    return identifier(scoped(node.name or node.op_type))
