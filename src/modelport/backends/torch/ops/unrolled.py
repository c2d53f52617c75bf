"""ONNX's own LSTM, GRU and RNN where they fit no layer: unrolled over a number of steps that has to be known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Tensor

_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": lambda x, a, b: F.relu(x),
    "tanh": lambda x, a, b: torch.tanh(x),
    "sigmoid": lambda x, a, b: torch.sigmoid(x),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: F.leaky_relu(x, a),
    "thresholdedrelu": lambda x, a, b: F.threshold(x, a, 0.0),
    "scaledtanh": lambda x, a, b: a * torch.tanh(b * x),
    "hardsigmoid": lambda x, a, b: torch.clamp(a * x + b, 0, 1),
    "elu": lambda x, a, b: F.elu(x, a),
    "softsign": lambda x, a, b: F.softsign(x),
    "softplus": lambda x, a, b: F.softplus(x),
}
_DEFAULT_ALPHA = {"leakyrelu": 0.01, "hardsigmoid": 0.2, "elu": 1.0, "affine": 1.0, "thresholdedrelu": 1.0}
_DEFAULT_BETA = {"hardsigmoid": 0.5}

Step = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class _Settings:
    """The attributes of the three operators."""

    hidden_size: int | None
    direction: str
    layout: int
    clip: float | None
    activations: Sequence[str]
    alpha: Sequence[float]
    beta: Sequence[float]

    def functions(self, direction: int, count: int) -> list[Callable[[Any], Any]]:
        """The activations of one direction, after the clip of their input; the third one, of the cell, has none."""
        alphas, betas = list(self.alpha), list(self.beta)
        chosen: list[Callable[[Any], Any]] = []
        for index, given in enumerate(self.activations):
            name = given.lower()
            if name not in _ACTIVATIONS:
                raise CannotBuild(f"its activation {given!r} is not known; use one of {sorted(_ACTIVATIONS)}")
            a = alphas.pop(0) if name in _DEFAULT_ALPHA and alphas else _DEFAULT_ALPHA.get(name, 1.0)
            b = betas.pop(0) if name in _DEFAULT_BETA and betas else _DEFAULT_BETA.get(name, 0.0)
            if direction * count <= index < (direction + 1) * count:
                chosen.append(self._clipped(_ACTIVATIONS[name], a, b, self.clip if len(chosen) < 2 else None))
        return chosen

    @staticmethod
    def _clipped(function: Callable[..., Any], a: float, b: float, limit: float | None) -> Callable[[Any], Any]:
        if limit is None:
            return lambda x: function(x, a, b)
        return lambda x: function(torch.clamp(x, -limit, limit), a, b)


def _settings(
    defaults: Sequence[str],
    direction: str,
    activations: Sequence[str] | None,
    alpha: Sequence[float] | None,
    beta: Sequence[float] | None,
    clip: float | None,
    hidden_size: int | None,
    layout: int,
) -> _Settings:
    both = 2 if direction == "bidirectional" else 1
    return _Settings(hidden_size, direction, layout, clip, activations or [*defaults] * both, alpha or (), beta or ())


def _unroll(
    x: Tensor, states: Sequence[Tensor | None], lengths: Tensor | None, settings: _Settings, hidden: int,
    make: Callable[[int], Step],
) -> tuple[Any, ...]:  # fmt: skip
    """Every direction over every step.

    Returns:
        The output (steps, directions, batch, hidden), then every state (directions, batch, hidden); with layout 1 the
        batch comes first.
    """
    sequence = x.transpose(0, 1) if settings.layout else x
    steps, batch = x.dims[1 if settings.layout else 0], x.size_of(0 if settings.layout else 1)
    if steps is None:
        raise CannotBuild("it fits no torch layer and its number of steps is not known; give the input a static length")
    initial = [None if s is None else (s.transpose(0, 1) if settings.layout else s) for s in states]
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[settings.direction]
    outputs, finals = [], []
    for index, back in enumerate(backwards):
        carry = [x.new_zeros((batch, hidden)) if s is None else torch.select(s, 0, index) for s in initial]
        output, carry = _direction(sequence, range(steps)[:: -1 if back else 1], carry, lengths, make(index))
        outputs.append(torch.stack(output[:: -1 if back else 1], 0))
        finals.append(carry)
    y = torch.stack(outputs, 2 if settings.layout else 1)
    axis = 1 if settings.layout else 0
    last = [torch.stack([carry[place] for carry in finals], axis) for place in range(len(states))]
    return (y.transpose(0, 1) if settings.layout else y, *last)


def _direction(
    sequence: Any, order: range, carry: list[Any], lengths: Tensor | None, step: Step
) -> tuple[list[Any], list[Any]]:
    output = []
    for time in order:
        new = step(torch.select(sequence, 0, time), *carry)
        emitted = new[0]
        if lengths is not None:
            # A sequence that has ended, or backwards not begun, keeps its state and gives zeros.
            alive = torch.gt(lengths, time).unsqueeze(1)
            new = tuple(torch.where(alive, fresh, old) for fresh, old in zip(new, carry, strict=True))
            emitted = torch.where(alive, emitted, torch.zeros_like(emitted))
        output.append(emitted)
        carry = list(new)
    return output, carry


def _weights(
    w: Tensor, r: Tensor, b: Tensor | None, direction: int, gates: int
) -> tuple[Any, Any, list[Any], list[Any]]:
    """One direction's matrices, transposed, and its two biases by gate."""
    matrix, recurrent = torch.select(w, 0, direction).transpose(0, 1), torch.select(r, 0, direction).transpose(0, 1)
    if b is None:
        return matrix, recurrent, [0.0] * gates, [0.0] * gates
    parts = torch.chunk(torch.select(b, 0, direction), 2 * gates)
    return matrix, recurrent, [parts[i] for i in range(gates)], [parts[gates + i] for i in range(gates)]


