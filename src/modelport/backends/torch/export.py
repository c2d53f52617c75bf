"""From a torch model to the portable graph."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
from torch import nn
from torch.export import ExportedProgram

from modelport.backends.torch.failures import explain_translation
from modelport.backends.torch.naming import name_nodes, separate_outputs
from modelport.backends.torch.operators import DOMAIN, lower_recurrent, translations
from modelport.backends.torch.outputs import noting_left_out
from modelport.backends.torch.parameters import ties, weights
from modelport.backends.torch.program import (
    Traced,
    dimension_names,
    mutated_buffers,
    output_values,
    rename_symbols,
)
from modelport.backends.torch.run import as_module, tensor_spec
from modelport.backends.torch.trace import prepare, trace
from modelport.backends.torch.whole import lower_whole
from modelport.core.backend import Exported
from modelport.core.errors import UnsupportedModelError
from modelport.core.report import Note
from modelport.core.signature import Arrays, Signature, TensorSpec
from modelport.graph.layers.quantized import recognize_quantization, restore_layers
from modelport.graph.normal import tidy
from modelport.graph.signature import write_signature
from modelport.graph.weights import Role, set_aliases, set_roles

OPSET = 21


def export(native: Any, example: Arrays, signature: Signature) -> Exported:
    """The portable graph of a torch model in inference mode; its weights share memory with the model.

    Args:
        native: an `nn.Module`, `ExportedProgram` or `ScriptModule`; it is left as it was.
        example: inputs by name; rows are repeated where a dynamic dimension has only one.
        signature: the inputs to export; its symbolic dimensions become dynamic, its outputs' dimensions are read off
            the traced program.

    Raises:
        UnsupportedModelError: torch cannot trace the model; the message names the line of its code.
        UnsupportedOpError: an operator has no ONNX form.
    """
    with noting_left_out(as_module(native)) as left_out:
        traced = trace(native, example, signature)
    symbols = dimension_names(traced, signature)
    program, notes = prepare(native, traced.program)
    outputs = _output_specs(program, signature, symbols)
    model, written = _translate(program, type(as_module(native)).__name__)
    lower_recurrent(model)
    lower_whole(model)
    model.graph.opset_imports.pop(DOMAIN, None)
    _name_interface(model, Traced(program, traced.names), signature, outputs)
    _name_dimensions(model, symbols)
    notes += [Note("dropped", b, "the model updates this buffer on every call") for b in mutated_buffers(written)]
    notes += _set_weights(model, native)
    _drop_masks(model.graph)
    tidy(model)
    if recognize_quantization(model):
        restore_layers(model)
        tidy(model)
    name_nodes(model)
    write_signature(model, replace(signature, outputs=outputs))
    return Exported(model, (*notes, *left_out))


def _translate(program: ExportedProgram, name: str) -> tuple[ir.Model, ExportedProgram]:
    """The ONNX graph, and the decomposed program it was written from."""
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            custom_translation_table=translations(),
            verbose=False,
        )
    except Exception as exc:
        raise explain_translation(exc, name) from exc
    assert exported is not None
    assert exported.exported_program is not None
    return exported.model, exported.exported_program


def _output_specs(program: ExportedProgram, signature: Signature, symbols: dict[str, str]) -> tuple[TensorSpec, ...]:
    values = output_values(program)
    if len(values) != len(signature.outputs):
        raise UnsupportedModelError(
            f"the traced model returns {len(values)} tensors, but its signature has {signature}."
        )
    for spec, value in zip(signature.outputs, values, strict=True):
        for axis, size in enumerate(value.shape):
            # A size that no input has, the length of what a loop stacks, is called after the output.
            if re.fullmatch(r"u\d+", str(size)):
                symbols.setdefault(str(size), f"{spec.name}_dim{axis}")
    found = [
        tensor_spec(
            spec.name, value, [d if isinstance(d, int) else rename_symbols(str(d), symbols) for d in value.shape]
        )
        for spec, value in zip(signature.outputs, values, strict=True)
    ]
    texts = [spec.dtype == "str" for spec in signature.outputs]
    return tuple(replace(spec, dtype="str") if text else spec for spec, text in zip(found, texts, strict=True))


def _name_interface(model: ir.Model, traced: Traced, signature: Signature, outputs: tuple[TensorSpec, ...]) -> None:
    """Give inputs and outputs the signature's names and order, and every other value a name that none of them has."""
    graph = model.graph
    # Of what the translation returns, only the first outputs are the caller's; buffers it updates come after them.
    del graph.outputs[len(outputs) :]
    separate_outputs(graph)
    taken = {spec.name for spec in (*signature.inputs, *outputs)} | set(graph.initializers)
    mine = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if id(value) not in mine and value.name in taken:
                value.name = f"{value.name}_value"
    by_name = dict(zip(traced.names, list(graph.inputs), strict=True))
    for value in graph.inputs:
        value.name = None
    for value in graph.outputs:
        value.name = None
    graph.inputs[:] = [by_name[spec.name] for spec in signature.inputs]
    for value, spec in zip((*graph.inputs, *graph.outputs), (*signature.inputs, *outputs), strict=True):
        value.name = spec.name
        if spec.dtype == "str":
            value.type = ir.TensorType(ir.DataType.STRING)


