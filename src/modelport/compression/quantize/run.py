"""`Quantize` as it is done: the kind of quantization that its settings ask for."""

from __future__ import annotations

import onnx_ir as ir

from modelport.compression.outcome import Outcome
from modelport.compression.quantize.dynamic import quantize_dynamic
from modelport.compression.quantize.inference import inference_form
from modelport.compression.quantize.regions import Region, find_region, holds_weight
from modelport.compression.quantize.static import quantize_static
from modelport.core.errors import StepError
from modelport.core.rows import observed
from modelport.core.signature import Signature
from modelport.core.steps import Quantize
from modelport.graph.named import Named
from modelport.graph.weights import roles, set_roles


def quantize(graph: ir.Model, step: Quantize, signature: Signature) -> Outcome:
    """The graph in fewer bits.

    Args:
        graph: in normal form; it is left as it was.
        step: what to do.
        signature: of the graph, which the calibration data fit.

    Raises:
        DataError: the calibration data do not fit, are empty, or hold NaN.
        StepError: nothing in the graph can be quantized, or `exclude` names nothing in it.
    """
    data = None if step.calibration is None else observed(signature, step.calibration)
    excluded = Named(step.exclude, graph, f"{type(step).__name__}: exclude")
    model = inference_form(graph)
    region = find_region(model, excluded, whole=data is not None)
    if not region.nodes:
        told = "".join(f"\n  {name}: {reason}" for name, reason in region.alone.items()) or " it has no such layer."
        raise StepError(f"{step} finds no layer that it can quantize:{told}")
    kept = roles(model)
    made = (
        quantize_dynamic(model, step, region) if data is None else quantize_static(model, step, region, signature, data)
    )
    set_roles(made, {name: role for name, role in kept.items() if name in made.graph.initializers})
    return Outcome(made, {**region.alone, **_untouched(model, made, region)})


def _untouched(before: ir.Model, after: ir.Model, region: Region) -> dict[str, str]:
    """The layers of a region whose weights are still in float."""
    left = {name for name, value in after.graph.initializers.items() if value.dtype == ir.DataType.FLOAT}
    found = {}
    for node in before.graph:
        weights = {str(value.name) for value in node.inputs if holds_weight(value)}
        if node.name in region.nodes and weights & left:
            found[str(node.name)] = f"ONNX Runtime's quantizer leaves this {node.op_type} as it is"
    return found
