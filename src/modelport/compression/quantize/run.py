"""`Quantize` as it is done: the kind of quantization that its settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import onnx_ir as ir

from modelport.compression.outcome import Outcome
from modelport.compression.quantize.dynamic import quantize_dynamic
from modelport.compression.quantize.floats import store_weights, to_float16
from modelport.compression.quantize.inference import drop_detours, drop_dropout, drop_unread, inference_form
from modelport.compression.quantize.recurrent import store_recurrent
from modelport.compression.quantize.regions import Region, find_region, holds_weight
from modelport.compression.quantize.static import quantize_static
from modelport.compression.quantize.weight_only import quantize_weights
from modelport.core.errors import StepError
from modelport.core.rows import observed
from modelport.core.signature import Arrays, Signature
from modelport.core.steps import Quantize
from modelport.graph.named import Named
from modelport.graph.quantized import quantized_weights
from modelport.graph.weights import aliases, roles, set_aliases, set_roles


def quantize(graph: ir.Model, step: Quantize, signature: Signature, *, ranges: Path | None = None) -> Outcome:
    """The graph in fewer bits.

    Args:
        graph: in normal form; it is left as it was.
        step: what to do.
        signature: of the graph, which the calibration data fit.
        ranges: a file that ranges of activations are kept in from one call to the next, on the same graph and data.

    Raises:
        DataError: the calibration data do not fit, are empty, or hold NaN.
        StepError: nothing in the graph can be quantized, or `exclude` names nothing in it.
    """
    data = None if step.calibration is None else observed(signature, step.calibration)
    excluded = Named(step.exclude, graph, f"{type(step).__name__}: exclude")
    if step.by_blocks or step.precision in ("float16", "bfloat16", "float8"):
        return _weights_only(graph, step, excluded, signature, data)
    model = inference_form(graph)
    region = find_region(model, excluded, whole=data is not None)
    if not region.nodes:
        told = "".join(f"\n  {name}: {reason}" for name, reason in region.alone.items()) or " it has no such layer."
        raise StepError(f"{step} finds no layer that it can quantize:{told}")
    made = (
        quantize_dynamic(model, step, region)
        if data is None
        else quantize_static(model, step, region, signature, data, ranges)
    )
    untouched = _untouched(model, made, region)
    layers = [name for name in _weighed(model) if name in region.nodes and name not in untouched]
    stored = store_recurrent(made, excluded)
    return _converted(model, made, {**region.alone, **untouched, **stored}, layers)


def _weights_only(
    graph: ir.Model, step: Quantize, excluded: Named, signature: Signature, data: Arrays | None
) -> Outcome:
    """The graph with weights in other numbers, and with activations in float16 where that is asked for."""
    model = graph.clone()
    drop_dropout(model)
    drop_detours(model)
    if step.by_blocks:
        return _stored(model, partial(quantize_weights, model, step, excluded, signature, data))
    if step.precision == "float16":
        made, alone = to_float16(model, step, excluded)
        return _converted(model, made, alone, [name for name in _weighed(model) if name not in alone])
    return _stored(model, partial(store_weights, model, step, excluded))


def _converted(before: ir.Model, after: ir.Model, alone: dict[str, str], layers: Sequence[str]) -> Outcome:
    """What a tool of ONNX Runtime has made of a graph; weights that still are there have their roles."""
    kept = {name: role for name, role in roles(before).items() if name in after.graph.initializers}
    set_roles(after, kept | quantized_weights(after))
    return Outcome(after, alone, layers=tuple(layers))


def _weighed(model: ir.Model) -> list[str]:
    """The names of the nodes that read weights."""
    return [str(node.name) for node in model.graph.all_nodes() if any(holds_weight(value) for value in node.inputs)]


def _stored(model: ir.Model, store: Callable[[], dict[str, str]]) -> Outcome:
    """What storing weights otherwise, in place, makes of a graph."""
    kept = roles(model)
    before = {
        name: [str(user.name) for user, _ in value.uses()]
        for name, value in model.graph.initializers.items()
        if holds_weight(value)
    }
    alone = store()
    drop_unread(model)
    weights = model.graph.initializers
    set_roles(model, {name: role for name, role in kept.items() if name in weights} | quantized_weights(model))
    set_aliases(model, {alias: name for alias, name in aliases(model).items() if name in weights})
    changed = [users for name, users in before.items() if users and not holds_weight(weights.get(name))]
    return Outcome(model, alone, layers=tuple(users[0] for users in changed))


def _untouched(before: ir.Model, after: ir.Model, region: Region) -> dict[str, str]:
    """The layers of a region whose weights are still in float."""
    left = {name for name, value in after.graph.initializers.items() if value.dtype == ir.DataType.FLOAT}
    found = {}
    for node in before.graph:
        weights = {str(value.name) for value in node.inputs if holds_weight(value)}
        if node.name in region.nodes and weights & left:
            found[str(node.name)] = f"ONNX Runtime's quantizer leaves this {node.op_type} as it is"
    return found