def _name_dimensions(model: ir.Model, symbols: dict[str, str]) -> None:
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape(
                    [d if isinstance(d, int) else rename_symbols(str(d.value), symbols) for d in value.shape]
                )


def _set_weights(model: ir.Model, native: Any) -> list[Note]:
    """Every entry of the state dict as an initializer with its role, used by the program or not."""
    graph, state = model.graph, weights(native)
    aliases = ties(state)
    for alias, name in aliases.items():
        if alias in graph.initializers:
            value = graph.initializers.pop(alias)
            if name in graph.initializers:
                value.replace_all_uses_with(graph.initializers[name])
            else:
                value.name = name
                graph.initializers[name] = value
    owned = {name: tensor for name, tensor in state.items() if name not in aliases}
    for name, tensor in owned.items():
        content = ir.tensor_adapters.TorchTensor(tensor.detach(), name=name)
        if name not in graph.initializers:
            value = ir.Value(name=name, type=ir.TensorType(content.dtype), shape=ir.Shape(content.shape))
            graph.initializers[name] = value
        graph.initializers[name].const_value = content
    set_roles(model, {name: _role(tensor) for name, tensor in owned.items()})
    set_aliases(model, aliases)
    return _momentum_notes(model, native)


def _drop_masks(graph: ir.Graph) -> None:
    """A Dropout whose mask nobody reads has one output."""
    for node in graph:
        if node.op_type == "Dropout" and len(node.outputs) > 1 and not node.outputs[1].uses():
            node.resize_outputs(1)


def _role(tensor: torch.Tensor) -> Role:
    if not isinstance(tensor, nn.Parameter):
        return "buffer"
    return "parameter" if tensor.requires_grad else "frozen"


DEFAULT_MOMENTUM = 0.1


def _momentum_notes(model: ir.Model, native: Any) -> list[Note]:
    """A BatchNorm that averages over all batches (momentum=None) has no ONNX form: it gets torch's default."""
    if isinstance(native, ExportedProgram):
        return []
    cumulative = {
        f"{name}.running_mean".lstrip(".")
        for name, layer in as_module(native).named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum is None
    }
    notes = []
    for node in model.graph:
        if node.op_type == "BatchNormalization" and node.inputs[3] is not None and node.inputs[3].name in cumulative:
            node.attributes["momentum"] = ir.AttrFloat32("momentum", 1 - DEFAULT_MOMENTUM)
            text = f"averages its statistics over all batches (momentum=None); the graph says {DEFAULT_MOMENTUM}"
            notes.append(Note("changed", str(node.inputs[3].name).rpartition(".")[0], text))
    return notes
