"""A portable graph as a `torch.fx.GraphModule` of torch's own layers and functions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from torch import fx

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.operands import Operands, identifier
from modelport.backends.torch.ops import OPS, SIZE_OPS, CannotBuild
from modelport.backends.torch.registry import Op
from modelport.backends.torch.traced import Constant, Ints, Items, Operand, Tensor, WeightRef
from modelport.backends.torch.weights import Weights
from modelport.core.backend import Built
from modelport.core.errors import UnsupportedOpError
from modelport.core.signature import Signature, Tree, leaves, map_tree
from modelport.graph.layers import recognize_layers
from modelport.graph.normal import normalize
from modelport.graph.signature import read_signature
from modelport.graph.weights import ROLES_KEY

_AS_STORED = frozenset({"Cast", "CastLike", "BitCast", "Identity"})
"""Operators that take dtypes for which torch has storage but no arithmetic."""


def build(graph: ir.Model) -> Built:
    """A module that computes a portable graph, in eval mode.

    Weights are parameters and buffers under their portable names, in layers of `torch.nn` where the names fit one.
    The module refers to torch only.

    Args:
        graph: a portable graph; it is left as it was.

    Raises:
        UnsupportedOpError: torch has no counterpart for an operator; the message names it and its node.
    """
    signature = read_signature(graph).spread()
    model = recognize_layers(normalize(graph))
    interpreter = _Interpreter(model, foreign=ROLES_KEY not in graph.metadata_props)
    interpreter.inputs(signature)
    interpreter.walk(model.graph)
    interpreter.outputs(signature)
    return Built(interpreter.module(), tuple(interpreter.operands.notes), signature=signature)


class _Interpreter:
    """Walks a graph once; each node's function leaves its torch calls in the fx graph."""

    def __init__(self, model: ir.Model, *, foreign: bool) -> None:
        self.weights = Weights(model, foreign=foreign)
        self.operands = Operands(self.weights)
        self.fx = self.operands.graph
        self.model = model
        self.environment: dict[ir.Value, Operand] = {}

    def inputs(self, signature: Signature) -> None:
        """One placeholder per argument of the native call, and an item of it for each tensor inside."""
        values = {value.name: value for value in self.model.graph.inputs}
        trees: list[tuple[str, Tree]] = [
            (_argument_name(tree, index), tree) for index, tree in enumerate(signature.args or ())
        ]
        trees += list(signature.kwargs.items())
        for name, tree in trees:
            default: Any = inspect.Parameter.empty if any(True for _ in leaves(tree)) else None
            node = self.fx.placeholder(identifier(name), default_value=default)
            self._unpack(self.operands.wrap(node), tree, values)

    def _unpack(self, tensor: Tensor, tree: Tree, values: Mapping[str | None, ir.Value]) -> None:
        if isinstance(tree, str):
            operand = self.operands.wrap(tensor.node, values[tree])
            self.operands.set_anchor(operand)
            self.environment[values[tree]] = operand
            return
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree or ())
        for key, item in items:
            if any(True for _ in leaves(item)):
                self._unpack(tensor[key], item, values)

    def outputs(self, signature: Signature) -> None:
        """The output node, nested as the native call returns it."""
        values = {value.name: value for value in self.model.graph.outputs}
        self.fx.output(map_tree(lambda name: self._output(self.lookup(values[name])), signature.returns))

    def _output(self, operand: Operand) -> Any:
        if isinstance(operand, Items):
            return [tensor.node for tensor in operand.tensors]
        return self.operands.tensor(operand).node

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
        """Build every node, in order."""
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

    def _build(self, node: ir.Node) -> None:
        operands = [None if value is None else self.lookup(value) for value in node.inputs]
        result = self._sizes(node, operands)
        if result is NotImplemented:
            result = self._call(node, operands)
        results = result if isinstance(result, tuple) else (result,)
        for value, item in zip(node.outputs, results, strict=False):
            self.environment[value] = self._settle(value, item)
        for value in node.outputs[len(results) :]:
            if value.uses() or value.is_graph_output():
                raise CannotBuild(f"its output {value.name!r} cannot be computed in torch; do not use it")

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
        if unknown:
            raise CannotBuild(f"its attributes {unknown} are not known")
        context = {"node": node, "operands": self.operands}
        keywords |= {name: item for name, item in context.items() if name in op.keywords}
        if "anchor" in op.keywords:
            keywords["anchor"] = self.operands.anchor
        return op.function(*arguments, **keywords)

    def _arguments(self, op: Op, node: ir.Node, operands: Sequence[Operand | None]) -> list[Any]:
        arguments: list[Any] = []
        for index, operand in enumerate(operands):
            parameter = op.inputs[min(index, len(op.inputs) - 1)]
            if index >= len(op.inputs) and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                raise CannotBuild(f"it has {len(operands)} inputs, of which {len(op.inputs)} are known")
            argument = self.operands.convert(operand, op.hints[parameter.name])
            if isinstance(argument, Tensor) and node.op_type not in _AS_STORED:
                argument = self.operands.widened(argument)
            arguments.append(argument)
        return arguments

    def _settle(self, value: ir.Value, item: Any) -> Operand:
        """A result under its name; in its own dtype where the computation had to use a wider one."""
        if not isinstance(item, fx.Proxy):
            assert isinstance(item, (Ints, Constant, WeightRef, Items)), (value.name, item)
            return item
        if value.dtype is not None and value.producer().op_type not in _AS_STORED:
            target = value.dtype
            if target in (ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64):
                item = item.to(torch_dtype(target))
        fresh = item.node.op != "placeholder" and item.node.op != "get_attr" and "named" not in item.node.meta
        if fresh and value.name:
            item.node._rename(identifier(value.name))
            item.node.meta["named"] = True
        return self.operands.wrap(item.node, value)

    def module(self) -> fx.GraphModule:
        """The finished module, less what it does not use; every weight stays in it."""
        for node in reversed(self.fx.nodes):
            if not node.users and node.op not in ("placeholder", "output"):
                self.fx.erase_node(node)
            node.meta.pop("named", None)
        self._hold_constants()
        self._hold_weights()
        self.fx.lint()
        module = fx.GraphModule(self.weights.root, self.fx)
        return module.eval()

    def _hold_constants(self) -> None:
        used = {node.target.rpartition(".")[2] for node in self.fx.nodes if _is_constant(node, self.weights)}
        for name in [name for name in self.operands.constants._buffers if name not in used]:
            del self.operands.constants._buffers[name]
        if not used:
            return
        self.weights.root.add_module(self.weights.constants_path, self.operands.constants)
        placeholders = [node for node in self.fx.nodes if node.op == "placeholder"]
        first = placeholders[0] if placeholders else None
        with self.fx.inserting_before(next(node for node in self.fx.nodes if node.op != "placeholder")):
            call = self.fx.call_module(self.weights.constants_path, (first,))
        if first is not None:
            first.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)

    def _hold_weights(self) -> None:
        """Name the weights that nothing uses in the graph too: copies of a GraphModule keep only what it names."""
        paths = self.weights.finish()
        called = {str(node.target) for node in self.fx.nodes if node.op == "call_module"}
        named = {str(node.target) for node in self.fx.nodes if node.op == "get_attr"}
        with self.fx.inserting_before(next(iter(reversed(self.fx.nodes)))):
            for path in paths:
                if path not in named and path.rpartition(".")[0] not in called:
                    self.fx.create_node("get_attr", path, name=identifier(path))


def _is_constant(node: fx.Node, weights: Weights) -> bool:
    return node.op == "get_attr" and str(node.target).startswith(f"{weights.constants_path}.")


def _argument_name(tree: Tree, index: int) -> str:
    return tree if isinstance(tree, str) else f"args_{index}" if index else "inputs"


def _attributes(node: ir.Node) -> dict[str, Any]:
    """Attributes by name: numbers, strings, tuples, and tensors as NumPy arrays."""
    return {
        name: attr.value.numpy() if attr.type == ir.AttributeType.TENSOR else attr.value
        for name, attr in node.attributes.items()
    }
