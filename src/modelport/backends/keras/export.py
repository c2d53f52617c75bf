"""Keras model to portable graph: one trace, lowered backwards from its outputs.

`docs/keras-export.md` says why it is done this way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

import modelport.backends.keras.lower  # noqa: F401  (fills the tables)
from modelport.backends.keras.layers import Layout, Weight, constants, weights
from modelport.backends.keras.lower.lowering import Frame, Lowering, Resource
from modelport.backends.keras.lower.trace import Trace, record
from modelport.backends.keras.run import by_name
from modelport.backends.keras.structure import dims, dtype_name
from modelport.core.backend import Exported
from modelport.core.report import Note
from modelport.core.signature import Arrays, Dim, Signature, TensorSpec
from modelport.graph.layers.quantized import recognize_quantization, restore_layers
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT, standard_nodes
from modelport.graph.layout.channels_last import cancel_transposes
from modelport.graph.scopes import name_calls, name_values
from modelport.graph.signature import ir_dtype, write_signature
from modelport.graph.splice import BUILD_DOMAIN
from modelport.graph.weights import set_roles

_IR_VERSION = 10


def export(native: Any, example: Arrays, signature: Signature) -> Exported:
    """The portable graph of a Keras model or a TensorFlow module; the model is left as it was.

    Args:
        native: a `keras.Layer`, a `tf.Module` or a restored SavedModel.
        example: not used: TensorFlow traces with the signature's shapes.
        signature: names the graph's inputs and outputs.

    Raises:
        UnsupportedModelError: TensorFlow cannot trace the model.
        UnsupportedOpError: an op has no portable form; the message names it and its layer.
    """
    traced = record(native, signature)
    table = weights(native)
    by_handle = {id(weight.variable.handle): weight for weight in (*table, *constants(native))}
    reserved = [name for weight in table for name in weight.names]
    reserved += [spec.name for spec in (*signature.inputs, *signature.outputs)]
    lowering = Lowering(traced, by_handle, reserved)
    frame = _frame(traced, lowering, signature)
    outputs = by_name(traced.function.structured_outputs, signature)
    signature = _corrected(signature, outputs)
    values = {name: lowering.value(frame, _inner(traced, tensor)) for name, tensor in outputs.items()}
    _set_outputs(lowering, values)
    model = ir.Model(lowering.graph, ir_version=_IR_VERSION, producer_name="modelport")
    _finish(model, lowering, signature, table)
    return Exported(model, tuple(dict.fromkeys(lowering.notes)))


def _corrected(signature: Signature, outputs: dict[str, Any]) -> Signature:
    """The signature with the output sizes and dtypes that the trace has: a Keras layer's own idea can be wrong."""

    def shape(spec: TensorSpec) -> tuple[Dim, ...] | None:
        traced = outputs[spec.name].shape
        if traced.rank is None or spec.shape is None or len(spec.shape) != traced.rank:
            return dims(spec.name, traced)
        return tuple(old if new is None else int(new) for old, new in zip(spec.shape, traced.as_list(), strict=True))

    corrected = (replace(s, shape=shape(s), dtype=dtype_name(outputs[s.name].dtype)) for s in signature.outputs)
    return replace(signature, outputs=tuple(corrected))


def _inner(traced: Trace, tensor: Any) -> Any:
    """The tensor of the graph that a structured output stands for."""
    return tensor if hasattr(tensor, "op") else traced.function.graph.outputs[0]


def _frame(traced: Trace, lowering: Lowering, signature: Signature) -> Frame:
    """The traced graph with the signature's inputs and the model's weights at its placeholders."""
    graph = traced.function.graph
    captured = {internal.name: external for external, internal in graph.captures}
    placeholders = [tensor for tensor in graph.inputs if tensor.name not in captured]
    given: dict[str, Any] = {}
    for tensor, spec in zip(placeholders, signature.inputs, strict=True):
        shape = None if spec.shape is None else ir.Shape(spec.shape)
        value = ir.Value(name=spec.name, type=ir.TensorType(ir_dtype(spec.dtype)), shape=shape)
        lowering.graph.inputs.append(value)
        given[tensor.name] = value
    variables = {id(v.handle): v for v in graph.variables}
    for name, external in captured.items():
        if id(external) in lowering.weights:
            given[name] = lowering.weights[id(external)]
        elif id(external) in variables:
            given[name] = _stray(lowering, variables[id(external)])
        elif external.dtype.name == "resource":
            given[name] = Resource(external)
        elif external.dtype.name != "variant":
            given[name] = external.numpy()
    return Frame(graph, given, lowering.tape)


