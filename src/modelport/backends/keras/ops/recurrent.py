"""Recurrent operators, one step after the other; those with a model's own weights become layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from keras import ops

from modelport.backends.keras.ops.registry import CannotBuild, op
from modelport.backends.keras.ops.tensors import cast, part, plus, size
from modelport.graph.layers.recurrent_emit import GATES

Cell = Callable[[Any, list[Any]], list[Any]]
"""Takes one step's input (batch, features) and the states, gives the new states; the first one is the output."""

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "Sigmoid": ops.sigmoid,
    "Tanh": ops.tanh,
    "Relu": ops.relu,
    "Softsign": ops.softsign,
    "Softplus": ops.softplus,
    "Elu": ops.elu,
}


def unrolled(
    cell: Cell, steps: Sequence[tuple[int, Any]], states: list[Any], lengths: Any = None
) -> tuple[list[Any], list[Any]]:
    """The outputs of all steps and the last states; steps beyond a row's length change nothing and give zeros.

    Args:
        cell: one step.
        steps: every step's place in time and its input, in the order in which they are taken.
        states: the first ones.
        lengths: of every row, (batch,).
    """
    outputs = []
    for step, x in steps:
        new = cell(x, states)
        shown = new[0]
        if lengths is not None:
            live = ops.expand_dims(ops.greater(lengths, step), -1)
            new = [ops.where(live, after, before) for after, before in zip(new, states, strict=True)]
            shown = ops.where(live, shown, ops.zeros_like(shown))
        states = new
        outputs.append(shown)
    return outputs, states


def _limited(clip: float | None) -> Callable[[Any], Any]:
    return (lambda x: x) if clip is None else (lambda x: ops.clip(x, -clip, clip))


def _pieces(x: Any, count: int) -> list[Any]:
    width = size(x, -1) // count
    return [part(x, -1, i * width, (i + 1) * width) for i in range(count)]


def _product(x: Any, weight: Any, bias: Any) -> Any:
    """x @ weight.T + bias."""
    result = ops.matmul(x, ops.transpose(weight))
    return result if bias is None else plus(result, bias)


def lstm_cell(
    w: Any, r: Any, wb: Any, rb: Any, peepholes: Any, functions: Sequence[Any], limit: Any, coupled: bool = False
) -> Cell:
    """Gates in ONNX's order: input, output, forget, cell; a coupled forget gate is what the input gate leaves."""
    f, g, h = functions
    looks = [None] * 3 if peepholes is None else _pieces(peepholes, 3)

    def seen(gate: Any, look: Any, c: Any) -> Any:
        return limit(gate if look is None else plus(gate, ops.multiply(look, c)))

    def cell(x: Any, states: list[Any]) -> list[Any]:
        i, o, forget, c = _pieces(plus(_product(x, w, wb), _product(states[0], r, rb)), 4)
        i = f(seen(i, looks[0], states[1]))
        forget = ops.subtract(1.0, i) if coupled else f(seen(forget, looks[2], states[1]))
        new = plus(ops.multiply(forget, states[1]), ops.multiply(i, g(limit(c))))
        return [ops.multiply(f(seen(o, looks[1], new)), h(new)), new]

    return cell


def gru_cell(w: Any, r: Any, wb: Any, rb: Any, after: bool, functions: Sequence[Any], limit: Any) -> Cell:
    """Gates in ONNX's order: update, reset, hidden."""
    f, g = functions
    width = size(r, -1)

    def cell(x: Any, states: list[Any]) -> list[Any]:
        h = states[0]
        xz, xr, xh = _pieces(_product(x, w, wb), 3)
        hz, hr, hh = _pieces(_product(h, r, rb), 3)
        z, reset = f(limit(plus(xz, hz))), f(limit(plus(xr, hr)))
        if after:
            inner = ops.multiply(reset, hh)
        else:
            bias = None if rb is None else part(rb, -1, 2 * width, None)
            inner = _product(ops.multiply(reset, h), part(r, 0, 2 * width, None), bias)
        candidate = g(limit(plus(xh, inner)))
        return [plus(ops.multiply(ops.subtract(1.0, z), candidate), ops.multiply(z, h))]

    return cell


