"""Tracing a torch model into an `ExportedProgram` that keeps dropout and recurrent layers whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from modelport.backends.torch.attention_rates import restore_rates
from modelport.backends.torch.failures import explain, fixes_a_size
from modelport.backends.torch.operators import RECURRENT, WholeRecurrentLayers, recurrent_operator
from modelport.backends.torch.outputs import plain_tree
from modelport.backends.torch.program import Traced, placeholder_order
from modelport.backends.torch.run import Call, as_module, device_of, evaluating, resized, tensors_of
from modelport.backends.torch.translations.bags import keep_bags
from modelport.backends.torch.translations.convolution import keep_groups
from modelport.backends.torch.translations.linalg import keep_unchecked
from modelport.backends.torch.translations.pooling import keep_pooling
from modelport.backends.torch.whole import is_keeping, keeping_whole
from modelport.core.errors import UnsupportedModelError
from modelport.core.report import Note
from modelport.core.signature import Arrays, Signature, TensorSpec, leaves, map_tree


def trace(native: Any, example: Arrays, signature: Signature) -> Traced:
    """A model as a program in inference mode, with the signature's symbolic dimensions dynamic.

    Recurrent layers are this package's own operators in it, and it returns a flat tuple.

    Raises:
        UnsupportedModelError: torch cannot trace the model; the message names the line of its code.
    """
    if isinstance(native, ExportedProgram):
        return Traced(native, placeholder_order(native, signature))
    module = _convertible(native, example, signature)
    with _plain_outputs(module), WholeRecurrentLayers(), keeping_whole():
        program = trace_plain(module, example, signature)
    return Traced(program, placeholder_order(program, signature))


def trace_plain(native: Any, example: Arrays, signature: Signature) -> ExportedProgram:
    """A model as a program of torch's operators only, in inference mode, that returns what the model returns.

    Raises:
        UnsupportedModelError: torch cannot trace the model; the message names the line of its code.
    """
    module = _convertible(native, example, signature)
    device = device_of(native)
    with evaluating(module), torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():

        def attempt(larger: bool = False) -> ExportedProgram:
            call = _call(native, example, signature, larger=larger)
            shapes = _dynamic_shapes(module, call, signature)
            return torch.export.export(module, *call, dynamic_shapes=shapes, strict=False)

        try:
            return attempt()
        except Exception as exc:
            # An example on the edge of what is cut off or padded lets torch take its size for the only one.
            if fixes_a_size(exc):
                with suppress(Exception):
                    return attempt(larger=True)
            raise explain(exc, module, signature, attempt) from exc


def prepare(native: Any, program: ExportedProgram) -> tuple[ExportedProgram, list[Note]]:
    """The program with the operators of `operators.py` where torch's decompositions would lose something.

    Dropout stays a Dropout; recurrent layers that a saved program has stay whole; the dropout inside an attention is
    taken from the layer around it, because an evaluated model does not tell it.

    Raises:
        UnsupportedModelError: the program was exported in training mode.
    """
    module = torch.fx.GraphModule(program.graph_module, _copied(program.graph_module.graph))
    layers = {} if isinstance(native, ExportedProgram) else dict(as_module(native).named_modules())
    called = {_owner(node) for node in module.graph.nodes}
    unused = {name: layer for name, layer in layers.items() if name not in called}
    restore_rates(module.graph, layers, _owner)
    notes: list[Note] = []
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            notes.extend(_keep_whole(node, layers, unused))
    notes += _training_only(unused)
    module.recompile()
    return program._update(module, program.graph_signature), notes


def _sizes(example: Arrays, signature: Signature) -> dict[str, int]:
    """A size of at least 2 for every symbolic dimension, no two alike: torch would take 1 or equal sizes for a rule."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                sizes.setdefault(dim, max(2, example[spec.name].shape[axis]))
    first = next(iter(sizes), None)
    while first is not None and sizes[first] in [size for dim, size in sizes.items() if dim != first]:
        sizes[first] += 1
    return sizes


