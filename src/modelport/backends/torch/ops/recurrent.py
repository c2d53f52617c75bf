"""Recurrent layers: `torch.nn.LSTM`, `GRU` and `RNN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import nn

from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Operand, Tensor, Weight

_LEAVES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class _Stack:
    """The attributes that all recurrent layers have."""

    hidden_size: int
    num_layers: int
    bidirectional: int
    reverse: int
    batch_first: int
    dropout: float

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def names(self) -> list[str]:
        """The parameters' names in torch, in the order of the node's inputs."""
        suffixes = [f"_l{k}{tail}" for k in range(self.num_layers) for tail in ("", "_reverse")[: self.directions]]
        return [f"{leaf}{suffix}" for suffix in suffixes for leaf in _LEAVES]


@op("LSTM", domain="modelport")
def lstm(
    x: Tensor,
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *weights: Weight,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: int = 0,
    reverse: int = 0,
    batch_first: int = 0,
    dropout: float = 0.0,
    node: ir.Node,
    operands: Operands,
) -> tuple[Any, Any, Any]:
    stack = _Stack(hidden_size, num_layers, bidirectional, reverse, batch_first, dropout)
    state: Any = None
    if h0 is not None or c0 is not None:
        state = tuple(_zeros(x, stack) if part is None else part for part in (h0, c0))
    output, states = _run("LSTM", {}, x, state, weights, stack, node, operands)
    return output, states[0], states[1]


@op("GRU", domain="modelport")
def gru(
    x: Tensor,
    h0: Tensor | None = None,
    *weights: Weight,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: int = 0,
    reverse: int = 0,
    batch_first: int = 0,
    dropout: float = 0.0,
    linear_before_reset: int = 1,
    node: ir.Node,
    operands: Operands,
) -> tuple[Any, Any]:
    stack = _Stack(hidden_size, num_layers, bidirectional, reverse, batch_first, dropout)
    if not linear_before_reset:
        return _reset_before_product(x, h0, weights, stack, operands)
    return _run("GRU", {}, x, h0, weights, stack, node, operands)


@op("RNN", domain="modelport")
def rnn(
    x: Tensor,
    h0: Tensor | None = None,
    *weights: Weight,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: int = 0,
    reverse: int = 0,
    batch_first: int = 0,
    dropout: float = 0.0,
    nonlinearity: str = "tanh",
    node: ir.Node,
    operands: Operands,
) -> tuple[Any, Any]:
    stack = _Stack(hidden_size, num_layers, bidirectional, reverse, batch_first, dropout)
    return _run("RNN", {"nonlinearity": nonlinearity}, x, h0, weights, stack, node, operands)


def _reset_before_product(
    x: Tensor, h0: Tensor | None, weights: Sequence[Operand | None], stack: _Stack, operands: Operands
) -> tuple[Any, Any]:
    """A GRU that resets the state before its product (Keras' reset_after=False), step by step: `nn.GRU` resets after.

    The equations are those of the ONNX operator GRU with linear_before_reset=0.
    """
    time = 1 if stack.batch_first else 0
    steps = x.dims[time]
    if steps is None or stack.num_layers > 1:
        raise CannotBuild(
            "it resets before the product (linear_before_reset=0), which torch.nn.GRU does not, and it is "
            "a stack or its number of steps is not known; give it a static one, or train with reset_after=True"
        )
    given = dict(zip(stack.names, [*weights, *[None] * (len(stack.names) - len(weights))], strict=True))
    outputs, finals = [], []
    for direction, tail in enumerate(("", "_reverse")[: stack.directions]):
        w_ih, w_hh, b_ih, b_hh = (
            None if (operand := given[f"{leaf}_l0{tail}"]) is None else operands.tensor(operand) for leaf in _LEAVES
        )
        sizes = [2 * stack.hidden_size, stack.hidden_size]
        (w_gates, w_new), (b_gates, b_new) = (
            (None, None) if part is None else torch.split(part, sizes) for part in (w_hh, b_hh)
        )
        fed = F.linear(x, cast(Any, w_ih), b_ih)
        state: Any = torch.select(_zeros(x, stack) if h0 is None else h0, 0, direction)
        backwards = bool(tail) or bool(stack.reverse)
        computed: list[Any] = []
        for step in reversed(range(steps)) if backwards else range(steps):
            into_gates, into_new = torch.split(torch.select(fed, time, step), sizes, -1)
            gates = torch.sigmoid(into_gates + F.linear(state, cast(Any, w_gates), b_gates))
            reset, update = torch.chunk(gates, 2, -1)
            new = torch.tanh(into_new + F.linear(reset * state, cast(Any, w_new), b_new))
            state = (1 - update) * new + update * state
            computed.append(state)
        outputs.append(torch.stack(computed[::-1] if backwards else computed, time))
        finals.append(state)
    return torch.cat(outputs, -1), torch.stack(finals)


def _zeros(x: Tensor, stack: _Stack) -> Any:
    batch = x.size_of(0 if stack.batch_first else 1)
    return x.new_zeros((stack.num_layers * stack.directions, batch, stack.hidden_size))


def _run(
    kind: str,
    options: dict[str, Any],
    x: Tensor,
    state: Any,
    weights: Sequence[Operand | None],
    stack: _Stack,
    node: ir.Node,
    operands: Operands,
) -> tuple[Any, Any]:
    """The layer's output and its last states."""
    time = 1 if stack.batch_first else 0
    inputs = torch.flip(x, [time]) if stack.reverse else x
    given = dict(zip(stack.names, [*weights, *[None] * (len(stack.names) - len(weights))], strict=True))
    path = _place(kind, options, x, given, stack, node, operands)
    result: Any
    if path is not None:
        result = operands.call(path, inputs) if state is None else operands.call(path, inputs, state)
    else:
        result = _functional(kind, options, inputs, x, state, given, stack, operands)
    output, states = result[0], result[1]
    return (torch.flip(output, [time]) if stack.reverse else output), states


def _place(
    kind: str,
    options: dict[str, Any],
    x: Tensor,
    given: dict[str, Operand | None],
    stack: _Stack,
    node: ir.Node,
    operands: Operands,
) -> str | None:
    biased = any(operand is not None for name, operand in given.items() if name.startswith("bias"))
    features = x.dims[-1]
    if features is None:
        raise CannotBuild("the number of its features is not known; give the input a static last size")
    settings = {"bias": biased, "batch_first": bool(stack.batch_first), "dropout": stack.dropout} | options
    settings["bidirectional"] = bool(stack.bidirectional)
    present = {name: operand for name, operand in given.items() if operand is not None}
    path = operands.weights.place(
        lambda: getattr(nn, kind)(features, stack.hidden_size, stack.num_layers, **settings), present, node
    )
    if path is not None and biased:
        layer = operands.weights.root.get_submodule(path)
        for name in given.keys() - present.keys():
            # torch has both biases or none; Keras and ONNX may have one.
            setattr(layer, name, nn.Parameter(torch.zeros(_gates(kind) * stack.hidden_size)))
    return path


def _gates(kind: str) -> int:
    return {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]


def _functional(
    kind: str,
    options: dict[str, Any],
    inputs: Any,
    x: Tensor,
    state: Any,
    given: dict[str, Operand | None],
    stack: _Stack,
    operands: Operands,
) -> tuple[Any, Any]:
    """The layer without a module, for parameters whose names fit none."""
    if stack.dropout:
        raise CannotBuild("its parameters' names fit no torch layer, and without one its dropout would be lost; name "
                          "them weight_ih_l0, weight_hh_l0 and so on under one prefix")  # fmt: skip
    biased = any(operand is not None for name, operand in given.items() if name.startswith("bias"))
    zero = None
    parameters = []
    for operand in given.values():
        if operand is not None:
            parameters.append(operands.tensor(operand))
        elif biased:
            zero = zero if zero is not None else x.new_zeros((_gates(kind) * stack.hidden_size,))
            parameters.append(cast(Tensor, zero))
    if state is None:
        state = (_zeros(x, stack),) * 2 if kind == "LSTM" else _zeros(x, stack)
    function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": getattr(torch, f"rnn_{options.get('nonlinearity')}", None)}
    chosen: Any = function[kind]
    settings = (biased, stack.num_layers, 0.0, False, bool(stack.bidirectional), bool(stack.batch_first))
    result = chosen(inputs, state, parameters, *settings)
    return result[0], ((result[1], result[2]) if kind == "LSTM" else result[1])
