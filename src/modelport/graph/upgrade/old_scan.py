"""The Scan of opset 8, which runs over every example of a batch on its own, as the Scan of today."""

from __future__ import annotations

import onnx_ir as ir

from modelport.core.errors import UnsupportedOpError
from modelport.graph.splice import replace_outputs


def nest_batched_scans(model: ir.Model) -> None:
    """Replace every Scan of opset 8 by one over the batch whose body is one over the sequence, in place.

    Raises:
        UnsupportedOpError: it is given the lengths of its sequences.
    """
    for node in [node for node in model.graph.all_nodes() if node.op_type == "Scan" and not node.domain]:
        if node.inputs[0] is not None:
            raise UnsupportedOpError(
                f"Scan (node {node.name!r}) of opset 8 is given the lengths of its sequences, which the Scan of newer "
                "opsets does not take. Export the model with opset 9 or newer.",
                op_type=node.op_type,
                node=node.name or "",
            )
        _nest(node)


def _nest(node: ir.Node) -> None:
    scanned = node.attributes["num_scan_inputs"].as_int()
    directions = node.attributes["directions"].as_ints() if "directions" in node.attributes else (0,) * scanned
    outer = [value for value in node.inputs[1:] if value is not None]
    inner = [ir.Value(name=f"{node.name}/{value.name}/example", type=value.type) for value in outer]
    # The body goes into another node; a graph has one at a time.
    body = node.attributes.pop("body")
    scan = ir.node(
        "Scan",
        inner,
        {"body": body.as_graph(), "num_scan_inputs": scanned, "scan_input_directions": list(directions)},
        num_outputs=len(node.outputs),
        name=f"{node.name}/sequence",
    )
    for result, value in zip(scan.outputs, node.outputs, strict=True):
        result.name = f"{value.name}/example"
    graph = ir.Graph(inner, scan.outputs, nodes=[scan], name=f"{node.name}/batch")
    replace_outputs(node.outputs, "Scan", outer, {"body": graph, "num_scan_inputs": len(outer)})
    assert node.graph is not None
    node.graph.remove(node, safe=True)