def _dynamic_shapes(module: nn.Module, call: Call, signature: Signature) -> Any:
    specs = {spec.name: spec for spec in signature.inputs}
    names = leaves((signature.args, dict(signature.kwargs)))
    shapes = ShapesCollection()
    for name, tensor in zip(names, leaves((call.args, call.kwargs)), strict=True):
        dims = {axis: Dim.DYNAMIC for axis, dim in enumerate(specs[name].shape or ()) if isinstance(dim, str)}
        if dims:
            shapes[tensor] = dims
    return shapes.dynamic_shapes(module, call.args, call.kwargs)


def _call(native: Any, example: Arrays, signature: Signature, *, larger: bool = False) -> Call:
    """The example as tensors of their own, with rows enough for every symbolic dimension, or over twice as many."""
    stand_ins = {spec.name: _stand_in(example[spec.name], spec) for spec in signature.inputs}
    sizes = _sizes(stand_ins, signature)
    sizes = {dim: 2 * size + 1 for dim, size in sizes.items()} if larger else sizes
    arrays = {spec.name: resized(stand_ins[spec.name], spec.shape or (), sizes) for spec in signature.inputs}
    call = tensors_of(arrays, signature, device_of(native))
    return Call(map_tree(torch.clone, call.args), map_tree(torch.clone, call.kwargs))


def _stand_in(value: Any, spec: TensorSpec) -> np.ndarray:
    """An example as a tensor can be: strings only have their shape."""
    if not spec.is_tensor or (spec.dtype == "str" and not is_keeping()):
        raise UnsupportedModelError(
            f"torch.export takes tensors only, and the input {spec.name!r} is of the type {spec.dtype}. Keep the model "
            "in the form that it came from, or let what is made of that input be the input."
        )
    return np.zeros(np.shape(value), np.uint8) if spec.dtype == "str" else value


def _convertible(native: Any, example: Arrays, signature: Signature) -> nn.Module:
    """The module to trace; of TorchScript, the module that torch's own converter makes of it."""
    module = as_module(native)
    if not isinstance(module, torch.jit.ScriptModule):
        return module
    from torch._export.converter import TS2EPConverter

    call = _call(native, example, signature)
    if call.kwargs:
        raise UnsupportedModelError(
            f"torch converts a TorchScript module by its inputs' positions, and {', '.join(call.kwargs)} come by name: "
            "pass an example of every input before them too, or export the nn.Module it was scripted from."
        )
    try:
        with evaluating(module), torch.no_grad():
            return TS2EPConverter(module, call.args).convert().module(check_guards=False)
    except Exception as exc:
        raise UnsupportedModelError(
            f"torch cannot convert this TorchScript module: {type(exc).__name__}: {exc}. "
            "Export the nn.Module it was scripted from instead."
        ) from exc


@contextmanager
def _plain_outputs(module: nn.Module) -> Iterator[None]:
    """Let the module return a flat tuple of its output tensors, whatever it returns otherwise."""
    handle = module.register_forward_hook(lambda module, args, output: tuple(leaves(plain_tree(output))))
    try:
        yield
    finally:
        handle.remove()


def _copied(graph: torch.fx.Graph) -> torch.fx.Graph:
    copied, nodes = torch.fx.Graph(), dict[torch.fx.Node, torch.fx.Node]()
    copied.output(copied.graph_copy(graph, nodes))
    for node, twin in nodes.items():
        # A copy renames what Python has a name for; the program's signature knows an input called `input` as such.
        twin.name = node.name
    # The verifier reads the output's metadata too, which graph_copy leaves behind.
    copied.output_node().meta = dict(graph.output_node().meta)
    return copied


