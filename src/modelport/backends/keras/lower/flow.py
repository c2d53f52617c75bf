"""Variables, identities and function calls."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelport.backends.keras.layers import Layout, Weight
from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op


@op("ReadVariableOp")
def read_variable(g: Context) -> ir.Value:
    source = g.frame.source(g.op.inputs[0])
    if not isinstance(source, Weight):
        raise g.fail("a resource that is no variable of the model is read")
    return g.cast(native_value(g, source), g.result_dtype())


def native_value(g: Context, weight: Weight) -> ir.Value:
    """A weight as the Keras variable has it, from the tensors that the portable graph has."""
    parts = [native_layout(g, value, weight.layout) for value in g.lowering.parameter(weight)]
    if weight.kind == "summed":
        return g("Add", *parts)
    if weight.kind == "stacked":
        return g("Concat", *(g("Unsqueeze", part, [0]) for part in parts), axis=0)
    return parts[0]


def native_layout(g: Context, value: ir.Value, layout: Layout) -> ir.Value:
    """`Layout.to_native`, as nodes."""
    if layout.portable != layout.transposed:
        value = g("Reshape", value, list(layout.transposed))
    if layout.blocks:
        blocks = g.many("Split", [value], len(layout.blocks), axis=0, num_outputs=len(layout.blocks))
        order = sorted(range(len(layout.blocks)), key=lambda place: layout.blocks[place])
        value = g("Concat", *(blocks[place] for place in order), axis=0)
    if layout.perm is None:
        return value
    return g.transpose(value, sorted(range(len(layout.perm)), key=lambda axis: (layout.perm or ())[axis]))


@op("ResourceGather")
def resource_gather(g: Context, indices: ir.Value) -> ir.Value:
    source = g.frame.source(g.op.inputs[0])
    if not isinstance(source, Weight) or g.attr("batch_dims"):
        raise g.fail("rows of a resource that is no variable of the model are read")
    return g.cast(g("Gather", native_value(g, source), indices, axis=0), g.result_dtype())


@op("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot", "EnsureShape", "PlaceholderWithDefault")
def identity(g: Context, x: ir.Value, *rest: Any) -> ir.Value:
    return x


@op("IdentityN")
def identities(g: Context, *inputs: ir.Value) -> tuple[ir.Value, ...]:
    return inputs


@op("PartitionedCall", "StatefulPartitionedCall")
def partitioned_call(g: Context, *inputs: ir.Value) -> list[ir.Value]:
    return g.lowering.call(g, g.attr("f").name, list(g.op.inputs))
