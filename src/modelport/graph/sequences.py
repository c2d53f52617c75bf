"""Sequences whose every element is taken by a constant position, replaced by plain tensors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.shapes.info import ShapeInfo
from modelport.graph.splice import ints


def unpack_sequences(model: ir.Model, info: ShapeInfo) -> bool:
    """Replace SplitToSequence and SequenceConstruct that only SequenceAt at constant positions reads, in place.

    torch.onnx writes `torch.split`, `chunk` and `unbind` so. A SplitToSequence becomes a Split, or a Gather for each
    element where it drops the axis; a SequenceConstruct disappears.

    Args:
        model: the graph.
        info: the shapes of its values.

    Returns:
        Whether anything was replaced; the shapes of new values are not in `info`.
    """
    changed = False
    for node in list(model.graph.all_nodes()):
        if node.domain or node.op_type not in ("SplitToSequence", "SequenceConstruct"):
            continue
        readers = _readers(node.outputs[0], info)
        if readers is None:
            continue
        parts = _parts(node, info, model)
        if parts is None or any(not -len(parts) <= position < len(parts) for _, position in readers):
            continue
        for reader, position in readers:
            reader.outputs[0].replace_all_uses_with(parts[position], replace_graph_outputs=True)
            assert reader.graph is not None
            reader.graph.remove(reader, safe=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
        changed = True
    return changed


def _readers(sequence: ir.Value, info: ShapeInfo) -> list[tuple[ir.Node, int]] | None:
    """The nodes that take one element each, and its position; `None` where another use needs the sequence."""
    if sequence.is_graph_output():
        return None
    readers = []
    for use in sequence.uses():
        position = info.array(use.node.inputs[1]) if use.node.op_type == "SequenceAt" else None
        result = use.node.outputs[0]
        if position is None or not isinstance(position.item(), int) or result.is_graph_output():
            return None
        readers.append((use.node, position.item()))
    return readers


def _parts(node: ir.Node, info: ShapeInfo, model: ir.Model) -> list[ir.Value] | None:
    """The elements of the sequence as values, made before the node."""
    if node.op_type == "SequenceConstruct":
        return [value for value in node.inputs if value is not None]
    data = node.inputs[0]
    assert data is not None
    dims = info.dims(data)
    if dims is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(dims)
    size = dims[axis]
    if len(node.inputs) < 2 or node.inputs[1] is None:
        if not node.attributes.get_int("keepdims", 1):
            return _elements(node, data, axis, size, model) if isinstance(size, int) else None
        lengths = [1] * size if isinstance(size, int) else None
    else:
        lengths = _lengths(info.array(node.inputs[1]), size)
    return None if lengths is None else _split(node, data, axis, lengths, model)


def _lengths(split: np.ndarray | None, size: object) -> list[int] | None:
    """How long each part is: the split itself, or pieces of one length and the rest."""
    if split is None or not all(isinstance(item, int) for item in split.ravel().tolist()):
        return None
    if split.ndim:
        return [int(item) for item in split]
    if not isinstance(size, int):
        return None
    whole, rest = divmod(size, int(split))
    return [int(split)] * whole + ([rest] if rest else [])


def _split(node: ir.Node, data: ir.Value, axis: int, lengths: list[int], model: ir.Model) -> list[ir.Value]:
    stem = str(node.outputs[0].name)
    inputs = [data, ints(model, f"{stem}/split", lengths)]
    return _insert(node, ir.node("Split", inputs, {"axis": axis}, num_outputs=len(lengths), name=node.name), stem)


def _elements(node: ir.Node, data: ir.Value, axis: int, size: int, model: ir.Model) -> list[ir.Value]:
    stem = str(node.outputs[0].name)
    values = []
    for position in range(size):
        index = ints(model, f"{stem}/position_{position}", position)
        gather = ir.node("Gather", [data, index], {"axis": axis}, name=f"{node.name}/{position}")
        values += _insert(node, gather, f"{stem}/{position}")
    return values


def _insert(before: ir.Node, node: ir.Node, stem: str) -> list[ir.Value]:
    """The outputs of a node that is put in front of the one it replaces, whose metadata it keeps."""
    node.metadata_props.update(before.metadata_props)
    for position, value in enumerate(node.outputs):
        value.name = f"{stem}/{position}"
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return list(node.outputs)
