"""ONNX Runtime's own operators (`com.microsoft`), which its optimised files hold, written with the standard's.

See docs/opsets.md for what is written out; all others are left, and a backend refuses them by name.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from modelport.core.errors import UnsupportedOpError
from modelport.graph.shapes.infer import infer
from modelport.graph.shapes.info import ShapeInfo
from modelport.graph.upgrade.contrib_attention import ATTENTION
from modelport.graph.upgrade.contrib_fused import FUSED
from modelport.graph.upgrade.contrib_quantized import QUANTIZED
from modelport.graph.upgrade.rewriting import Rewrite, apply

DOMAIN = "com.microsoft"

REWRITERS = {**FUSED, **ATTENTION, **QUANTIZED}
"""By operator."""


def write_standard(model: ir.Model, keep: Collection[str] = ()) -> None:
    """Write the operators of ONNX Runtime with those of the standard, in place.

    Args:
        model: local functions inlined.
        keep: operators that stay as they are.

    Raises:
        UnsupportedOpError: a node uses what the standard has no way to say.
    """
    written = REWRITERS.keys() - keep
    nodes = [node for node in model.graph.all_nodes() if node.domain == DOMAIN and node.op_type in written]
    while nodes:
        info = infer(model)
        left = [(node, error) for node in nodes if (error := _write(model, node, info)) is not None]
        if len(left) == len(nodes):
            raise left[0][1]
        # A rank that comes out of an operator of ONNX Runtime is known once that one is written out.
        nodes = [node for node, _ in left]


def _write(model: ir.Model, node: ir.Node, info: ShapeInfo) -> UnsupportedOpError | None:
    """Write one node, or leave the graph as it was and say why."""
    site = Rewrite(model, node, 1, info)
    try:
        apply(REWRITERS[node.op_type], site, info)
    except UnsupportedOpError as error:
        for made in reversed(site.made):
            assert made.graph is not None
            made.graph.remove(made, safe=True)
        return error
    return None
