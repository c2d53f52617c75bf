"""Control flow that is known before anything runs: branches that are chosen, loops whose rounds are counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from modelport.graph.inline import replace_node, splice_graph
from modelport.graph.names import make_names_unique
from modelport.graph.splice import insert, ints

MAX_UNROLLED = 512
"""A loop becomes no more nodes than this; a longer one stays a loop."""


def settle_control_flow(model: ir.Model) -> bool:
    """Replace every If with a constant condition by its branch, and short loops by their rounds, in place.

    A Loop is unrolled where its trip count is a constant and its condition always holds, a Scan where the axis that
    it runs over is static; both only up to `MAX_UNROLLED` nodes. What needs the run to be decided stays.

    Args:
        model: a graph whose constants are folded and whose values have their shapes.

    Returns:
        Whether anything changed; shapes have to be inferred again then.
    """
    changed = False
    # What is inside goes first, so that the size of a body is known when its loop is looked at.
    for node in reversed(list(model.graph.all_nodes())):
        rewrite = None if node.domain or node.graph is None else _REWRITES.get(node.op_type)
        changed |= rewrite is not None and rewrite(node, model)
    if changed:
        make_names_unique(model)
    return changed


def _if(node: ir.Node, model: ir.Model) -> bool:
    condition = _constant(node.inputs[0])
    if condition is None:
        return False
    branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
    replace_node(node, splice_graph(node, branch, (), _label(node)))
    return True


def _loop(node: ir.Node, model: ir.Model) -> bool:
    body = node.attributes["body"].as_graph()
    count = _constant(node.inputs[0])
    if count is None or not _is_true(node.inputs[1]) or not _goes_on(body) or not _fits(body, count.item()):
        return False
    carried = [value for value in node.inputs[2:] if value is not None]
    stacks: list[list[ir.Value]] = [[] for _ in body.outputs[1 + len(carried) :]]
    if len(carried) < len(node.inputs) - 2 or (stacks and not count.item()):
        return False
    condition = node.inputs[1] if node.inputs[1] is not None else _true(model, node)
    for index in range(count.item()):
        label = f"{_label(node)}/{index}"
        number = ints(model, f"{label}/number", index)
        _, *results = splice_graph(node, body, (number, condition, *carried), label)
        carried = results[: len(carried)]
        for stack, value in zip(stacks, results[len(carried) :], strict=True):
            stack.append(value)
    replace_node(node, [*carried, *(_stacked(node, stack, 0, model) for stack in stacks)])
    return True


def _scan(node: ir.Node, model: ir.Model) -> bool:
    body = node.attributes["body"].as_graph()
    taken = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - taken
    scanned = [value for value in node.inputs[states:] if value is not None]
    axes = _ints(node, "scan_input_axes", taken)
    lengths = {_size(value, axis) for value, axis in zip(scanned, axes, strict=True)}
    length = lengths.pop() if len(lengths) == 1 else None
    if not length or not _fits(body, length):
        return False
    back = _ints(node, "scan_input_directions", taken)
    carried = [value for value in node.inputs[:states] if value is not None]
    stacks: list[list[ir.Value]] = [[] for _ in body.outputs[states:]]
    for index in range(length):
        label = f"{_label(node)}/{index}"
        places = [length - 1 - index if reverse else index for reverse in back]
        parts = [_part(node, *part, model) for part in zip(scanned, axes, places, strict=True)]
        results = splice_graph(node, body, (*carried, *parts), label)
        carried = results[:states]
        for stack, value in zip(stacks, results[states:], strict=True):
            stack.append(value)
    directions = _ints(node, "scan_output_directions", len(stacks))
    ordered = [stack[::-1] if reverse else stack for stack, reverse in zip(stacks, directions, strict=True)]
    out_axes = _ints(node, "scan_output_axes", len(stacks))
    stacked = [_stacked(node, stack, axis, model) for stack, axis in zip(ordered, out_axes, strict=True)]
    replace_node(node, [*carried, *stacked])
    return True


_REWRITES = {"If": _if, "Loop": _loop, "Scan": _scan}


def _label(node: ir.Node) -> str:
    return node.name or node.op_type


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The one element of a constant, which a weight is not asked to be."""
    tensor = None if value is None else value.const_value
    return tensor.numpy() if tensor is not None and tensor.size == 1 else None


def _is_true(value: ir.Value | None) -> bool:
    """Whether a condition holds; one that is not given does."""
    array = _constant(value)
    return value is None or (array is not None and bool(array.item()))


def _goes_on(body: ir.Graph) -> bool:
    """Whether a loop's body hands its condition on, or gives a constant true."""
    value: ir.Value | None = body.outputs[0]
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
    return value is body.inputs[1] or (value is not None and _is_true(value))


_NESTED = 64
"""What a loop inside a body counts for: in a copy of the body its rounds may become known."""


def _fits(body: ir.Graph, rounds: int) -> bool:
    size = sum(_NESTED if node.op_type in ("Loop", "Scan") else 1 for node in body.all_nodes())
    return rounds * max(1, size) <= MAX_UNROLLED


def _ints(node: ir.Node, name: str, count: int) -> Sequence[int]:
    """An attribute of one number per scanned value; zeros where it is not given."""
    return node.attributes[name].as_ints() if name in node.attributes else (0,) * count


def _size(value: ir.Value, axis: int) -> int | None:
    size = None if value.shape is None else value.shape[axis]
    return size if isinstance(size, int) else None


def _part(node: ir.Node, value: ir.Value, axis: int, place: int, model: ir.Model) -> ir.Value:
    """What one round of a Scan takes of a value."""
    return insert(node, "Gather", [value, ints(model, f"{_label(node)}/place", place)], {"axis": axis})


def _stacked(node: ir.Node, values: Sequence[ir.Value], axis: int, model: ir.Model) -> ir.Value:
    """The results of all rounds along a new axis."""
    axes = ints(model, f"{_label(node)}/axis", [axis])
    parts = [insert(node, "Unsqueeze", [value, axes]) for value in values]
    return insert(node, "Concat", parts, {"axis": axis})


def _true(model: ir.Model, node: ir.Node) -> ir.Value:
    name = f"{_label(node)}/true"
    while name in model.graph.initializers:
        name += "_"
    tensor = ir.tensor(np.array(True), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([]), const_value=tensor)
    model.graph.register_initializer(value)
    return value