def rnn_cell(w: Any, r: Any, wb: Any, rb: Any, functions: Sequence[Any], limit: Any) -> Cell:
    (f,) = functions
    return lambda x, states: [f(limit(plus(_product(x, w, wb), _product(states[0], r, rb))))]


def _run(
    x: Any, w: Any, lengths: Any, initial: Sequence[Any], cell_of: Callable[[int, Sequence[Any]], Cell],
    defaults: Sequence[str], activations: Sequence[str] | None, direction: str, hidden_size: int, layout: int,
) -> tuple[Any, ...]:  # fmt: skip
    """Every direction of one operator: the outputs (seq, directions, batch, hidden) and the last states."""
    directions = size(w, 0)
    names = list(activations or (*defaults,) * directions)
    if any(name not in ACTIVATIONS for name in names):
        raise CannotBuild(f"the activations {names} are not all translated")
    x = ops.transpose(x, (1, 0, 2)) if layout else x
    initial = [None if s is None else ops.transpose(s, (1, 0, 2)) if layout else s for s in initial]
    steps = [x[t] for t in range(size(x, 0))]
    zeros = ops.matmul(ops.zeros_like(steps[0]), ops.zeros_like(ops.transpose(part(w, 1, 0, hidden_size)[0])))
    lengths = None if lengths is None else cast(lengths, "int64")
    results, finals = [], []
    for i in range(directions):
        backward = direction == "reverse" or i == 1
        functions = [ACTIVATIONS[name] for name in names[i * len(defaults) : (i + 1) * len(defaults)]]
        states = [zeros if s is None else s[i] for s in initial]
        order = list(enumerate(steps))[:: -1 if backward else 1]
        outputs, last = unrolled(cell_of(i, functions), order, states, lengths)
        results.append(ops.stack(outputs[::-1] if backward else outputs, axis=0))
        finals.append(last)
    y = ops.stack(results, axis=1)
    states_out = [ops.stack(each, axis=0) for each in zip(*finals, strict=True)]
    if layout:
        return ops.transpose(y, (2, 0, 1, 3)), *(ops.transpose(s, (1, 0, 2)) for s in states_out)
    return y, *states_out


def _biases(bias: Any, i: int) -> Sequence[Any]:
    return (None, None) if bias is None else _pieces(bias[i], 2)


@op("LSTM")
def lstm(
    x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, c0: Any = None, p: Any = None, *,
    activations: Sequence[str] | None = None, clip: float | None = None, direction: str = "forward",
    hidden_size: int = 0, input_forget: int = 0, layout: int = 0, outputs: int = 3,
) -> Any:  # fmt: skip
    def cell_of(i: int, functions: Sequence[Any]) -> Cell:
        wb, rb = _biases(b, i)
        holes = None if p is None else p[i]
        return lstm_cell(w[i], r[i], wb, rb, holes, functions, _limited(clip), bool(input_forget))

    results = _run(
        x, w, lengths, (h0, c0), cell_of, ["Sigmoid", "Tanh", "Tanh"], activations, direction, size(r, 2), layout
    )
    return results[:outputs]


@op("GRU")
def gru(
    x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, *,
    activations: Sequence[str] | None = None, clip: float | None = None, direction: str = "forward",
    hidden_size: int = 0, layout: int = 0, linear_before_reset: int = 0, outputs: int = 2,
) -> Any:  # fmt: skip
    def cell_of(i: int, functions: Sequence[Any]) -> Cell:
        wb, rb = _biases(b, i)
        return gru_cell(w[i], r[i], wb, rb, bool(linear_before_reset), functions, _limited(clip))

    return _run(x, w, lengths, (h0,), cell_of, ["Sigmoid", "Tanh"], activations, direction, size(r, 2), layout)[
        :outputs
    ]


def _reordered(weight: Any, order: Sequence[int]) -> Any:
    """Blocks of rows in another order."""
    if weight is None or len(order) == 1:
        return weight
    height = size(weight, 0) // len(order)
    return ops.concatenate([part(weight, 0, i * height, (i + 1) * height) for i in order], axis=0)


def _made(cell_of: Callable[..., Cell], cells: Sequence[Any], i: int, functions: Sequence[Any]) -> Cell:
    return cell_of(cells[i], functions)


