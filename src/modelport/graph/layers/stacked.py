"""Recurrent layers that belong together: stacks of them, and transposes around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelport.graph.layers.recurrent_emit import GATES
from modelport.graph.splice import BUILD_DOMAIN, insert, ints, merge_into, only_use, replace_outputs, scalar, take_place

_SWAP = (1, 0, 2)
"""Batch and sequence change places."""


class _Link(NamedTuple):
    """A layer that only feeds the next one of its stack, and the Dropout between."""

    above: ir.Node
    dropout: float


def merge_stacks(model: ir.Model) -> None:
    """Make one layer of layers whose parameters are `p.weight_ih_l0`, `p.weight_ih_l1`, … and that feed each other."""
    layers = [node for node in model.graph.all_nodes() if node.domain == BUILD_DOMAIN and node.op_type in GATES]
    links = {node: link for node in layers for link in [_link(node)] if link is not None}
    above = {link.above for link in links.values()}
    for top in layers:
        if top in links and top not in above:
            chain, ratios, node = [top], set(), top
            while node in links:
                ratios.add(links[node].dropout)
                node = links[node].above
                chain.insert(0, node)
            if _depth(chain[0]) == 0 and len(ratios) == 1:
                _merge(chain, ratios.pop(), model)


def merge_batch_first(model: ir.Model) -> None:
    """Make the transposes around a layer its `batch_first`."""
    for node in list(model.graph.all_nodes()):
        if node.domain == BUILD_DOMAIN and node.op_type in GATES:
            _batch_first(node)


def take_last_states(model: ir.Model) -> None:
    """Read the last step of a layer that runs forwards from its last state: it then need not give all its steps."""
    for node in list(model.graph.all_nodes()):
        if node.domain != BUILD_DOMAIN or node.op_type not in GATES:
            continue
        if node.attributes.get_int("bidirectional", 0) or node.attributes.get_int("reverse", 0):
            continue
        axis = 1 if node.attributes.get_int("batch_first", 0) else 0
        for reader in [use.node for use in node.outputs[0].uses() if use.idx == 0]:
            if reader.graph is node.graph and _takes_last(reader, axis):
                reader.replace_input_with(0, node.outputs[1])
                reader.attributes["axis"] = ir.AttrInt64("axis", 0)
                level = node.attributes.get_int("num_layers", 1) - 1
                reader.replace_input_with(1, ints(model, f"{reader.name}/level", level))


def _takes_last(reader: ir.Node, axis: int) -> bool:
    """Whether a node takes the last index of an axis of three."""
    if reader.op_type != "Gather" or reader.domain or reader.attributes.get_int("axis", 0) not in (axis, axis - 3):
        return False
    data, index = reader.inputs
    tensor = None if index is None else index.const_value
    if data is None or tensor is None or len(tensor.shape):
        return False
    number, steps = int(tensor.numpy().item()), None if data.shape is None else data.shape[axis]
    return number == -1 or (isinstance(steps, int) and number == steps - 1)


def _states(node: ir.Node) -> int:
    return 2 if node.op_type == "LSTM" else 1


def _depth(node: ir.Node) -> int | None:
    match = re.fullmatch(r".*weight_ih_l(\d+)", str(_first_weight(node).name))
    return None if match is None else int(match[1])


def _first_weight(node: ir.Node) -> ir.Value:
    weight = node.inputs[1 + _states(node)]
    if weight is None:
        raise ValueError(f"{node.name} has no weights")
    return weight


def _stem(node: ir.Node) -> str:
    return str(_first_weight(node).name).rpartition("_l")[0]


def _link(node: ir.Node) -> _Link | None:
    """The layer right below a layer in its stack."""
    value, swapped, dropout = node.inputs[0], False, 0.0
    while value is not None and only_use(value) is not None:
        below = value.producer()
        if below is None:
            return None
        if below.domain == BUILD_DOMAIN and below.op_type in GATES:
            fits = value is below.outputs[0] and not swapped and _continues(below, node)
            return _Link(below, dropout) if fits else None
        if below.op_type == "Transpose" and tuple(below.attributes.get_ints("perm", ())) == _SWAP:
            swapped = not swapped
        elif below.op_type == "Dropout" and not below.domain and not dropout:
            ratio = below.inputs[1] if len(below.inputs) > 1 else None
            dropout = 0.5 if ratio is None else scalar(ratio) or 0.0
        else:
            return None
        value = below.inputs[0]
    return None


def _continues(below: ir.Node, node: ir.Node) -> bool:
    depths = _depth(below), _depth(node)
    if depths[0] is None or depths[0] + 1 != depths[1] or _stem(below) != _stem(node):
        return False
    return below.op_type == node.op_type and below.graph is node.graph and below.attributes == node.attributes


def _merge(chain: Sequence[ir.Node], dropout: float, model: ir.Model) -> None:
    first, top = chain[0], chain[-1]
    count = _states(first)
    directions = 1 + first.attributes.get_int("bidirectional", 0)
    initial = [_whole_state([node.inputs[1 + index] for node in chain], directions) for index in range(count)]
    if any(state is False for state in initial):
        return
    parameters = [value for node in chain for value in node.inputs[1 + count :]]
    attributes = {name: attribute.value for name, attribute in first.attributes.items()}
    attributes.update(num_layers=len(chain), dropout=dropout)
    merged = replace_outputs(
        [top.outputs[0], *[None] * count],
        top.op_type,
        [first.inputs[0], *initial, *parameters],
        attributes,
        domain=BUILD_DOMAIN,
        name=first.name,
        at=top,
    )
    for index in range(1, 1 + count):
        _share_state(merged, index, [node.outputs[index] for node in chain], directions, model)


def _whole_state(parts: Sequence[ir.Value | None], directions: int) -> ir.Value | bool | None:
    """The initial states of all layers, given each layer's; `False` where they are not slices of one value."""
    if all(part is None for part in parts):
        return None
    source: ir.Value | None = None
    for layer, part in enumerate(parts):
        node = None if part is None else part.producer()
        if node is None or node.op_type != "Slice" or len(node.inputs) < 4:
            return False
        bounds = [scalar(value) for value in node.inputs[1:4]]
        if bounds != [layer * directions, (layer + 1) * directions, 0] or (layer and node.inputs[0] is not source):
            return False
        source = node.inputs[0]
    whole = source is not None and source.shape is not None and source.shape[0] == len(parts) * directions
    return source if whole else False


