"""Recurrent layers with torch's parameters, written as the standard ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

Kind = Literal["LSTM", "GRU", "RNN"]

GATES: dict[str, tuple[int, ...]] = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Which block of torch's gates stands at each place of ONNX's: (i, f, g, o) -> (i, o, f, c), (r, z, n) -> (z, r, h)."""


class Recurrent(NamedTuple):
    """The results of a recurrent layer, as torch returns them; `c_n` is `None` for all but the LSTM."""

    output: ir.Value
    h_n: ir.Value
    c_n: ir.Value | None


@dataclass(frozen=True)
class _Plan:
    """What every layer of a stack shares."""

    tape: ir.tape.Tape
    kind: Kind
    hidden_size: int
    directions: tuple[str, ...]
    onnx_direction: str
    attributes: Mapping[str, int | list[str]]
    name: str

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], **attributes: object) -> ir.Value:
        return self.tape.op(op_type, inputs, attributes)

    def ints(self, *values: int) -> ir.Value:
        return self.op("Constant", [], value_ints=list(values))


def emit_recurrent(
    tape: ir.tape.Tape,
    kind: Kind,
    x: ir.Value,
    parameters: Mapping[str, ir.Value],
    *,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    nonlinearity: Literal["tanh", "relu"] = "tanh",
    linear_before_reset: bool = True,
    h0: ir.Value | None = None,
    c0: ir.Value | None = None,
    name: str = "",
) -> Recurrent:
    """Write a stack of recurrent layers, with the semantics of `torch.nn.LSTM`, `GRU` or `RNN`, onto a tape.

    The parameters stay as they are, in torch's layout; operators on the tape bring them into ONNX's, which ONNX
    Runtime computes once when it loads the graph and `recognize_layers` reads back.

    Args:
        tape: takes the nodes, in order (`ir.tape.Tape(graph)` appends them to a graph).
        kind: `"LSTM"`, `"GRU"` or `"RNN"`.
        x: (seq, batch, features), or (batch, seq, features) with `batch_first`.
        parameters: by torch's leaf names: `weight_ih_l0` (gates * hidden, features), `weight_hh_l0`
            (gates * hidden, hidden), `bias_ih_l0` and `bias_hh_l0` (gates * hidden,), for every layer `_l{k}`, and
            the same with `_reverse` for the second direction of a bidirectional layer. A bias that is not there is 0.
        hidden_size: size of one direction's state.
        num_layers: how many layers are stacked.
        bidirectional: whether every layer runs both ways.
        reverse: whether the one direction runs from the last step to the first; its parameters have no `_reverse`
            in their names, and `output[t]` belongs to `x[t]` (as the second half of a bidirectional output).
        batch_first: whether x and the output have the batch on axis 0; the states never have.
        dropout: ratio of the Dropout between stacked layers.
        nonlinearity: of the RNN.
        linear_before_reset: of the GRU: `True` is torch's (and Keras' `reset_after=True`).
        h0: (num_layers * directions, batch, hidden); zeros where it is `None`.
        c0: as `h0`, LSTM only.
        name: prefix of the nodes' names, the layer's module path say.

    Returns:
        output (seq, batch, directions * hidden), batch first where x is; h_n and c_n
        (num_layers * directions, batch, hidden).
    """
    plan = _Plan(
        tape,
        kind,
        hidden_size,
        directions=("", "_reverse") if bidirectional else ("",),
        onnx_direction="bidirectional" if bidirectional else "reverse" if reverse else "forward",
        attributes=_attributes(kind, nonlinearity, linear_before_reset, 2 if bidirectional else 1),
        name=name or kind.lower(),
    )
    states: list[list[ir.Value]] = []
    y = plan.op("Transpose", [x], perm=[1, 0, 2]) if batch_first else x
    for layer in range(num_layers):
        if layer and dropout:
            ratio = plan.op("Constant", [], value=ir.tensor(np.float32(dropout)))
            y = plan.op("Dropout", [y, ratio])
        initial = [_initial(plan, state, layer, num_layers) for state in (h0, c0)]
        y, *last = _layer(plan, y, parameters, layer, initial)
        states.append(last)
    if batch_first:
        y = plan.op("Transpose", [y], perm=[1, 0, 2])
    finals = [ts[0] if num_layers == 1 else plan.op("Concat", ts, axis=0) for ts in zip(*states, strict=True)]
    return Recurrent(y, finals[0], finals[1] if kind == "LSTM" else None)


