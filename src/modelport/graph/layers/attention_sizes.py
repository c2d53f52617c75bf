"""Sizes of attention scores, read off the factors of the product: nothing but the attention reads the scores then."""

from __future__ import annotations

import onnx_ir as ir

from modelport.graph.splice import insert, is_same_size, merge_into, scalar


def read_sizes_off_factors(model: ir.Model) -> None:
    """Let every `Shape` of a scaled product of matrices read what is multiplied, in place.

    Args:
        model: with shapes inferred.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Shape" or node.domain or node.graph is None or node.outputs[0].is_graph_output():
            continue
        factors = _factors(node.inputs[0])
        if factors is not None:
            _read(node, *factors)


def _factors(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """What a value is the product of, up to a number; `None` unless the sizes of the product are those of the two."""
    node = None if value is None else value.producer()
    while node is not None and not node.domain and node.op_type in ("Mul", "Div"):
        scaled = [each for each in node.inputs if each is not None and scalar(each) is None]
        if len(scaled) != 1:
            return None
        node = scaled[0].producer()
    if node is None or node.op_type != "MatMul" or node.domain:
        return None
    a, b = node.inputs
    if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != len(b.shape) or len(a.shape) < 3:
        return None
    same = all(map(is_same_size, a.shape[:-2], b.shape[:-2]))
    return (a, b) if same else None


def _read(shape: ir.Node, a: ir.Value, b: ir.Value) -> None:
    rank = len(a.shape or ())
    start, stop, _ = slice(shape.attributes.get_int("start", 0), shape.attributes.get_int("end", rank)).indices(rank)
    parts = []
    for source, first, end in ((a, start, min(stop, rank - 1)), (b, max(start, rank - 1), stop)):
        if first < end:
            part = insert(shape, "Shape", [source], {"start": first, "end": end})
            part.name, part.type = f"{shape.name}/{first}", shape.outputs[0].type
            part.shape = ir.Shape([end - first])
            parts.append(part)
    if not parts:
        return
    sizes = parts[0]
    if len(parts) > 1:
        sizes = insert(shape, "Concat", parts, {"axis": 0})
        sizes.name, sizes.type, sizes.shape = f"{shape.name}/sizes", shape.outputs[0].type, shape.outputs[0].shape
    merge_into(shape.outputs[0], sizes)
    assert shape.graph is not None
    shape.graph.remove(shape, safe=True)
