"""What must not come before what."""

from __future__ import annotations

import onnx_ir as ir

from modelport.core.errors import StepError

_ROUNDING = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


def refuse_quantized(graph: ir.Model, step: str, advice: str) -> None:
    """Refuse a graph that rounds for a step that changes floats.

    Args:
        graph: what the step would work on.
        step: its name.
        advice: what to do instead.

    Raises:
        StepError: a node of the graph rounds.
    """
    for node in graph.graph.all_nodes():
        if not node.domain and node.op_type in _ROUNDING:
            raise StepError(f"{step} changes floats, and the node {node.name!r} ({node.op_type}) rounds them. {advice}")
