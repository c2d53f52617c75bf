"""Recurrent layers: a stack of torch's parameters as layers of Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from modelport.graph.layers.recurrent_emit import emit_recurrent
from modelport.graph.weights import set_roles
from tests.backends.keras.building import draw
from tests.graph.running import model_of, run, tensor, weight

keras = pytest.importorskip("keras")

from modelport.backends.keras.build import build  # noqa: E402
from modelport.backends.keras.parameters import parameters  # noqa: E402

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def torch_weights(kind: str, layers: int, directions: int, bias: bool = True) -> dict[str, np.ndarray]:
    rows = GATES[kind] * 5
    found = {}
    for level in range(layers):
        for end in ("", "_reverse")[:directions]:
            width = 3 if level == 0 else 5 * directions
            found[f"weight_ih_l{level}{end}"] = draw(rows, width, seed=len(found))
            found[f"weight_hh_l{level}{end}"] = draw(rows, 5, seed=len(found) + 50) * 0.5
            if bias:
                found[f"bias_ih_l{level}{end}"] = draw(rows, seed=len(found))
                found[f"bias_hh_l{level}{end}"] = draw(rows, seed=len(found))
    return found


def recurrent(kind: Any, weights: Mapping[str, np.ndarray], states: bool = False, **options: Any) -> ir.Model:
    """A graph that returns the output and the last states of one stack called `rnn`."""
    tape = ir.tape.Tape()
    x = tensor("x", ("batch", 6, 3) if options.get("batch_first") else (6, "batch", 3))
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    names = ("h0", "c0")[: 2 if kind == "LSTM" else 1] if states else ()
    given = {name: tensor(name, (count, "batch", 5)) for name in names}
    values = {name: weight(tape, f"rnn.{name}", array) for name, array in weights.items()}
    results = emit_recurrent(tape, kind, x, values, hidden_size=5, name="rnn", **given, **options)
    model = model_of(tape, [x, *given.values()], [value for value in results if value is not None])
    set_roles(model, {f"rnn.{name}": "parameter" for name in weights})
    return model


def check(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> keras.Model:
    """Build, and compare with ONNX Runtime."""
    built = build(model)
    assert not [note for note in built.notes if note.kind == "fallback"]
    values = list(inputs.values())
    found = built.native(values if len(values) > 1 else values[0])
    for mine, theirs in zip(found, run(model, inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    return built.native


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("layout", ["time first", "batch first", "bidirectional", "reverse", "stacked"])
def test_a_recurrent_layer_is_one_of_keras(kind: str, layout: str) -> None:
    options: dict[str, Any] = {
        "time first": {},
        "batch first": {"batch_first": True},
        "bidirectional": {"bidirectional": True, "batch_first": True, "num_layers": 2},
        "reverse": {"reverse": True, "batch_first": True},
        "stacked": {"num_layers": 3},
    }[layout]
    layers, directions = options.get("num_layers", 1), 2 if options.get("bidirectional") else 1
    weights = torch_weights(kind, layers, directions)
    shape = (2, 6, 3) if options.get("batch_first") else (6, 2, 3)
    model = check(recurrent(kind, weights, **options), {"x": draw(*shape)})
    assert [layer.name for layer in model.layers[1:]] == ["rnn", *(f"rnn.l{i}" for i in range(1, layers))]
    assert set(parameters(model)) == {f"rnn.{name}" for name in weights}


@pytest.mark.parametrize("kind", GATES)
def test_a_recurrent_layer_starts_from_the_given_states(kind: str) -> None:
    weights = torch_weights(kind, 2, 2)
    model = recurrent(kind, weights, states=True, num_layers=2, bidirectional=True)
    inputs = {"x": draw(6, 2, 3)}
    for value in model.graph.inputs[1:]:
        inputs[str(value.name)] = draw(4, 2, 5, seed=len(inputs))
    check(model, inputs)


def test_biases_may_be_absent() -> None:
    weights = torch_weights("LSTM", 1, 1, bias=False)
    model = check(recurrent("LSTM", weights, batch_first=True), {"x": draw(2, 6, 3)})
    assert set(parameters(model)) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


def test_dropout_between_stacked_layers_is_kept() -> None:
    model = check(recurrent("GRU", torch_weights("GRU", 2, 1), num_layers=2, dropout=0.3), {"x": draw(6, 2, 3)})
    (layer,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert layer.rate == pytest.approx(0.3)


def test_partly_frozen_recurrent_weights_are_computed_under_their_names() -> None:
    weights = torch_weights("LSTM", 1, 1)
    model = recurrent("LSTM", weights, batch_first=True)
    set_roles(model, {f"rnn.{name}": "frozen" if "hh" in name else "parameter" for name in weights})
    native = check(model, {"x": draw(2, 6, 3)})
    home = parameters(native)
    for name, array in weights.items():
        np.testing.assert_array_equal(home[f"rnn.{name}"], array)
    assert {v.path.split("/")[0] for v in native.trainable_variables} == {"rnn.weight_ih_l0", "rnn.bias_ih_l0"}


def test_a_layer_of_which_the_last_step_is_read_gives_no_others() -> None:
    tape = ir.tape.Tape()
    x = tensor("x", ("batch", 6, 3))
    weights = torch_weights("LSTM", 2, 1)
    values = {name: weight(tape, f"rnn.{name}", array) for name, array in weights.items()}
    output, *_ = emit_recurrent(tape, "LSTM", x, values, hidden_size=5, num_layers=2, batch_first=True, name="rnn")
    last = tape.initializer(ir.tensor(np.array(-1), name="last"))
    model = model_of(tape, [x], [tape.op("Gather", [output, last], {"axis": 1})])
    set_roles(model, {f"rnn.{name}": "parameter" for name in weights})
    array = draw(4, 6, 3)
    native = build(model).native
    lstms = [layer for layer in native.layers if isinstance(layer, keras.layers.LSTM)]
    assert [layer.return_sequences for layer in lstms] == [True, False]
    np.testing.assert_allclose(native(array), run(model, {"x": array})[0], rtol=1e-5, atol=1e-5)
