"""Recurrent layers are found again, with torch's parameters, in what exporters make of them."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from modelport.graph.layers.recognize import BUILD_DOMAIN, recognize_layers
from modelport.graph.layers.recurrent_emit import emit_recurrent
from modelport.graph.normal import normalize
from modelport.graph.weights import roles, set_roles
from tests.graph.running import model_of, tensor, weight
from tests.graph.test_recurrent import FEATURES, HIDDEN, emitted

CELLS = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}


def recognized(model: ir.Model) -> ir.Model:
    return recognize_layers(normalize(model))


def as_torch(node: ir.Node) -> torch.nn.RNNBase:
    """The torch layer that a node says, with its parameters."""
    get = node.attributes.get_int
    states = 2 if node.op_type == "LSTM" else 1
    values = node.inputs[1 + states :]
    options = {"nonlinearity": node.attributes.get_string("nonlinearity")} if node.op_type == "RNN" else {}
    assert get("linear_before_reset", 1) == 1
    layer = CELLS[node.op_type](
        values[0].shape[1],
        get("hidden_size"),
        num_layers=get("num_layers"),
        bidirectional=bool(get("bidirectional")),
        batch_first=bool(get("batch_first")),
        bias=values[2] is not None,
        dropout=node.attributes.get_float("dropout"),
        **options,
    )
    given = [value for value in values if value is not None]
    for parameter, value in zip(layer.parameters(), given, strict=True):
        parameter.data = torch.from_numpy(value.const_value.numpy().copy())
    return layer.eval()


def run_layer(model: ir.Model, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs of a graph that is nothing but one layer."""
    (node,) = model.graph
    assert node.domain == BUILD_DOMAIN
    layer = as_torch(node)
    x, *states = map(torch.from_numpy, arrays)
    if node.attributes.get_int("reverse"):
        x = x.flip(1 if layer.batch_first else 0)
    hx = None if not states else states[0] if len(states) == 1 else tuple(states)
    output, last = layer(x, hx)
    if node.attributes.get_int("reverse"):
        output = output.flip(1 if layer.batch_first else 0)
    results = dict(zip(node.outputs, (output, *(last if isinstance(last, tuple) else (last,))), strict=True))
    return [results[value].detach().numpy() for value in model.graph.outputs]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["LSTM", "GRU", "RNN"]),
    options=st.fixed_dictionaries(
        {"num_layers": st.integers(1, 3), "bidirectional": st.booleans(), "batch_first": st.booleans()}
    ),
    bias=st.booleans(),
    relu=st.booleans(),
    dropout=st.sampled_from([0.0, 0.25]),
    states=st.booleans(),
    reverse=st.booleans(),
)
def test_recognising_inverts_emitting(kind, options, bias, relu, dropout, states, reverse):
    if kind == "RNN":
        options = {**options, "nonlinearity": "relu" if relu else "tanh"}
    dropout = dropout if options["num_layers"] > 1 else 0.0
    reverse = reverse and not options["bidirectional"]
    layer = CELLS[kind](FEATURES, HIDDEN, bias=bias, dropout=dropout, **options)
    model = emitted(layer, states=states, reverse=reverse)

    found = recognized(model)

    (node,) = found.graph
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    expected = {**options, "hidden_size": HIDDEN, "reverse": reverse, "dropout": dropout}
    assert {name: attributes[name] for name in expected} == expected
    assert (node.op_type, node.name) == (kind, "net")
    count = 2 if kind == "LSTM" else 1
    names = [value and value.name for value in node.inputs]
    assert names[: 1 + count] == ["x", *(["h0", "c0"][:count] if states else [None] * count)]
    assert [name for name in names[1 + count :] if name] == [f"net.{name}" for name, _ in layer.named_parameters()]
    assert [value.name for value in found.graph.outputs] == [value.name for value in model.graph.outputs]
    assert [tuple(map(str, v.shape)) for v in found.graph.outputs] == [
        tuple(map(str, value.shape)) for value in normalize(model).graph.outputs
    ]


class Holder(torch.nn.Module):
    """A layer inside a module, so that its parameters have a path."""

    def __init__(self, layer):
        super().__init__()
        self.rnn = layer

    def forward(self, x, h=None, c=None):
        return self.rnn(x, h if c is None else (h, c))


