"""`emit_recurrent` computes what torch's recurrent layers compute."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.graph.layers.recurrent_emit import emit_recurrent
from tests.graph.running import model_of, run, tensor, weight

FEATURES, HIDDEN = 3, 4


def emitted(layer: torch.nn.RNNBase, *, states: bool, reverse: bool = False) -> ir.Model:
    """A torch layer as a graph of the inputs x (and h0, c0)."""
    tape = ir.tape.Tape()
    x = tensor("x", ["a", "b", FEATURES])
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    names = (["h0", "c0"] if layer.mode == "LSTM" else ["h0"]) if states else []
    initial = {name: tensor(name, [rows, "n", HIDDEN]) for name in names}
    parameters = {name: weight(tape, f"net.{name}", value.detach().numpy()) for name, value in layer.named_parameters()}
    results = emit_recurrent(
        tape,
        layer.mode.split("_")[0],
        x,
        {name.removeprefix("net."): value for name, value in parameters.items()},
        hidden_size=HIDDEN,
        num_layers=layer.num_layers,
        bidirectional=layer.bidirectional,
        reverse=reverse,
        batch_first=layer.batch_first,
        dropout=layer.dropout,
        nonlinearity=getattr(layer, "nonlinearity", "tanh"),
        **initial,
        name="net",
    )
    return model_of(tape, [x, *initial.values()], [value for value in results if value is not None])


def torch_results(layer: torch.nn.RNNBase, *arrays: np.ndarray) -> list[np.ndarray]:
    x, *states = map(torch.from_numpy, arrays)
    hx = None if not states else states[0] if len(states) == 1 else tuple(states)
    with torch.no_grad():
        output, last = layer.eval()(x, hx)
    return [value.numpy() for value in (output, *(last if isinstance(last, tuple) else (last,)))]


@settings(max_examples=40, deadline=None)
@given(
    cls=st.sampled_from([torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN]),
    options=st.fixed_dictionaries(
        {
            "num_layers": st.integers(1, 3),
            "bidirectional": st.booleans(),
            "batch_first": st.booleans(),
            "bias": st.booleans(),
            "dropout": st.sampled_from([0.0, 0.5]),
        }
    ),
    states=st.booleans(),
    relu=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_computes_what_torch_computes(cls, options, states, relu, seed):
    torch.manual_seed(seed)
    if options["num_layers"] == 1:
        options["dropout"] = 0.0
    if cls is torch.nn.RNN:
        options["nonlinearity"] = "relu" if relu else "tanh"
    layer = cls(FEATURES, HIDDEN, **options)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, 2, FEATURES), np.float32)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    batch = 5 if layer.batch_first else 2
    count = (2 if cls is torch.nn.LSTM else 1) if states else 0
    initial = [rng.standard_normal((rows, batch, HIDDEN), np.float32) for _ in range(count)]

    got = run(emitted(layer, states=states), dict(zip(["x", "h0", "c0"], [x, *initial], strict=False)))

    for mine, theirs in zip(got, torch_results(layer, x, *initial), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
def test_a_reversed_layer_is_the_layer_on_the_reversed_sequence(cls):
    layer = cls(FEATURES, HIDDEN)
    x = np.random.default_rng(0).standard_normal((5, 2, FEATURES), np.float32)

    got = run(emitted(layer, states=False, reverse=True), {"x": x})

    output, *last = torch_results(layer, x[::-1].copy())
    for mine, theirs in zip(got, [output[::-1], *last], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_bias_that_is_not_there_is_zero():
    tape = ir.tape.Tape()
    rng = np.random.default_rng(0)
    x = tensor("x", ["a", "b", FEATURES])
    shapes = {"weight_ih_l0": (12, FEATURES), "weight_hh_l0": (12, HIDDEN), "bias_ih_l0": (12,)}
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    values = {name: weight(tape, name, array) for name, array in arrays.items()}
    results = emit_recurrent(tape, "GRU", x, values, hidden_size=HIDDEN)
    layer = torch.nn.GRU(FEATURES, HIDDEN)
    layer.load_state_dict({**{k: torch.from_numpy(v) for k, v in arrays.items()}, "bias_hh_l0": torch.zeros(12)})
    data = rng.standard_normal((5, 2, FEATURES), np.float32)

    got = run(model_of(tape, [x], [results.output, results.h_n]), {"x": data})

    for mine, theirs in zip(got, torch_results(layer, data), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
