"""LSTM, GRU and SimpleRNN, one way and both, as the ONNX operators with torch's parameters."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelport.backends.keras.layers import keras_class
from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import layer, row_of
from modelport.graph.recurrent import Recurrent, emit_recurrent

_KINDS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if arguments.get("mask") is not None:
        return "it is called with a mask, which the ONNX operator has not"
    if layer.stateful:
        return "it is stateful: it keeps its state from call to call"
    cell, kind = layer.cell, keras_class(layer, _KINDS)
    if kind == "SimpleRNN":
        return "" if _name(cell.activation) in ("tanh", "relu") else "its activation is neither tanh nor relu"
    if _name(cell.activation) != "tanh" or _name(cell.recurrent_activation) != "sigmoid":
        return "its activations are not tanh and sigmoid"
    return ""


_MOST_STEPS = 256
"""More steps than this are not written out one by one."""


def _unrolled(layer: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A call that the operator cannot express is written out step by step, where their number is known."""
    steps = arguments["sequences"].shape[1]
    if layer.stateful or steps is None or steps > _MOST_STEPS:
        return {}, ""
    return {"unroll": True}, f"its {steps} steps are written out one by one"


def _is_a_loop(layer: Any, arguments: dict[str, Any]) -> str:
    return "ONNX has no operator for its cell"


@layer("RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", refuses=_is_a_loop, instead=_unrolled)
def loop(g: Context, **_: Any) -> ir.Value:
    raise g.fail("a recurrent layer with a cell of its own is no operator")


@layer("LSTM", "GRU", "SimpleRNN", refuses=_refuses, instead=_unrolled)
def recurrent(g: Context, sequences: ir.Value, initial_state: Any = None, **_: Any) -> Any:
    layer = g.layer
    states = None if initial_state is None else _listed(initial_state)
    result = _emit(g, layer, sequences, [layer], states)
    finals = [g("Squeeze", state, [0]) for state in result[1:] if state is not None]
    if not layer.return_sequences:
        output = finals[0]
    elif layer.go_backwards:
        # Keras returns the steps in the order in which it took them.
        output = g("Slice", result.output, [-1], [-(1 << 62)], [1], [-1])
    else:
        output = result.output
    return [output, *finals] if layer.return_state else output


def _listed(state: Any) -> list[ir.Value]:
    return list(state) if isinstance(state, (list, tuple)) else [state]


def _emit(g: Context, layer: Any, x: ir.Value, directions: list[Any], states: list[ir.Value] | None) -> Recurrent:
    """The operator for one or two directions, the second backwards."""
    kind = _KINDS[keras_class(layer, _KINDS) or ""]
    cell = layer.cell
    parameters: dict[str, ir.Value] = {}
    for direction, suffix in zip(directions, ("", "_reverse"), strict=False):
        names = [("weight_ih",), ("weight_hh",), ("bias_ih", "bias_hh")]
        variables = [direction.cell.kernel, direction.cell.recurrent_kernel, direction.cell.bias]
        for leaf, variable in zip(names, variables, strict=True):
            if variable is not None:
                values = g.weights(variable)
                parameters.update({f"{name}_l0{suffix}": v for name, v in zip(leaf, values, strict=True)})
        if direction.cell.dropout or direction.cell.recurrent_dropout:
            g.note("dropped", "dropout inside the recurrent cell, which acts in training only, is left out")
    per = len(states or ()) // len(directions)
    rows = [[(states or [])[d * per + i] for d in range(len(directions))] for i in range(per)]
    initial = [_rows(g, row) for row in rows]
    return emit_recurrent(
        g.lowering.tape,
        kind,  # type: ignore[arg-type]
        x,
        parameters,
        hidden_size=int(cell.units),
        bidirectional=len(directions) == 2,
        reverse=len(directions) == 1 and layer.go_backwards,
        batch_first=True,
        nonlinearity="relu" if _name(cell.activation) == "relu" else "tanh",
        linear_before_reset=bool(getattr(cell, "reset_after", True)),
        h0=initial[0] if initial else None,
        c0=initial[1] if len(initial) > 1 else None,
        name=g.path,
    )


def _rows(g: Context, values: list[ir.Value]) -> ir.Value:
    rows = [g("Unsqueeze", value, [0]) for value in values]
    return rows[0] if len(rows) == 1 else g("Concat", *rows, axis=0)


def _bidirectional_refuses(layer: Any, arguments: dict[str, Any]) -> str:
    forward, backward = layer.forward_layer, layer.backward_layer
    kinds = {keras_class(each, _KINDS) for each in (forward, backward)}
    if None in kinds or len(kinds) > 1 or any(row_of(each) is None for each in (forward, backward)):
        return "its layers are not two LSTMs, GRUs or SimpleRNNs"
    for each in (forward, backward):
        if reason := _refuses(each, arguments):
            return reason
    settings = [
        (c.units, c.use_bias, _name(c.activation), getattr(c, "reset_after", None))
        for c in (forward.cell, backward.cell)
    ]
    if settings[0] != settings[1] or forward.go_backwards or layer.merge_mode not in ("concat", "sum", "ave", "mul"):
        return "its two layers differ, or it does not merge them"
    return ""


@layer("Bidirectional", refuses=_bidirectional_refuses)
def bidirectional(g: Context, sequences: ir.Value, initial_state: Any = None, **_: Any) -> Any:
    layer, forward = g.layer, g.layer.forward_layer
    states = None if initial_state is None else _listed(initial_state)
    result = _emit(g, forward, sequences, [forward, layer.backward_layer], states)
    units = int(forward.cell.units)
    if forward.return_sequences:
        output = result.output
    else:
        output = g("Reshape", g("Transpose", result.h_n, perm=[1, 0, 2]), [0, 2 * units])
    output = _merged(g, output, layer.merge_mode)
    if not layer.return_state:
        return output
    finals = [g.many("Split", [state], 2, axis=0, num_outputs=2) for state in result[1:] if state is not None]
    return [output, *(g("Squeeze", pair[d], [0]) for d in (0, 1) for pair in finals)]


def _merged(g: Context, both: ir.Value, mode: str) -> ir.Value:
    if mode == "concat":
        return both
    first, second = g.many("Split", [both], 2, axis=-1, num_outputs=2)
    merged = g("Mul" if mode == "mul" else "Add", first, second)
    return g("Mul", merged, 0.5) if mode == "ave" else merged
