"""Putting a new node where an old value was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

BUILD_DOMAIN = "modelport"
"""The domain of build-only nodes, never saved to disk."""


def replace_outputs(
    old: Sequence[ir.Value | None],
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    domain: str = "",
    name: str | None = None,
    at: ir.Node | None = None,
) -> ir.Node:
    """A new node whose outputs take the place, the names and the shapes of old values.

    Args:
        old: one value per output; `None` where nothing took that output.
        op_type: of the new node.
        inputs: of the new node; they exist before the place where it goes.
        attributes: of the new node.
        domain: of the new node.
        name: of the new node; the name of the first old value's node where it is `None`.
        at: the node before which it goes; the node of the first old value where it is `None`.

    Raises:
        ValueError: there is no place for it.
    """
    place = at or next(value.producer() for value in old if value is not None)
    if place is None or place.graph is None:
        raise ValueError(f"no node makes {old}, so there is no place for {op_type}")
    outputs = [ir.Value() if value is None else ir.Value(type=value.type, shape=value.shape) for value in old]
    node = ir.node(op_type, inputs, attributes, domain=domain, outputs=outputs, name=name or place.name)
    node.metadata_props.update(place.metadata_props)
    place.graph.insert_before(place, node)
    for before, after in zip(old, outputs, strict=True):
        if before is not None:
            take_place(before, after)
    return node


def take_place(before: ir.Value, after: ir.Value) -> None:
    """Give a value's name, its uses and its place among the graph's outputs to another."""
    label = before.name
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    before.name = None if label is None else f"{label}/before"
    after.name = label


def merge_into(before: ir.Value, after: ir.Value) -> None:
    """Give the uses of a value to another that holds the same; names that the graph returns stay."""
    if before.is_graph_output() and after.is_graph_output():
        replace_outputs([before], "Identity", [after])
    elif before.is_graph_output():
        take_place(before, after)
    else:
        before.replace_all_uses_with(after)


def insert(
    before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None
) -> ir.Value:
    """The output of a new node before another."""
    node = ir.node(op_type, inputs, attributes, name=f"{before.name}/{op_type}")
    if before.graph is None:
        raise ValueError(f"{before.name} is in no graph")
    before.graph.insert_before(before, node)
    return node.outputs[0]


def ints(model: ir.Model, name: str, values: Sequence[int] | int) -> ir.Value:
    """A constant of integers, or of one as a scalar, of the main graph; `name` is made unique."""
    while name in model.graph.initializers:
        name += "_"
    tensor = ir.tensor(np.array(values, np.int64), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def is_op(value: ir.Value | None, *op_types: str) -> bool:
    """Whether a value comes from one of ONNX's operators."""
    node = None if value is None else value.producer()
    return node is not None and node.domain == "" and node.op_type in op_types


def only_use(value: ir.Value) -> ir.Node | None:
    """The node that takes a value, where it is the only one and the graph does not return the value."""
    uses = value.uses()
    if value.is_graph_output() or len(uses) != 1:
        return None
    return next(iter(uses)).node


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element."""
    tensor = None if value is None else value.const_value
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def discard(node: ir.Node) -> None:
    """Remove a node whose outputs nothing uses, and let go of what its subgraphs read."""
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph().all_nodes():
                for place in range(len(inner.inputs)):
                    inner.replace_input_with(place, None)


def other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The second operand of a node of two, where a value is the first or the other way round."""
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def is_near(number: float | None, wanted: float) -> bool:
    """Whether a number is another up to the rounding of float16, in which constants are stored too."""
    return number is not None and abs(number - wanted) <= 1e-3 * abs(wanted)


def is_same_size(size: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    """Whether two sizes are known to be one, whatever it is."""
    return size == other and (isinstance(size, int) or size.value is not None)


def is_text(value: ir.Value | None) -> bool:
    """Whether a value is, or holds, strings."""
    return value is not None and value.type is not None and value.type.dtype == ir.DataType.STRING
