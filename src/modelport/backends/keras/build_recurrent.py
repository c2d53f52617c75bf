"""Stacks of LSTM, GRU and simple recurrent layers."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

from modelport.backends.keras.absorb import Owned
from modelport.backends.keras.build_layers import Place, layer
from modelport.backends.keras.layers import NUMBERED
from modelport.backends.keras.ops.registry import NeedsValues
from modelport.backends.keras.ops.tensors import dtype
from modelport.graph.layout.relayout import is_read

STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}


def _kind(op_type: str, nonlinearity: str, linear_before_reset: int) -> tuple[Any, dict[str, Any]]:
    if op_type == "LSTM":
        return layers.LSTM, {}
    if op_type == "GRU":
        return layers.GRU, {"reset_after": bool(linear_before_reset)}
    return layers.SimpleRNN, {"activation": nonlinearity}


def _level(place: Place, level: int) -> Owned:
    """The weights of one layer of the stack, by the names that they have in a layer of its own."""
    mine = {
        name: weight for name, weight in place.owned.weights.items() if f"_l{level}" in name.replace("_reverse", "")
    }
    mine = {name.replace(f"_l{level}", "_l0"): weight for name, weight in mine.items()}
    owned = place.owned
    name = owned.name if level == 0 else place.names.claim(f"{owned.name}.l{level}")
    return Owned((*owned.key, level), name, mine, owned.trainable)


def _layer(place: Place, level: int, x: Any, both: bool, reverse: bool, units: int, options: dict[str, Any]) -> Any:
    key = (*place.owned.key, level)
    if (found := place.known(key)) is not None:
        return found
    owned = _level(place, level)
    kind, own = options["kind"]
    use_bias = any(name.startswith("bias") for name in owned.weights)
    settings = {**options["gives"], "use_bias": use_bias, "dtype": dtype(x), **own}
    name = place.name if level == 0 else owned.name
    if both:
        name, inner = _around(place, name, kind)
        made = layers.Bidirectional(kind(units, name=inner, **settings), name=name, dtype=dtype(x))
    else:
        made = kind(units, go_backwards=reverse, name=name, **settings)
    place.register(key, made, owned)
    return made


def _around(place: Place, name: str, kind: Any) -> tuple[str, str]:
    """The names of a Bidirectional and of the layer inside it: `encoder.gru_1` may be both, for a way home."""
    head, _, last = name.rpartition(".")
    plain = _SNAKE[kind.__name__]
    if head and NUMBERED.fullmatch(last) and last.startswith(f"{plain}_") and place.names.is_free(head):
        return place.names.fresh(head), last
    return name, plain


_SNAKE = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}
"""The names that Keras gives to the first layer of a kind."""


def _initial(place: Place, count: int, level: int, directions: int) -> list[Any] | None:
    """The states that a layer starts from, direction by direction."""
    given = [place.input(1 + i) for i in range(count)]
    if all(state is None for state in given):
        return None
    shape_of = next(state for state in given if state is not None)
    states = [ops.zeros_like(shape_of) if state is None else state for state in given]
    return [state[level * directions + d] for d in range(directions) for state in states]


def _recurrent(
    place: Place,
    x: Any,
    *,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: int = 0,
    reverse: int = 0,
    batch_first: int = 0,
    dropout: float = 0.0,
    nonlinearity: str = "tanh",
    linear_before_reset: int = 1,
) -> Any:
    if x.shape[-1] is None:
        raise NeedsValues("the size of what each step reads is not known")
    op_type = place.node.op_type
    count, directions = STATES[op_type], 2 if bidirectional else 1
    kind = _kind(op_type, nonlinearity, linear_before_reset)
    wanted = [value is not None and is_read(value) for value in place.node.outputs]
    steps = wanted[0] or bool(bidirectional) or bool(reverse) or place.is_shared
    state = any(wanted[1:]) or place.is_shared
    data = x if batch_first else ops.transpose(x, (1, 0, 2))
    finals: list[Any] = []
    for level in range(num_layers):
        if level and dropout:
            data = place.plain(layers.Dropout(dropout, name=place.names.fresh(f"{place.name}.dropout")))(data)
        gives = {"return_sequences": steps or level < num_layers - 1, "return_state": state}
        options = {"kind": kind, "gives": gives}
        made = _layer(place, level, data, bool(bidirectional), bool(reverse), hidden_size, options)
        initial = _initial(place, count, level, directions)
        given = made(data) if initial is None else made(data, initial_state=initial)
        data, *states = given if state else (given,)
        if reverse:
            data = ops.flip(data, axis=1)
        finals += states
    output = data if batch_first or not steps else ops.transpose(data, (1, 0, 2))
    return output, *(ops.stack(finals[i::count], axis=0) for i in range(count) if state)


for _name in STATES:
    layer(_name, "modelport")(_recurrent)