def _torch_layers(
    kind: str, cell_of: Callable[..., Cell], states: int, defaults: Sequence[str], x: Any, inputs: Sequence[Any],
    num_layers: int, bidirectional: int, reverse: int, batch_first: int,
) -> Any:  # fmt: skip
    """A stack with torch's parameters, `(h0[, c0], then w_ih, w_hh, b_ih, b_hh for every layer and direction)`."""
    given, parameters = inputs[:states], inputs[states:]
    directions = 2 if bidirectional else 1
    data = ops.transpose(x, (1, 0, 2)) if batch_first else x
    finals: list[list[Any]] = []
    for level in range(num_layers):
        start = 4 * level * directions
        rows = [parameters[start + 4 * d : start + 4 * d + 4] for d in range(directions)]
        rows = [[*row, *[None] * (4 - len(row))] for row in rows]
        cells = [[_reordered(weight, GATES[kind]) for weight in row] for row in rows]
        initial = [None if s is None else part(s, 0, level * directions, (level + 1) * directions) for s in given]
        direction = "reverse" if reverse else "forward"
        stacked = ops.stack([row[0] for row in cells], axis=0)
        made = partial(_made, cell_of, cells)
        y, *last = _run(data, stacked, None, initial, made, defaults, None, direction, size(cells[0][1], 1), 0)
        data = ops.concatenate([y[:, d] for d in range(directions)], axis=-1)
        finals.append(last)
    output = ops.transpose(data, (1, 0, 2)) if batch_first else data
    return output, *(ops.concatenate(each, axis=0) for each in zip(*finals, strict=True))


@op("LSTM", domain="modelport")
def torch_lstm(
    x: Any, *inputs: Any, hidden_size: int, num_layers: int = 1, bidirectional: int = 0, reverse: int = 0,
    batch_first: int = 0, dropout: float = 0.0,
) -> Any:  # fmt: skip
    def cell_of(weights: Sequence[Any], functions: Sequence[Any]) -> Cell:
        w, r, wb, rb = weights
        return lstm_cell(w, r, wb, rb, None, functions, _limited(None))

    names = ["Sigmoid", "Tanh", "Tanh"]
    return _torch_layers("LSTM", cell_of, 2, names, x, inputs, num_layers, bidirectional, reverse, batch_first)


@op("GRU", domain="modelport")
def torch_gru(
    x: Any, *inputs: Any, hidden_size: int, num_layers: int = 1, bidirectional: int = 0, reverse: int = 0,
    batch_first: int = 0, dropout: float = 0.0, linear_before_reset: int = 1,
) -> Any:  # fmt: skip
    def cell_of(weights: Sequence[Any], functions: Sequence[Any]) -> Cell:
        w, r, wb, rb = weights
        return gru_cell(w, r, wb, rb, bool(linear_before_reset), functions, _limited(None))

    names = ["Sigmoid", "Tanh"]
    return _torch_layers("GRU", cell_of, 1, names, x, inputs, num_layers, bidirectional, reverse, batch_first)


@op("RNN", domain="modelport")
def torch_rnn(
    x: Any, *inputs: Any, hidden_size: int, num_layers: int = 1, bidirectional: int = 0, reverse: int = 0,
    batch_first: int = 0, dropout: float = 0.0, nonlinearity: str = "tanh",
) -> Any:  # fmt: skip
    def cell_of(weights: Sequence[Any], functions: Sequence[Any]) -> Cell:
        w, r, wb, rb = weights
        return rnn_cell(w, r, wb, rb, functions, _limited(None))

    names = [nonlinearity.capitalize()]
    return _torch_layers("RNN", cell_of, 1, names, x, inputs, num_layers, bidirectional, reverse, batch_first)


@op("RNN")
def rnn(
    x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h0: Any = None, *,
    activations: Sequence[str] | None = None, clip: float | None = None, direction: str = "forward",
    hidden_size: int = 0, layout: int = 0, outputs: int = 2,
) -> Any:  # fmt: skip
    def cell_of(i: int, functions: Sequence[Any]) -> Cell:
        wb, rb = _biases(b, i)
        return rnn_cell(w[i], r[i], wb, rb, functions, _limited(clip))

    return _run(x, w, lengths, (h0,), cell_of, ["Tanh"], activations, direction, size(r, 2), layout)[:outputs]