def _owner(node: torch.fx.Node) -> str:
    """The dotted path of the module whose code made a call; empty for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((str(path) for path, _ in reversed(list(stack.values()))), "")


def _keep_whole(node: torch.fx.Node, layers: Mapping[str, nn.Module], unused: Mapping[str, nn.Module]) -> list[Note]:
    """Give one call the operator that keeps it whole, and say what that operator says differently."""
    namespace, _, name = node.target._schema.name.partition("::")
    name = name.removesuffix("_")
    if namespace == "aten" and name in _DROPOUTS:
        return _keep_dropout(node, name)
    if namespace == "aten":
        keep_pooling(node)
        keep_groups(node)
        keep_bags(node)
        if note := keep_unchecked(node):
            return [note]
    if node.target is torch.ops.aten.view.default:
        # Whether the elements lie side by side says nothing in a graph, and an operator of ours may lay them otherwise.
        node.target = torch.ops.aten.reshape.default
    if namespace == "aten" and name in RECURRENT and node.target._overloadname == "input":
        hx = node.args[1]
        node.target = recurrent_operator(name)
        node.args = (node.args[0], [hx] if isinstance(hx, torch.fx.Node) else hx, *node.args[2:])
    if name in RECURRENT and all(_is_zeros(state) for state in node.args[1]):
        node.args = (node.args[0], [], *node.args[2:])
    if namespace == "aten" and name == "scaled_dot_product_attention":
        return _keep_attention(node, layers, unused)
    return []


_DROPOUTS = {
    "dropout": "",
    "feature_dropout": "",
    "alpha_dropout": "torch keeps mean and variance when it drops, the portable graph does not",
    "feature_alpha_dropout": "torch keeps mean and variance when it drops, the portable graph does not",
}
"""The kinds of dropout, and what ONNX's Dropout does otherwise in training."""


def _keep_dropout(node: torch.fx.Node, name: str) -> list[Note]:
    x, ratio, training = node.args
    if training:
        raise UnsupportedModelError(
            f"the program drops values at random ({node.name}): it was exported in training mode. Call model.eval() "
            "before torch.export.export, or pass the nn.Module itself."
        )
    whole = torch.ops.modelport.feature_dropout if name.startswith("feature") else torch.ops.modelport.dropout
    node.target = whole.default
    node.args = (x, ratio)
    return [Note("changed", _owner(node) or node.name, _DROPOUTS[name])] if _DROPOUTS[name] else []


def _keep_attention(
    node: torch.fx.Node, layers: Mapping[str, nn.Module], unused: Mapping[str, nn.Module]
) -> list[Note]:
    schema = [argument.name for argument in node.target._schema.arguments]
    given = {**dict(zip(schema, node.args, strict=False)), **node.kwargs}
    owner = _owner(node)
    ratio = given.get("dropout_p") or _attention_dropout(layers.get(owner), owner, unused)
    if given.get("enable_gqa"):
        lost = f"the dropout ({ratio}) of grouped-query attention is left out"
        return [Note("dropped", owner or node.name, lost)] if ratio else []
    node.target = torch.ops.modelport.attention.default
    node.args = (
        *(given[key] for key in ("query", "key", "value")),
        given.get("attn_mask"),
        float(ratio),
        bool(given.get("is_causal", False)),
        given.get("scale"),
    )
    node.kwargs = {}
    return []


_ATTENTION_DROPOUTS = ("attn_dropout", "attn_drop", "attention_dropout", "dropout", "dropout_p")


def _attention_dropout(layer: nn.Module | None, owner: str, unused: Mapping[str, nn.Module]) -> float:
    """The ratio a layer hands to its attention in training: its own number, or that of a Dropout it never calls."""
    for name in _ATTENTION_DROPOUTS:
        found = getattr(layer, name, None)
        if isinstance(found, float):
            return found
        if isinstance(found, nn.Dropout) and f"{owner}.{name}".lstrip(".") in unused:
            return found.p
    return 0.0


_RATES = ("p", "drop_prob", "drop_rate")


def _training_only(unused: Mapping[str, nn.Module]) -> list[Note]:
    """A note for every kind of layer that drops something in training and is nothing in an evaluated model.

    A trace does not tell whether such a layer is called; torch's own Dropout leaves an operator where it is.
    """
    found: dict[str, list[str]] = {}
    for name, layer in unused.items():
        rates = (getattr(layer, rate, None) for rate in _RATES)
        bare = next(layer.children(), None) is None and next(layer.parameters(), None) is None
        acts = any(isinstance(rate, float) and 0 < rate < 1 for rate in rates)
        if bare and acts and not isinstance(layer, nn.modules.dropout._DropoutNd):
            found.setdefault(type(layer).__name__, []).append(name)
    text = "acts in training only, and an evaluated model has no trace of it: what arrives trains without it"
    return [
        Note("dropped", names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more", f"{kind} {text}")
        for kind, names in found.items()
    ]


def _is_zeros(node: Any) -> bool:
    return node.op == "call_function" and node.target in (
        torch.ops.aten.zeros.default,
        torch.ops.aten.zeros_like.default,
    )
