"""Reading an `ExportedProgram`: its inputs, outputs and dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

from modelport.backends.torch.outputs import plain_tree
from modelport.backends.torch.run import (
    BATCH,
    Call,
    as_module,
    call_module,
    device_of,
    name_outputs,
    tensor_spec,
    unique_name,
)
from modelport.core.errors import SignatureError, UnsupportedModelError
from modelport.core.signature import Signature, Tree, leaves, map_tree


class Traced(NamedTuple):
    """A program and the names of its inputs, in the order of its placeholders."""

    program: ExportedProgram
    names: tuple[str, ...]


def program_signature(program: ExportedProgram) -> Signature:
    """The signature of a program: its own static and dynamic dimensions; the batch is axis 0 of its first input.

    Raises:
        SignatureError: the program was saved without example inputs.
    """
    args, kwargs = _example(program)
    values = _placeholder_values(program)
    taken = set(program.state_dict)
    names = iter([unique_name(name, taken, "input") for name in values])
    named = map_tree(lambda _: next(names), args), map_tree(lambda _: next(names), kwargs)
    flat = dict(zip(leaves(named), values.values(), strict=True))
    symbols = _symbol_names(flat)
    inputs = tuple(tensor_spec(n, v, [_dim(d, symbols) for d in v.shape]) for n, v in flat.items())
    module = as_module(program)
    device = device_of(program)
    call = Call(map_tree(lambda t: t.to(device), args), map_tree(lambda t: t.to(device), kwargs))
    with torch.no_grad():
        returns = name_outputs(plain_tree(call_module(module, call)), taken)
    found = output_values(program)
    names_out = list(leaves(returns))
    if len(found) != len(names_out):
        raise UnsupportedModelError(f"the exported program returns {len(names_out)} tensors of {len(found)} outputs.")
    outputs = tuple(
        tensor_spec(n, v, [_dim(d, symbols) for d in v.shape]) for n, v in zip(names_out, found, strict=True)
    )
    return Signature(inputs, outputs, named[0], named[1], returns)


def program_example(program: ExportedProgram) -> Any:
    """The example inputs a program was exported with, in the nesting of its call; `None` where it has none."""
    if program.example_inputs is None:
        return None
    args, kwargs = program.example_inputs
    return dict(kwargs) if kwargs and not args else tuple(args) if not kwargs else None


def dimension_names(traced: Traced, signature: Signature) -> dict[str, str]:
    """The signature's name of every symbol of a program.

    Raises:
        UnsupportedModelError: a dimension that the signature calls dynamic is fixed in the program.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    values = _placeholder_values(traced.program)
    symbols: dict[str, str] = {}
    for name, value in zip(traced.names, values.values(), strict=True):
        for axis, (size, dim) in enumerate(zip(value.shape, specs[name].shape or (), strict=True)):
            if isinstance(dim, str) and isinstance(size, int):
                raise UnsupportedModelError(
                    f"the exported program has the fixed size {size} on axis {axis} of input {name!r}, but the "
                    f"signature calls it {dim!r}: export it again with that dimension dynamic, or fix it in the "
                    "signature."
                )
            if isinstance(dim, str):
                symbols.setdefault(str(size), dim)
    return symbols


def rename_symbols(expression: str, symbols: Mapping[str, str]) -> str:
    """A dimension's expression with the program's symbols replaced by their names (`"2*s77"` -> `"2*batch"`)."""
    return re.sub(r"[A-Za-z_]\w*", lambda match: symbols.get(match.group(), match.group()), expression)


def output_values(program: ExportedProgram) -> list[torch.Tensor]:
    """The fake tensors that a program returns to its caller, in order."""
    nodes = {node.name: node for node in program.graph.nodes}
    specs = (s for s in program.graph_signature.output_specs if s.kind == OutputKind.USER_OUTPUT)
    return [nodes[s.arg.name].meta["val"] for s in specs if isinstance(s.arg, TensorArgument)]


def mutated_buffers(program: ExportedProgram) -> list[str]:
    """The buffers that a call of the program writes to."""
    return [str(s.target) for s in program.graph_signature.output_specs if s.kind == OutputKind.BUFFER_MUTATION]


def placeholder_order(program: ExportedProgram, signature: Signature) -> tuple[str, ...]:
    """The input names in the order of the program's placeholders: it sorts keywords as `forward` declares them."""
    keys = program.call_spec.in_spec.child(1).context
    if set(keys) != set(signature.kwargs):
        keys = list(signature.kwargs)
    return tuple(leaves((signature.args, [signature.kwargs[key] for key in keys])))


def _placeholder_values(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """The fake tensors of the user's inputs by placeholder name, in order; None and other constants are left out."""
    nodes = {node.name: node for node in program.graph.nodes}
    specs = (s for s in program.graph_signature.input_specs if s.kind == InputKind.USER_INPUT)
    found = {}
    for spec in specs:
        if isinstance(spec.arg, ConstantArgument):
            if spec.arg.value is not None:
                raise UnsupportedModelError(
                    f"the exported program has a fixed argument {spec.arg.name} = {spec.arg.value!r}: a signature "
                    "holds tensors only. Export it without that argument."
                )
            continue
        found[spec.arg.name] = nodes[spec.arg.name].meta["val"]
    return found


def _example(program: ExportedProgram) -> tuple[tuple[Tree, ...], dict[str, Tree]]:
    if program.example_inputs is None:
        raise SignatureError("the exported program has no example inputs: export it again, with torch.export.export.")
    args, kwargs = program.example_inputs
    keys = program.call_spec.in_spec.child(1).context
    return plain_tree(tuple(args)), {key: plain_tree(kwargs[key]) for key in keys}


def _symbol_names(flat: Mapping[str, torch.Tensor]) -> dict[str, str]:
    symbols: dict[str, str] = {}
    for name, value in flat.items():
        for axis, size in enumerate(value.shape):
            if not isinstance(size, int):
                symbols.setdefault(str(size), f"{name}_dim_{axis}" if symbols or axis else BATCH)
    return symbols


def _dim(size: Any, symbols: Mapping[str, str]) -> int | str:
    if isinstance(size, int):
        return size
    return rename_symbols(str(size), symbols)