def _stray(lowering: Lowering, variable: Any) -> Weight:
    """A variable that the graph reads and the model does not keep among its weights: a constant of that name."""
    shape = tuple(variable.shape)
    name = lowering.unique(variable.name.split(":")[0].replace("/", "."))
    lowering.notes.append(
        Note("changed", name, "the model reads this variable but does not keep it among its weights: it is a constant")
    )
    return Weight(variable, (name,), Layout(shape, shape), "buffer")


def _set_outputs(lowering: Lowering, values: dict[str, ir.Value]) -> None:
    fixed = {id(value) for value in (*lowering.graph.inputs, *lowering.graph.initializers.values())}
    for name, value in values.items():
        if id(value) in fixed:
            value = lowering.tape.op("Identity", [value])
        fixed.add(id(value))
        value.name = name
        lowering.graph.outputs.append(value)


def _finish(model: ir.Model, lowering: Lowering, signature: Signature, table: tuple[Weight, ...]) -> None:
    """Name what is not named, drop what is not used, know every shape, cancel the transposes."""
    inner = [graph for graph in model.graph.subgraphs() if graph is not model.graph]
    outputs = {id(value) for graph in (model.graph, *inner) for value in graph.outputs}
    for node in model.graph.all_nodes():
        if not node.name or node.name.startswith("node_"):
            node.name = lowering.unique(node.op_type.lower())
        for value in node.outputs:
            if id(value) not in outputs and (not value.name or value.name.startswith("val_")):
                value.name = lowering.unique(f"{node.name}.out")
    write_signature(model, signature)
    RemoveUnusedNodesPass()(model)
    for weight in table:
        # A weight that the outputs do not depend on is kept too: nothing is lost on the way home.
        for value in lowering.parameter(weight):
            model.graph.initializers.add(value)
    set_roles(model, {name: weight.role for weight in table for name in weight.names})
    model.graph.opset_imports[BUILD_DOMAIN] = 1
    ShapeInferencePass()(model)
    is_quantized = recognize_quantization(model)
    cancel_transposes(model)
    for graph in (model.graph, *inner):
        expand_linear(graph)
        expand_dropout(graph)
    if is_quantized:
        restore_layers(model)
    del model.graph.opset_imports[BUILD_DOMAIN]
    name_calls(model.graph)
    name_values(model.graph)


def expand_dropout(graph: ir.Graph) -> None:
    """Write every `SpatialDropout` as the product with dropped ones; in place."""
    for node in [node for node in graph if (node.domain, node.op_type) == (BUILD_DOMAIN, SPATIAL_DROPOUT)]:
        made, (result,) = standard_nodes(node), node.outputs
        last = made[-1].outputs[0]
        last.name, last.type, last.shape = result.name, result.type, result.shape
        for each in made:
            each.meta.update(node.meta)
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [result], [last])


def expand_linear(graph: ir.Graph) -> None:
    """Write every `Linear` as the standard operators Transpose, MatMul and Add; in place."""
    for node in [node for node in graph if (node.domain, node.op_type) == (BUILD_DOMAIN, "Linear")]:
        x, weight, *bias = node.inputs
        tape = ir.tape.Tape()
        stem = (node.name or "").removesuffix("linear")
        (result,) = node.outputs
        turned = tape.op("Transpose", [weight], {"perm": [1, 0]}, name=f"{stem}transpose")
        product = tape.op("MatMul", [x, turned], name=f"{stem}matmul")
        last = tape.op("Add", [product, bias[0]], name=f"{stem}add") if bias else product
        for value, made in ((turned, "transpose"), (product, "matmul")):
            value.name, value.type = f"{stem}{made}", result.type
        turned.shape = None if weight is None or weight.shape is None else ir.Shape(reversed(list(weight.shape)))
        product.shape = last.shape = result.shape
        last.name, last.type = result.name, result.type
        for made in tape.nodes:
            made.meta.update(node.meta)
        ir.convenience.replace_nodes_and_values(graph, node, [node], tape.nodes, [result], [last])
