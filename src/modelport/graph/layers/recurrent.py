"""ONNX's LSTM, GRU and RNN as layers with torch's parameters: the inverse of `emit_recurrent`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.provenance import ZERO, Provenance, is_zero, trace
from modelport.graph.layers.recurrent_emit import GATES
from modelport.graph.layers.stacked import merge_batch_first, merge_stacks, take_last_states
from modelport.graph.names import dotted, unique_name
from modelport.graph.normal import drop_dead_nodes
from modelport.graph.splice import BUILD_DOMAIN, insert, ints, merge_into, replace_outputs
from modelport.graph.weights import Role, roles, set_roles

_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}

_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class _Cell:
    """What an ONNX recurrent node says."""

    node: ir.Node
    kind: str
    hidden_size: int
    directions: int
    attributes: dict[str, Any]


def recognize_recurrent(model: ir.Model) -> int:
    """Replace ONNX's recurrent operators by layers in torch's layout, in place; how many were.

    The parameters are found by following which element of which weight lands where. Where the weights are no torch
    parameters, new ones are made of their numbers and take their roles. Layers that stack become one, and transposes
    around a layer become its `batch_first`. An operator with peepholes, a clip, sequence lengths, other activations,
    or weights that are computed stays.
    """
    weights = roles(model)
    nodes = [node for node in model.graph.all_nodes() if node.op_type in GATES and not node.domain]
    found = sum(_recognize(cell, model, weights) for cell in map(_cell, nodes) if cell is not None)
    if found:
        set_roles(model, {name: role for name, role in weights.items() if name in model.graph.initializers})
        # What was replaced would still count as a use of what it reads.
        drop_dead_nodes(model)
        merge_stacks(model)
        drop_dead_nodes(model)
        merge_batch_first(model)
        take_last_states(model)
        for graph in model.graphs():
            graph.sort()
    return found


def _cell(node: ir.Node) -> _Cell | None:
    """The node where it is a plain recurrent layer."""
    given = {index for index, value in enumerate(node.inputs) if value is not None}
    attributes = node.attributes
    direction = attributes.get_string("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    odd = any(name in attributes for name in ("clip", "activation_alpha", "activation_beta"))
    if odd or {4, 7} & given or attributes.get_int("layout", 0) or attributes.get_int("input_forget", 0):
        return None
    options: dict[str, Any] = {"bidirectional": directions - 1, "reverse": int(direction == "reverse")}
    activations = [name.lower() for name in attributes.get_strings("activations", ())]
    nonlinearity = activations[0] if node.op_type == "RNN" and activations else "tanh"
    standard = ("relu",) if nonlinearity == "relu" else _ACTIVATIONS[node.op_type]
    if activations and tuple(activations) != standard * directions:
        return None
    recurrence = node.inputs[2]
    if recurrence is None or recurrence.shape is None or not isinstance(recurrence.shape[-1], int):
        return None
    if node.op_type == "RNN":
        options["nonlinearity"] = nonlinearity
    if node.op_type == "GRU":
        options["linear_before_reset"] = attributes.get_int("linear_before_reset", 0)
    return _Cell(node, node.op_type, recurrence.shape[-1], directions, options)


def _recognize(cell: _Cell, model: ir.Model, weights: dict[str, Role]) -> bool:
    node = cell.node
    derived = [value for value in node.inputs[1:4] if value is not None]
    provenance = trace(derived, weights)
    if provenance is None:
        return False
    parameters = _parameters(cell, provenance) or _relaid(cell, provenance, model, weights)
    states = [_initial(node, index, weights) for index in ((5, 6) if cell.kind == "LSTM" else (5,))]
    attributes = {
        "hidden_size": cell.hidden_size,
        "num_layers": 1,
        "batch_first": 0,
        "dropout": 0.0,
        **cell.attributes,
    }
    last = [value if value.name else None for value in node.outputs[1:]]
    last += [None] * ((2 if cell.kind == "LSTM" else 1) - len(last))
    layer = replace_outputs(
        [None, *last],
        cell.kind,
        [node.inputs[0], *states, *parameters],
        attributes,
        domain=BUILD_DOMAIN,
        name=_layer_name(parameters[0]) or node.name,
        at=node,
    )
    _connect(cell, layer.outputs[0], model)
    return True


def _initial(node: ir.Node, index: int, weights: Collection[str]) -> ir.Value | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or is_zero(value, weights) else value


def _layer_name(weight: ir.Value | None) -> str | None:
    match = re.fullmatch(r"(.+)\.weight_ih_l\d+", "" if weight is None else str(weight.name))
    return None if match is None else match[1]


def _blocks(cell: _Cell, provenance: Provenance) -> list[np.ndarray | None]:
    """The ids of every torch parameter: per direction w_ih, w_hh, b_ih, b_hh."""
    order: list[int] = np.argsort(GATES[cell.kind]).tolist()
    found: list[np.ndarray | None] = []
    for direction in range(cell.directions):
        w, r = (_in_order(ids[direction], order) for ids in provenance.ids[:2])
        found += [w, r]
        if len(provenance.ids) < 3:
            found += [None, None]
            continue
        for half in np.split(provenance.ids[2][direction], 2):
            bias = _in_order(half, order)
            found.append(None if (bias == ZERO).all() else bias)
    return found


def _in_order(ids: np.ndarray, order: Sequence[int]) -> np.ndarray:
    gates = np.split(ids, len(order), axis=0)
    return np.concatenate([gates[index] for index in order])


def _parameters(cell: _Cell, provenance: Provenance) -> list[ir.Value | None] | None:
    """The weights that the operator's inputs are made of, where they are torch's parameters."""
    blocks = _blocks(cell, provenance)
    found = [None if ids is None else provenance.whole(ids) for ids in blocks]
    missing = any(value is None and ids is not None for value, ids in zip(found, blocks, strict=True))
    return None if missing else found


def _relaid(cell: _Cell, provenance: Provenance, model: ir.Model, weights: dict[str, Role]) -> list[ir.Value | None]:
    """New parameters with the same numbers, in torch's layout; they take the roles of the old weights."""
    taken = {name.rpartition(".")[0] for name in model.graph.initializers}
    prefix = unique_name(dotted(cell.node.name or cell.kind.lower()), taken)
    role = next((weights[str(source.name)] for source in provenance.sources if source.name in weights), None)
    found: list[ir.Value | None] = []
    for index, ids in enumerate(_blocks(cell, provenance)):
        direction, part = divmod(index, len(_PARTS))
        name = f"{prefix}.{_PARTS[part]}_l0{'_reverse' if direction else ''}"
        found.append(None if ids is None else _initializer(model, name, provenance.data(ids)))
        if ids is not None and role is not None:
            weights[name] = role
    for source in provenance.sources:
        if all(use.node is cell.node or not _reaches_others(use.node, cell.node) for use in source.uses()):
            weights.pop(str(source.name), None)
    return found


