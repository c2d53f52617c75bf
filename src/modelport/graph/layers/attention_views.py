"""The shortest way from the layers around an attention to its heads and back.

Attention modules shuffle axes: sequence first and batch first, one product for query, key and value, heads joined with
the batch. Each such chain is a view of a tensor (`graph.views`); here it is written again with as few operators as it
takes, and Linears read and give the order of axes that needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.graph.names import unique_name
from modelport.graph.shapes.expr import Size
from modelport.graph.splice import BUILD_DOMAIN, ints
from modelport.graph.views import Factor, Step, View, sizes_of, steps
from modelport.graph.views import target as target_of

_MOVES = frozenset({"Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def straighten_attention(model: ir.Model) -> bool:
    """Write the views around the attentions of a graph again, in place, where that takes fewer operators.

    Args:
        model: with shapes inferred and layers recognised.

    Returns:
        Whether anything was changed.
    """
    if not any(node.op_type == "Attention" for node in model.graph):
        return False
    trial = model.clone()
    if not _Straightening(trial).run() or _moves(trial.graph) >= _moves(model.graph):
        return False
    return _Straightening(model).run()


def _moves(graph: ir.Graph) -> int:
    """How many operators move elements, of those that something reads."""
    needed: set[ir.Node] = set()
    for node in reversed(graph):
        if any(v.is_graph_output() or any(u.node in needed or u.node.graph is not graph for u in v.uses())
               for v in node.outputs):  # fmt: skip
            needed.add(node)
    return sum(node.op_type in _MOVES and not node.domain for node in needed)


class _Straightening:
    """One walk over a graph."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph
        self.views: dict[ir.Value, View] = {}
        self.pushed: set[ir.Value] = set()
        self.made: dict[tuple[object, ...], ir.Value] = {}
        self.near = _near_attention(model.graph)
        self.names = {str(value.name) for node in model.graph for value in node.outputs}

    def run(self) -> bool:
        """Whether every view could be written."""
        for node in list(self.graph):
            views = _outputs(node, self._view)
            if views is not None:
                self.views |= views
            elif _is_linear(node) and node in self.near and self._push(node):
                continue
            elif not self._read(node):
                return False
        return True

    def _view(self, value: ir.Value) -> View | None:
        return self.views.get(value) or View.of(value)

    def _read(self, node: ir.Node) -> bool:
        """Let a node read its inputs by the shortest ways."""
        for index, value in enumerate(node.inputs):
            view = None if value is None else self.views.get(value)
            if value is None or view is None:
                continue
            must = view.base in self.pushed
            if not must and node.op_type != "Attention":
                continue
            way = steps(view)
            # A way by an index is shared with the other parts of the same product.
            if not must and len(way) >= view.length + bool(view.picked):
                continue
            written = self._written(view, way, node)
            if written is None:
                return not must
            node.replace_input_with(index, written)
        return True

    def _push(self, node: ir.Node) -> bool:
        """Let a Linear read its input in the order of the axes of its base, and give them in that order."""
        x, result = node.inputs[0], node.outputs[0]
        view = None if x is None else self.views.get(x)
        sizes = sizes_of(result)
        if view is None or view.is_base or sizes is None or not isinstance(sizes[-1], int):
            return False
        features = view.axes[-1]
        if any(factor in view.picked for axis in view.source for factor in axis) or _reaches_output(result):
            return False
        rows = tuple((factor,) for axis in view.source for factor in axis if factor not in features)
        if rows == view.axes[:-1]:
            return False
        given = replace(view, axes=(*rows, features))
        source = self._written(given, steps(given), node)
        if source is None:
            return False
        out = ir.Value(name=result.name, type=result.type)
        result.name = self._fresh(f"{result.name}/before")
        out.shape = _shape([*(factor.size for (factor,) in rows), sizes[-1]])
        linear = ir.node(
            "Linear", [source, *node.inputs[1:]], node.attributes, domain=BUILD_DOMAIN, outputs=[out], name=node.name
        )
        linear.metadata_props.update(node.metadata_props)
        self.graph.insert_before(node, linear)
        width = (Factor(sizes[-1]),)
        self.views[result] = View(out, (*rows, width), (*view.axes[:-1], width), length=view.length)
        self.pushed.add(out)
        return True

    def _written(self, view: View, way: Sequence[Step], before: ir.Node) -> ir.Value | None:
        """The tensor that a view is, made before a node; `None` where a size has no place in a Reshape."""
        value = view.base
        for step in way:
            key = (value, step.op_type, step.argument)
            if key not in self.made:
                made = self._step(value, step, before)
                if made is None:
                    return None
                self.made[key] = made
            value = self.made[key]
        return value

    def _fresh(self, name: str) -> str:
        candidate = unique_name(name, self.names)
        self.names.add(candidate)
        return candidate

    def _step(self, value: ir.Value, step: Step, before: ir.Node) -> ir.Value | None:
        name = self._fresh(f"{value.name}/{step.op_type.lower()}")
        attributes: dict[str, Any] = {}
        inputs = [value]
        if step.op_type == "Transpose":
            attributes["perm"] = step.argument
        elif step.op_type == "Gather":
            attributes["axis"] = step.argument[0]
            inputs.append(ints(self.model, f"{name}/index", step.argument[1]))
        else:
            target = target_of(sizes_of(value) or (), step.sizes)
            if target is None:
                return None
            inputs.append(ints(self.model, f"{name}/shape", target))
        result = ir.Value(name=name, type=value.type, shape=_shape(step.sizes))
        self.graph.insert_before(before, ir.node(step.op_type, inputs, attributes, outputs=[result], name=name))
        return result