@pytest.mark.parametrize(
    ("kind", "options", "states"),
    [
        ("LSTM", {"batch_first": True, "num_layers": 2}, False),
        ("LSTM", {"bias": False}, True),
        ("GRU", {"bidirectional": True, "batch_first": True}, False),
        ("GRU", {"bidirectional": True, "num_layers": 2}, True),
    ],
)
def test_what_torch_exports_is_found_again(kind, options, states):
    torch.manual_seed(0)
    layer = CELLS[kind](FEATURES, HIDDEN, **options)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    names = ["x", "h", "c"][: 1 + ((2 if kind == "LSTM" else 1) if states else 0)]
    shapes = {"x": (3, 5, FEATURES) if layer.batch_first else (5, 3, FEATURES)}
    inputs = {name: torch.randn(shapes.get(name, (rows, 3, HIDDEN))) for name in names}
    dims = {name: {0 if name == "x" and layer.batch_first else 1: torch.export.Dim("batch")} for name in names}
    logging.getLogger("torch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.onnx.export(
            Holder(layer).eval(),
            kwargs=inputs,
            dynamo=True,
            optimize=False,
            opset_version=21,
            verbose=False,
            dynamic_shapes=dims,
        ).model

    found = recognized(model)

    want = Holder(layer).eval()(**inputs)
    want = [want[0], *(want[1] if isinstance(want[1], tuple) else (want[1],))]
    got = run_layer(found, *(value.numpy() for value in inputs.values()))
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert found.graph[0].name == "rnn"
    assert found.graph[0].attributes.get_int("batch_first") == int(layer.batch_first)


def onnx_layer(kind: str, rng: np.random.Generator, *, bias: bool = True, **attributes) -> ir.Model:
    """A foreign graph: one operator with its weights as they are in ONNX."""
    tape = ir.tape.Tape()
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    rows = 2 if attributes.get("direction") == "bidirectional" else 1
    x = tensor("x", ["seq", "batch", FEATURES])
    w = weight(tape, "W", rng.standard_normal((rows, gates * HIDDEN, FEATURES), np.float32))
    r = weight(tape, "R", rng.standard_normal((rows, gates * HIDDEN, HIDDEN), np.float32))
    b = weight(tape, "B", rng.standard_normal((rows, 2 * gates * HIDDEN), np.float32)) if bias else None
    outputs = tape.op_multi_out(
        kind, [x, w, r, b][: 4 if bias else 3], {"hidden_size": HIDDEN, **attributes}, num_outputs=2, name="/net/cell"
    )
    return model_of(tape, [x], outputs)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("bias", [True, False])
def test_weights_in_onnx_layout_become_new_parameters(kind, direction, bias):
    rng = np.random.default_rng(0)
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    model = onnx_layer(kind, rng, bias=bias, direction=direction, **options)
    x = rng.standard_normal((5, 2, FEATURES), np.float32)

    found = recognized(model)

    node = next(node for node in found.graph if node.domain == BUILD_DOMAIN)
    names = {value.name for value in node.inputs[2:] if value is not None and value.name != "x"}
    assert set(found.graph.initializers) >= names
    assert not {"W", "R", "B"} & set(found.graph.initializers)
    assert roles(found) == dict.fromkeys(names, "parameter")
    assert all(name.startswith("net.cell.") for name in names)
    want = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    layer = as_torch(node)
    reverse = direction == "reverse"
    output, last = layer(torch.from_numpy(x[::-1].copy() if reverse else x))
    output = output.detach().numpy()[::-1] if reverse else output.detach().numpy()
    y = output.reshape(5, 2, 2 if direction == "bidirectional" else 1, HIDDEN).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(y, want[0], rtol=1e-4, atol=1e-5)
    last = last[0] if kind == "LSTM" else last
    np.testing.assert_allclose(last.detach().numpy(), want[1], rtol=1e-4, atol=1e-5)
    assert [tuple(map(str, value.shape)) for value in found.graph.outputs] == [
        tuple(map(str, value.shape)) for value in normalize(model).graph.outputs
    ]


@pytest.mark.parametrize(
    "attributes",
    [{"clip": 1.0}, {"activations": ["Relu", "Tanh", "Tanh"]}, {"input_forget": 1}],
)
def test_an_operator_with_settings_that_no_layer_has_stays(attributes):
    found = recognized(onnx_layer("LSTM", np.random.default_rng(0), **attributes))

    assert [node.domain for node in found.graph] == [""]
    assert set(found.graph.initializers) == {"W", "R", "B"}