def _hidden(r: Tensor, hidden_size: int | None) -> int:
    hidden = hidden_size or r.dims[-1]
    if hidden is None:
        raise CannotBuild("its hidden size is not known; give the attribute hidden_size")
    return hidden


@op("RNN")
def rnn(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None, *, activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None, activations: Sequence[str] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, layout: int = 0,
) -> tuple[Any, ...]:  # fmt: skip
    settings = _settings(["Tanh"], direction, activations, activation_alpha, activation_beta, clip, hidden_size, layout)

    def make(index: int) -> Step:
        (f,) = settings.functions(index, 1)
        matrix, recurrent, wb, rb = _weights(w, r, b, index, 1)
        return lambda x_t, h: (f(torch.matmul(x_t, matrix) + torch.matmul(h, recurrent) + wb[0] + rb[0]),)

    return _unroll(x, [initial_h], sequence_lens, settings, _hidden(r, hidden_size), make)


@op("GRU")
def gru(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None, *, activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None, activations: Sequence[str] | None = None, clip: float | None = None,
    direction: str = "forward", hidden_size: int | None = None, layout: int = 0, linear_before_reset: int = 0,
) -> tuple[Any, ...]:  # fmt: skip
    defaults = ["Sigmoid", "Tanh"]
    settings = _settings(defaults, direction, activations, activation_alpha, activation_beta, clip, hidden_size, layout)

    def make(index: int) -> Step:
        f, g = settings.functions(index, 2)
        matrix, recurrent, wb, rb = _weights(w, r, b, index, 3)
        columns = torch.chunk(recurrent, 3, 1)

        def step(x_t: Any, h: Any) -> tuple[Any, ...]:
            parts = torch.chunk(torch.matmul(x_t, matrix), 3, 1)
            z = f(parts[0] + torch.matmul(h, columns[0]) + wb[0] + rb[0])
            reset = f(parts[1] + torch.matmul(h, columns[1]) + wb[1] + rb[1])
            if linear_before_reset:
                candidate = g(parts[2] + wb[2] + reset * (torch.matmul(h, columns[2]) + rb[2]))
            else:
                candidate = g(parts[2] + wb[2] + torch.matmul(reset * h, columns[2]) + rb[2])
            return ((1 - z) * candidate + z * h,)

        return step

    return _unroll(x, [initial_h], sequence_lens, settings, _hidden(r, hidden_size), make)


@op("LSTM")
def lstm(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None, initial_c: Tensor | None = None, p: Tensor | None = None, *,
    activation_alpha: Sequence[float] | None = None, activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None, clip: float | None = None, direction: str = "forward",
    hidden_size: int | None = None, input_forget: int = 0, layout: int = 0,
) -> tuple[Any, ...]:  # fmt: skip
    defaults = ["Sigmoid", "Tanh", "Tanh"]
    settings = _settings(defaults, direction, activations, activation_alpha, activation_beta, clip, hidden_size, layout)

    def make(index: int) -> Step:
        f, g, h_function = settings.functions(index, 3)
        matrix, recurrent, wb, rb = _weights(w, r, b, index, 4)
        holes = [0.0] * 3 if p is None else [torch.chunk(torch.select(p, 0, index), 3)[k] for k in range(3)]

        def step(x_t: Any, h: Any, c: Any) -> tuple[Any, ...]:
            sums = torch.chunk(torch.matmul(x_t, matrix) + torch.matmul(h, recurrent), 4, 1)
            i, o, forget, cell = (sums[k] + wb[k] + rb[k] for k in range(4))
            i = f(i + holes[0] * c)
            forget = 1 - i if input_forget else f(forget + holes[2] * c)
            c = forget * c + i * g(cell)
            return f(o + holes[1] * c) * h_function(c), c

        return step

    return _unroll(x, [initial_h, initial_c], sequence_lens, settings, _hidden(r, hidden_size), make)