def _share_state(merged: ir.Node, index: int, parts: Sequence[ir.Value], directions: int, model: ir.Model) -> None:
    """Give the last states of all layers to what reads each layer's."""
    state = merged.outputs[index]
    size = len(parts) * directions
    state.type = parts[0].type
    if parts[0].shape is not None:
        state.shape = ir.Shape([size, *parts[0].shape[1:]])
    for use in list(parts[0].uses()):
        joined = use.node
        if joined.op_type == "Concat" and not joined.domain and list(joined.inputs) == list(parts):
            merge_into(joined.outputs[0], state)
            joined.graph.remove(joined, safe=True)
    for layer, part in enumerate(parts):
        if part.uses() or part.is_graph_output():
            bounds = [layer * directions, (layer + 1) * directions, 0]
            places = [ints(model, f"{part.name}/place", [place]) for place in bounds]
            piece = insert(merged, "Slice", [state, *places])
            piece.type, piece.shape = part.type, part.shape
            take_place(part, piece)


def _batch_first(node: ir.Node) -> None:
    swap = None if node.inputs[0] is None else node.inputs[0].producer()
    output = node.outputs[0]
    swapped = [use.node for use in output.uses() if _is_swap(use.node)]
    if swap is None or not _is_swap(swap) or (not swapped and (output.uses() or output.is_graph_output())):
        return
    others = [use for use in output.uses() if not _is_swap(use.node)]
    if output.is_graph_output() or others:
        back = ir.node("Transpose", [output], {"perm": list(_SWAP)}, name=f"{node.name}/Transpose")
        back.outputs[0].type, back.outputs[0].shape = output.type, output.shape
        name = output.name
        output.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
        back.replace_input_with(0, output)
        for reader in swapped:
            reader.replace_input_with(0, output)
        output.name, back.outputs[0].name = None, name
        node.graph.insert_after(node, back)
    node.replace_input_with(0, swap.inputs[0])
    node.attributes["batch_first"] = ir.AttrInt64("batch_first", 1)
    if output.shape is not None:
        output.shape = ir.Shape([output.shape[1], output.shape[0], output.shape[2]])
    for reader in swapped:
        merge_into(reader.outputs[0], output)


def _is_swap(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and not node.domain and tuple(node.attributes.get_ints("perm", ())) == _SWAP
