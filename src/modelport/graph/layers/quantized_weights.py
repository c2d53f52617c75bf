"""Weights in integers as layers read them: what frameworks do to lay them out their own way is undone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.quantized_parts import is_initializer, producer, sizes
from modelport.graph.splice import only_use, replace_outputs

_MOVES = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def restore_weights(model: ir.Model) -> int:
    """Let layers read their weights as these are stored, in place; how many layers there were.

    Moves that put every element back where it was are left out, and convolutions of slices side by side are one
    convolution with groups again.
    """
    found = 0
    for node in list(model.graph.all_nodes()):
        if node.domain or node.graph is None:
            continue
        if node.op_type in ("Conv", "ConvTranspose", "MatMul"):
            found += _restore(node)
        elif node.op_type == "Concat":
            found += _join_groups(node)
    return found


def _restore(layer: ir.Node) -> bool:
    moved = _moved(layer.inputs[1])
    if moved is None or moved[0] is layer.inputs[1]:
        return False
    root, places = moved
    if not _in_place(places, root):
        return False
    layer.replace_input_with(1, root)
    return True


def _moved(value: ir.Value | None) -> tuple[ir.Value, np.ndarray] | None:
    """The weight that a value is made of, behind its DequantizeLinear, and where each element comes from."""
    steps: list[tuple[ir.Node, int]] = []
    while value is not None and (node := producer(value, *_MOVES, "Split")) is not None:
        steps.append((node, value.index() or 0))
        value = node.inputs[0]
    made = producer(value, "DequantizeLinear")
    shape = None if value is None else sizes(value)
    if value is None or made is None or shape is None or not is_initializer(made.inputs[0]):
        return None
    places: np.ndarray | None = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    for node, index in reversed(steps):
        places = None if places is None else _move(node, index, places)
    return None if places is None else (value, places)


def _move(node: ir.Node, index: int, places: np.ndarray) -> np.ndarray | None:
    shape = sizes(node.outputs[index])
    if node.op_type == "Transpose":
        return places.transpose(node.attributes.get_ints("perm", tuple(reversed(range(places.ndim)))))
    if shape is None:
        return None
    if node.op_type != "Split":
        return places.reshape(shape)
    axis = node.attributes.get_int("axis", 0) % places.ndim
    before = [sizes(value) for value in node.outputs[:index]]
    if None in before:
        return None
    start = sum(each[axis] for each in before if each is not None)
    return np.take(places, range(start, start + shape[axis]), axis)


def _in_place(places: np.ndarray, root: ir.Value) -> bool:
    return places.shape == sizes(root) and np.array_equal(places.ravel(), np.arange(places.size))


def _join_groups(joined: ir.Node) -> bool:
    """One convolution where slices of the channels are convolved with slices of a weight."""
    layers = [producer(value, "Conv") for value in joined.inputs]
    first = layers[0]
    if first is None or joined.attributes.get_int("axis", 0) not in (1, 1 - len(joined.outputs[0].shape or ())):
        return False
    convs = [layer for layer in layers if layer is not None]
    slices = producer(first.inputs[0], "Split")
    if len(convs) != len(layers) or slices is None or slices.attributes.get_int("axis", 0) != 1:
        return False
    if [conv.inputs[0] for conv in convs] != list(slices.outputs) or not _are_alike(convs, joined):
        return False
    moved = [_moved(conv.inputs[1]) for conv in convs]
    roots = {each[0] for each in moved if each is not None}
    if None in moved or len(roots) != 1:
        return False
    root = roots.pop()
    if not _in_place(np.concatenate([each[1] for each in moved if each is not None]), root):
        return False
    attributes = {name: each.value for name, each in first.attributes.items()} | {"group": len(convs)}
    replace_outputs([joined.outputs[0]], "Conv", [slices.inputs[0], root], attributes, name=first.name, at=joined)
    return True


def _are_alike(convs: list[ir.Node], joined: ir.Node) -> bool:
    """Whether convolutions without a bias or groups differ in what they read only, and nothing else reads them."""
    settings = [{name: str(each.value) for name, each in conv.attributes.items()} for conv in convs]
    widths = {
        None if (shape := conv.inputs[0].shape if conv.inputs[0] else None) is None else shape[1] for conv in convs
    }
    return (
        all(each == settings[0] for each in settings)
        and convs[0].attributes.get_int("group", 1) == 1
        and all(len(conv.inputs) == 2 and only_use(conv.outputs[0]) is joined for conv in convs)
        and len(widths) == 1
        and None not in widths
    )