def _reaches_others(node: ir.Node, end: ir.Node) -> bool:
    """Whether something but one node uses what another makes."""
    if any(value.is_graph_output() for value in node.outputs):
        return True
    return any(use.node is not end and _reaches_others(use.node, end) for value in node.outputs for use in value.uses())


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _connect(cell: _Cell, output: ir.Value, model: ir.Model) -> None:
    """Give the layer's output, (seq, batch, directions * hidden), to what reads Y, (seq, directions, batch, hidden)."""
    y = cell.node.outputs[0]
    width = cell.directions * cell.hidden_size
    output.type = y.type
    if y.shape is not None:
        output.shape = ir.Shape([y.shape[0], y.shape[2], width])
    for use in list(y.uses()):
        joined = _joined(use.node, cell, output)
        if joined is not None:
            merge_into(joined, output)
    if not y.is_graph_output() and all(_is_dead(use.node) for use in y.uses()):
        return
    shape = ints(model, f"{cell.node.name}/split", [0, 0, cell.directions, cell.hidden_size])
    split = insert(cell.node, "Reshape", [output, shape])
    replace_outputs([y], "Transpose", [split], {"perm": [0, 2, 1, 3]})


def _is_dead(node: ir.Node) -> bool:
    return not any(
        value.is_graph_output() or any(not _is_dead(use.node) for use in value.uses()) for value in node.outputs
    )


def _joined(node: ir.Node, cell: _Cell, output: ir.Value) -> ir.Value | None:
    """The value that has the directions of Y side by side, where a node that reads Y leads to one."""
    if node.op_type == "Squeeze" and cell.directions == 1:
        axes = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
        return node.outputs[0] if axes is not None and axes.numpy().tolist() in ([1], [-3]) else None
    if node.op_type != "Transpose" or tuple(node.attributes.get_ints("perm", ())) != (0, 2, 1, 3):
        return None
    uses = list(node.outputs[0].uses())
    reshaped = uses[0].node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None
    if reshaped is None or reshaped.op_type != "Reshape" or reshaped.outputs[0].shape is None:
        return None
    return reshaped.outputs[0] if reshaped.outputs[0].shape == output.shape else None
