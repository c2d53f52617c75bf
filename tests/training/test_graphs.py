"""Graphs that others have made, and what is shared, frozen or drawn in a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import modelport as mp
from modelport.core.errors import StepError
from modelport.graph.normal import normalize
from modelport.training.finetune import finetune
from modelport.verbs.subject import exported, subject
from tests.training.small import BACKENDS, CASES, losses

pytestmark = pytest.mark.xdist_group("training")

X, Y = CASES["perceptron"].x, CASES["perceptron"].y
_RNG = np.random.default_rng(0)
WEIGHTS = {
    "onnx::MatMul_12": _RNG.standard_normal((6, 8)).astype(np.float32),
    "a:b/c": np.zeros(8, np.float32),
    "w w": _RNG.standard_normal((8, 3)).astype(np.float32),
    "/x/y.bias": np.zeros(3, np.float32),
}


def _foreign(as_nodes: bool = False, extra: Any = ()) -> onnx.ModelProto:
    """Two MatMuls whose weights have the names that exporters give them."""
    first, second, third, fourth = WEIGHTS
    nodes = [
        helper.make_node("MatMul", ["x", first], ["h"]),
        helper.make_node("Add", ["h", second], ["h1"]),
        helper.make_node("Relu", ["h1"], ["r"]),
        helper.make_node("MatMul", ["r", third], ["o"]),
        helper.make_node("Add", ["o", fourth], ["before" if extra else "y"]),
        *extra,
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    if as_nodes:
        nodes = [*(helper.make_node("Constant", [], [each.name], value=each) for each in tensors), *nodes]
    graph = helper.make_graph(
        nodes, "foreign", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])], [] if as_nodes else tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("as_nodes", [False, True])
@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_a_foreign_graph_learns_whatever_its_weights_are_called(as_nodes: bool, backend: str) -> None:
    proto = _foreign(as_nodes)
    before = proto.SerializeToString()
    graph = normalize(exported(subject(proto)).graph)
    step = mp.FineTune((X, Y), epochs=2, learning_rate=1e-2)
    trained = finetune(graph, step, backend=backend)
    assert proto.SerializeToString() == before
    assert set(trained.weights) == set(WEIGHTS)
    assert not any(np.array_equal(trained.weights[name], array) for name, array in WEIGHTS.items())
    made = mp.compress(proto, step)
    assert set(made.parameters()) == set(WEIGHTS)
    for name, array in made.parameters().items():
        np.testing.assert_allclose(array, trained.weights[name], atol=1e-4)


def test_strange_names_do_not_keep_a_keras_model_from_learning() -> None:
    model = mp.transfer(_foreign(), to="keras")
    assert model.native.predict(X, verbose=0).shape == (48, 3)
    step = mp.FineTune((X, Y), epochs=2, learning_rate=1e-2)
    np.testing.assert_allclose(losses(mp.compress(model, step)), losses(mp.compress(_foreign(), step)), rtol=1e-4)


def test_what_has_no_gradient_is_refused() -> None:
    extra = [
        helper.make_node("Unique", ["before"], ["u"]),
        helper.make_node("ReduceMean", ["u"], ["mean"], keepdims=0),
        helper.make_node("Add", ["before", "mean"], ["y"]),
    ]
    with pytest.raises(StepError, match="no gradients"):
        mp.compress(_foreign(extra=extra), mp.FineTune((X, Y)))
    with pytest.raises(StepError, match="no parameter is left"):
        mp.compress(_foreign(), mp.FineTune((X, Y), freeze=tuple(WEIGHTS)))


@pytest.fixture(scope="module")
def tied() -> mp.Model:
    import torch
    from torch import nn

    class Net(nn.Module):
        """The embedding is the output layer too."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.inside, self.out = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.inside(self.table(ids))))

    torch.manual_seed(0)
    return mp.transfer(Net().eval(), to="torch", example=torch.from_numpy(CASES["transformer"].x[:4]))


def test_tied_weights_learn_once_and_stay_tied(tied: mp.Model) -> None:
    ids, told = CASES["transformer"].x, []
    for backend in BACKENDS:
        model = mp.transfer(tied, to=backend)
        made = mp.compress(model, mp.FineTune((ids, ids), epochs=2, learning_rate=1e-2, weight_decay=0.5))
        told.append((losses(made), made.parameters()["table.weight"]))
        assert made.parameters().get("out.weight", told[-1][1]) is not None
        np.testing.assert_array_equal(made.parameters().get("out.weight", told[-1][1]), told[-1][1])
        assert made.aliases == model.aliases
        frozen = mp.compress(model, mp.FineTune((ids, ids), learning_rate=1e-2, freeze="out"))
        np.testing.assert_array_equal(frozen.parameters()["table.weight"], model.parameters()["table.weight"])
    for epochs, table in told[1:]:
        np.testing.assert_allclose(epochs, told[0][0], rtol=1e-4)
        np.testing.assert_allclose(table, told[0][1], atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_the_source_froze_stays_and_counts_nothing(backend: str) -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    for parameter in (*net[1].parameters(), net[0].weight):
        parameter.requires_grad_(False)
    model = mp.transfer(net, to=backend, example=torch.from_numpy(X[:4]))
    before, after = model.parameters(), mp.compress(model, mp.FineTune((X, Y), learning_rate=1e-2)).parameters()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_branch_learns(backend: str) -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        """One way or the other."""

        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside = self.line(x)
            return torch.cond(inside.sum() > 0, lambda h: h * 2, lambda h: h - 1, (inside,))

    model = mp.transfer(Net().eval(), to=backend, example=torch.from_numpy(X[:4]))
    made = mp.compress(model, mp.FineTune((X, Y), learning_rate=1e-2))
    assert not np.array_equal(made.parameters()["line.weight"], model.parameters()["line.weight"])


def test_a_dropout_of_everything_is_no_nan() -> None:
    from torch import nn

    net = nn.Sequential(nn.Linear(6, 4), nn.Dropout(1.0), nn.Linear(4, 3)).eval()
    assert np.isfinite(losses(mp.compress(net, mp.FineTune((X, Y))))[0])