def _shape(sizes: Sequence[Size]) -> ir.Shape:
    return ir.Shape([size if isinstance(size, int) else str(size) for size in sizes])


def _is_linear(node: ir.Node) -> bool:
    return node.domain == BUILD_DOMAIN and node.op_type == "Linear"


def _near_attention(graph: ir.Graph) -> set[ir.Node]:
    """The Linears that only moves of elements keep from an attention."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type == "Attention":
            front = [value for value in node.inputs[:3] if value is not None]
            while front:
                producer = front.pop().producer()
                if producer is not None and _is_linear(producer):
                    found.add(producer)
                elif producer is not None and producer.op_type in _MOVES and producer.inputs[0] is not None:
                    front.append(producer.inputs[0])
            found |= {user for user in _users(node.outputs[0]) if _is_linear(user)}
    return found


def _users(value: ir.Value) -> set[ir.Node]:
    """The nodes that read a value, or moves of its elements, for more than a move."""
    found: set[ir.Node] = set()
    front = [value]
    while front:
        for use in front.pop().uses():
            if use.node.op_type in _MOVES and not use.node.domain and use.idx == 0:
                front += use.node.outputs
            else:
                found.add(use.node)
    return found


def _reaches_output(value: ir.Value) -> bool:
    """Whether the graph returns a value, or only moves of its elements keep it from that."""
    if value.is_graph_output():
        return True
    moves = (use.node for use in value.uses() if use.node.op_type in _MOVES and not use.node.domain)
    return any(_reaches_output(output) for node in moves for output in node.outputs)


def _outputs(node: ir.Node, view_of: Callable[[ir.Value], View | None]) -> dict[ir.Value, View] | None:
    """The views that a node makes of its first input; `None` where it does more than move elements."""
    if node.domain or node.op_type not in _MOVES or node.inputs[0] is None:
        return None
    view = view_of(node.inputs[0])
    if view is None:
        return None
    if node.op_type == "Split":
        return _parts(node, view)
    found = _moved(node, view)
    return None if found is None else {node.outputs[0]: found}


def _moved(node: ir.Node, view: View) -> View | None:
    match node.op_type:
        case "Transpose":
            rank = len(view.axes)
            return view.transposed(node.attributes.get_ints("perm") or range(rank)[::-1])
        case "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten":
            sizes = sizes_of(node.outputs[0])
            return None if sizes is None else view.reshaped(sizes)
        case "Gather":
            index = _number(node.inputs[1])
            axis = node.attributes.get_int("axis", 0) % len(view.axes)
            return None if index is None or index < 0 else view.selected(axis, index)
    return None


def _number(value: ir.Value | None) -> int | None:
    """The number that a scalar constant is."""
    tensor = None if value is None else value.const_value
    if tensor is None or len(tensor.shape) or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return None
    return int(np.asarray(tensor.numpy()))


def _parts(node: ir.Node, view: View) -> dict[ir.Value, View] | None:
    """The equal parts of a Split."""
    axis = node.attributes.get_int("axis", 0) % len(view.axes)
    shapes = {sizes_of(output) for output in node.outputs}
    if len(shapes) != 1 or None in shapes:
        return None
    found = {output: view.selected(axis, i, len(node.outputs)) for i, output in enumerate(node.outputs)}
    views = {output: part for output, part in found.items() if part is not None}
    return views if len(views) == len(found) else None