def _attributes(
    kind: Kind, nonlinearity: str, linear_before_reset: bool, directions: int
) -> Mapping[str, int | list[str]]:
    if kind == "GRU":
        return {"linear_before_reset": int(linear_before_reset)}
    if kind == "RNN" and nonlinearity == "relu":
        return {"activations": ["Relu"] * directions}
    return {}


def _initial(plan: _Plan, state: ir.Value | None, layer: int, num_layers: int) -> ir.Value | None:
    """The rows of one layer out of the initial states of all."""
    if state is None or num_layers == 1:
        return state
    first, last = layer * len(plan.directions), (layer + 1) * len(plan.directions)
    return plan.op("Slice", [state, plan.ints(first), plan.ints(last), plan.ints(0)])


def _layer(
    plan: _Plan, x: ir.Value, parameters: Mapping[str, ir.Value], layer: int, initial: Sequence[ir.Value | None]
) -> list[ir.Value]:
    """One ONNX operator and what brings its output into torch's shape: the output, then the last states."""
    suffixes = [f"l{layer}{direction}" for direction in plan.directions]
    inputs: list[ir.Value | None] = [
        x,
        _per_direction(plan, [_gates(plan, parameters[f"weight_ih_{suffix}"]) for suffix in suffixes]),
        _per_direction(plan, [_gates(plan, parameters[f"weight_hh_{suffix}"]) for suffix in suffixes]),
        _biases(plan, parameters, suffixes),
        None,
        *initial[: 2 if plan.kind == "LSTM" else 1],
    ]
    while inputs[-1] is None:
        inputs.pop()
    y, *last = plan.tape.op_multi_out(
        plan.kind,
        inputs,
        {"hidden_size": plan.hidden_size, "direction": plan.onnx_direction, **plan.attributes},
        num_outputs=3 if plan.kind == "LSTM" else 2,
        name=f"{plan.name}/{plan.kind}_l{layer}",
    )
    if len(suffixes) == 1:
        return [plan.op("Squeeze", [y, plan.ints(1)]), *last]
    beside = plan.op("Transpose", [y], perm=[0, 2, 1, 3])
    return [plan.op("Reshape", [beside, plan.ints(0, 0, 2 * plan.hidden_size)]), *last]


def _gates(plan: _Plan, parameter: ir.Value) -> ir.Value:
    """A parameter with its gates in ONNX's order."""
    order = GATES[plan.kind]
    if len(order) == 1:
        return parameter
    blocks = plan.tape.op_multi_out(
        "Split", [parameter], {"axis": 0, "num_outputs": len(order)}, num_outputs=len(order)
    )
    return plan.op("Concat", [blocks[gate] for gate in order], axis=0)


def _per_direction(plan: _Plan, values: Sequence[ir.Value]) -> ir.Value:
    """Values of the directions on a new first axis."""
    rows = [plan.op("Unsqueeze", [value, plan.ints(0)]) for value in values]
    return rows[0] if len(rows) == 1 else plan.op("Concat", rows, axis=0)


def _biases(plan: _Plan, parameters: Mapping[str, ir.Value], suffixes: Sequence[str]) -> ir.Value | None:
    names = [f"bias_{kind}_{suffix}" for suffix in suffixes for kind in ("ih", "hh")]
    if not any(name in parameters for name in names):
        return None
    dtype = next(parameters[name].dtype for name in names if name in parameters) or ir.DataType.FLOAT
    zeros = np.zeros(len(GATES[plan.kind]) * plan.hidden_size, dtype.numpy())
    parts = [
        _gates(plan, parameters[name]) if name in parameters else plan.op("Constant", [], value=ir.tensor(zeros))
        for name in names
    ]
    rows = [plan.op("Concat", parts[i : i + 2], axis=0) for i in range(0, len(parts), 2)]
    return _per_direction(plan, rows)