def test_computed_weights_stay_weights():
    rng = np.random.default_rng(0)
    tape = ir.tape.Tape()
    x = tensor("x", ["seq", "batch", FEATURES])
    w = weight(tape, "W", rng.standard_normal((1, 4 * HIDDEN, FEATURES), np.float32))
    r = weight(tape, "R", rng.standard_normal((1, 4 * HIDDEN, HIDDEN), np.float32))
    outputs = tape.op_multi_out("LSTM", [x, tape.op("Tanh", [w]), r], {"hidden_size": HIDDEN}, num_outputs=1)

    assert [node.op_type for node in recognized(model_of(tape, [x], outputs)).graph] == ["Tanh", "LSTM"]


def test_a_bias_of_zeros_is_a_parameter_where_it_has_the_role_of_one():
    tape = ir.tape.Tape()
    rng = np.random.default_rng(0)
    x = tensor("x", ["seq", "batch", FEATURES])
    shapes = {"weight_ih_l0": (16, FEATURES), "weight_hh_l0": (16, HIDDEN), "bias_ih_l0": (16,), "bias_hh_l0": (16,)}
    arrays = {
        name: np.zeros(s, np.float32) if "bias" in name else rng.random(s, np.float32) for name, s in shapes.items()
    }
    values = {name: weight(tape, f"a.{name}", array) for name, array in arrays.items()}
    model = model_of(tape, [x], [emit_recurrent(tape, "LSTM", x, values, hidden_size=HIDDEN).output])
    set_roles(model, dict.fromkeys(model.graph.initializers, "parameter"))

    (node,) = recognized(model).graph

    assert [value.name for value in node.inputs[3:]] == [f"a.{name}" for name in shapes]


def test_layers_of_different_modules_are_not_stacked():
    tape = ir.tape.Tape()
    x = tensor("x", ["seq", "batch", HIDDEN])
    rng = np.random.default_rng(0)
    y = x
    for path in ("a", "b"):
        shapes = {"weight_ih_l0": (12, HIDDEN), "weight_hh_l0": (12, HIDDEN)}
        values = {n: weight(tape, f"{path}.{n}", rng.random(s, np.float32)) for n, s in shapes.items()}
        y = emit_recurrent(tape, "GRU", y, values, hidden_size=HIDDEN).output

    assert [node.name for node in recognized(model_of(tape, [x], [y])).graph] == ["a", "b"]


def test_layers_exported_one_by_one_under_one_path_are_stacked():
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", "seq", HIDDEN])
    rng = np.random.default_rng(0)
    y, states = x, []
    for depth in range(3):
        shapes = {"weight_ih": (12, HIDDEN), "weight_hh": (12, HIDDEN)}
        values = {f"{n}_l0": weight(tape, f"a.{n}_l{depth}", rng.random(s, np.float32)) for n, s in shapes.items()}
        result = emit_recurrent(tape, "GRU", y, values, hidden_size=HIDDEN, batch_first=True)
        y = result.output
        states.append(result.h_n)
    model = model_of(tape, [x], [y, states[0], states[2]])

    found = recognized(model)

    assert [node.op_type for node in found.graph] == ["GRU", "Slice", "Slice"]
    assert found.graph[0].attributes.get_int("num_layers") == 3
    assert found.graph[0].attributes.get_int("batch_first") == 1
    assert [value.name for value in found.graph.outputs] == ["output_0", "output_1", "output_2"]


@pytest.mark.parametrize(("batch_first", "index", "taken"), [(True, -1, True), (False, 4, True), (True, 3, False)])
def test_the_last_step_is_read_from_the_last_state(batch_first, index, taken):
    tape = ir.tape.Tape()
    x = tensor("x", ("n", 5, 3) if batch_first else (5, "n", 3))
    layer = torch.nn.LSTM(3, 4, num_layers=2, batch_first=batch_first).eval()
    values = {name: weight(tape, f"rnn.{name}", p.detach().numpy()) for name, p in layer.named_parameters()}
    output, *_ = emit_recurrent(
        tape, "LSTM", x, values, hidden_size=4, num_layers=2, batch_first=batch_first, name="rnn"
    )
    number = tape.initializer(ir.tensor(np.array(index), name="index"))
    step = tape.op("Gather", [output, number], {"axis": 1 if batch_first else 0})
    model = model_of(tape, [x], [step])
    set_roles(model, {f"rnn.{name}": "parameter" for name in values})
    found = recognized(model)
    (node,) = (node for node in found.graph if node.domain == BUILD_DOMAIN)
    assert bool(node.outputs[1].uses()) == taken
    assert bool(node.outputs[0].uses()) != taken
