"""LSTM, GRU and SimpleRNN, one way and both, as the ONNX operators with torch's parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.layers import keras_class
from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.masked import gathered, last, spread, steps
from modelport.backends.keras.lower.table import layer, row_of
from modelport.graph.layers.recurrent_emit import Recurrent, emit_recurrent

_KINDS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _refuses(layer: Any, arguments: dict[str, Any]) -> str:
    if arguments.get("mask") is not None and layer.return_state and keras_class(layer, _KINDS) == "LSTM":
        return "it is called with a mask and returns the state of its cell, which the ONNX operator gives for all steps"
    if layer.stateful:
        return "it is stateful: it keeps its state from call to call"
    cell, kind = layer.cell, keras_class(layer, _KINDS)
    if kind == "SimpleRNN":
        return "" if _name(cell.activation) in ("tanh", "relu") else "its activation is neither tanh nor relu"
    if _name(cell.activation) != "tanh" or _name(cell.recurrent_activation) != "sigmoid":
        return "its activations are not tanh and sigmoid"
    return ""


@layer("LSTM", "GRU", "SimpleRNN", refuses=_refuses)
def recurrent(g: Context, sequences: ir.Value, initial_state: Any = None, mask: Any = None, **_: Any) -> Any:
    layer = g.layer
    states = None if initial_state is None else _listed(initial_state)
    if mask is not None:
        return _masked(g, sequences, states, mask)
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


def _masked(g: Context, x: ir.Value, states: list[ir.Value] | None, mask: ir.Value) -> Any:
    layer = g.layer
    found = steps(g, mask, backwards=layer.go_backwards)
    y = _emit(g, layer, gathered(g, x, found.order), [layer], states, reverse=False).output
    if layer.return_sequences:
        output = spread(g, y, found, zero=layer.zero_output_for_mask)
    else:
        output = last(g, y, found)
        if layer.zero_output_for_mask:
            final = g("Gather", found.mask, np.asarray([-1], np.int64), axis=1)
            output = g("Where", final, output, g.operand(0, (output,)))
    if not layer.return_state:
        return output
    return [output, last(g, y, found, None if states is None else states[0])]


def _listed(state: Any) -> list[ir.Value]:
    return list(state) if isinstance(state, (list, tuple)) else [state]


def _emit(
    g: Context,
    layer: Any,
    x: ir.Value,
    directions: list[Any],
    states: list[ir.Value] | None,
    *,
    reverse: bool | None = None,
) -> Recurrent:
    """The operator for one or two directions, the second backwards; one direction runs as the layer does it."""
    reverse = layer.go_backwards if reverse is None else reverse
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
        g.tape,
        kind,  # type: ignore[arg-type]
        x,
        parameters,
        hidden_size=int(cell.units),
        bidirectional=len(directions) == 2,
        reverse=len(directions) == 1 and reverse,
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
    if arguments.get("mask") is not None and forward.zero_output_for_mask and not forward.return_sequences:
        return "it is called with a mask and gives zeros where the last step is masked"
    settings = [
        (c.units, c.use_bias, _name(c.activation), getattr(c, "reset_after", None))
        for c in (forward.cell, backward.cell)
    ]
    if settings[0] != settings[1] or forward.go_backwards or layer.merge_mode not in ("concat", "sum", "ave", "mul"):
        return "its two layers differ, or it does not merge them"
    return ""


@layer("Bidirectional", refuses=_bidirectional_refuses)
def bidirectional(g: Context, sequences: ir.Value, initial_state: Any = None, mask: Any = None, **_: Any) -> Any:
    layer, forward = g.layer, g.layer.forward_layer
    states = None if initial_state is None else _listed(initial_state)
    if mask is not None:
        return _masked_both(g, sequences, states, mask)
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


def _masked_both(g: Context, x: ir.Value, states: list[ir.Value] | None, mask: ir.Value) -> Any:
    """One call of the layer on twice the batch: forwards the steps must stand at the start, backwards at the end."""
    layer, forward = g.layer, g.layer.forward_layer
    ways = [steps(g, mask), steps(g, mask, at_end=True)]
    rows = g("Concat", *(gathered(g, x, way.order) for way in ways), axis=0)
    rows.type, rows.shape = x.type, None if x.shape is None else ir.Shape([None, None, x.shape[2]])
    twice = None if states is None else [g("Concat", state, state, axis=0) for state in states]
    y = _emit(g, forward, rows, [forward, layer.backward_layer], twice).output
    batch = g("Shape", mask, start=0, end=1)
    halves = g("Slice", y, [0], batch, [0]), g("Slice", y, batch, g("Shape", y, start=0, end=1), [0])
    sides = [g.many("Split", [half], 2, axis=2, num_outputs=2)[d] for d, half in enumerate(halves)]
    for side in sides:
        side.type, side.shape = x.type, ir.Shape([None, None, int(forward.cell.units)])
    starts = [None, None] if states is None else [states[0], states[len(states) // 2]]
    ends = [last(g, side, way, start, at_end=d == 1) for d, (side, way, start) in _each(sides, ways, starts)]
    if forward.return_sequences:
        zero = forward.zero_output_for_mask
        outputs = [spread(g, side, way, at_end=d == 1, zero=zero) for d, (side, way, _) in _each(sides, ways, starts)]
    else:
        outputs = [last(g, side, way, at_end=d == 1) for d, (side, way, _) in _each(sides, ways, starts)]
    joined = g("Concat", *outputs, axis=-1)
    joined = _merged(g, joined, layer.merge_mode)
    return [joined, *ends] if layer.return_state else joined


def _each(*columns: Any) -> Any:
    return enumerate(zip(*columns, strict=True))


def _merged(g: Context, both: ir.Value, mode: str) -> ir.Value:
    if mode == "concat":
        return both
    first, second = g.many("Split", [both], 2, axis=-1, num_outputs=2)
    merged = g("Mul" if mode == "mul" else "Add", first, second)
    return g("Mul", merged, 0.5) if mode == "ave" else merged
