"""What is learned from: the forms that data and targets may have, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.errors import DataError, StepError
from modelport.graph.normal import normalize
from modelport.training.finetune import finetune
from modelport.verbs.subject import exported
from tests.training.small import BACKENDS, CASES, form, losses

pytestmark = pytest.mark.xdist_group("training")

X, Y = CASES["perceptron"].x, CASES["perceptron"].y
NAME = "input"


@cache
def _graph(model: mp.Model) -> Any:
    return normalize(exported(model).graph)


def _fit(model: mp.Model, data: Any, **settings: Any) -> list[float]:
    return [
        epoch.loss for epoch in finetune(_graph(model), mp.FineTune(data, **settings), backend=model.backend).epochs
    ]


def _net(*layers: Any, x: np.ndarray = X) -> mp.Model:
    """Layers of torch as a `Model`."""
    import torch
    from torch import nn

    return mp.transfer(nn.Sequential(*layers).eval(), to="torch", example=torch.from_numpy(x[:4]))


def _halves() -> Iterator[Any]:
    yield X[:16], Y[:16]
    yield X[16:], Y[16:]


def _loader() -> Any:
    from torch import from_numpy
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(from_numpy(X), from_numpy(Y)), batch_size=16)


def _dataset() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


def _tensors() -> Any:
    import tensorflow as tf
    import torch

    return torch.from_numpy(X), tf.constant(Y)


THIRDS = [(X[start : start + 16], Y[start : start + 16]) for start in (0, 16, 32)]
BATCHES: dict[str, Callable[[], Any]] = {
    "list": lambda: THIRDS,
    "lists in a list": lambda: [list(pair) for pair in THIRDS],
    "function": lambda: lambda: iter(THIRDS),
    "DataLoader": _loader,
    "tf.data.Dataset": _dataset,
}


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return _fit(form("perceptron", "torch"), THIRDS, epochs=2)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_batches_come_in_many_forms(kind: str, backend: str, expected: list[float]) -> None:
    np.testing.assert_allclose(_fit(form("perceptron", backend), BATCHES[kind](), epochs=2), expected, rtol=1e-4)


def test_arrays_come_in_many_forms() -> None:
    model = form("perceptron", "torch")
    wanted = _fit(model, (X, Y))
    for data in (({NAME: X}, {"output": Y}), ((X,), Y), (X, Y[:, None]), (X, Y.tolist()), _tensors()):
        assert _fit(model, data) == wanted


def test_the_first_rows_of_the_data_are_an_example() -> None:
    import torch

    for data in ((X, Y), THIRDS, (torch.from_numpy(X), torch.from_numpy(Y))):
        torch.manual_seed(0)
        made = mp.compress(CASES["perceptron"].net().eval(), mp.FineTune(data))
        assert made.signature.inputs[0].shape == ("batch", 6)


def test_several_inputs_of_integers_and_floats() -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        """A kind and some numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.kind, self.line, self.out = nn.Embedding(5, 4), nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
            return self.out(torch.relu(self.line(x) + self.kind(kind)))

    kinds = np.arange(48) % 5
    model = mp.transfer(Net().eval(), to="torch", example=(torch.from_numpy(X[:4]), torch.from_numpy(kinds[:4])))
    wanted = _fit(model, ((X, kinds), Y))
    assert _fit(model, ({"x": X, "kind": kinds}, Y)) == wanted
    assert _fit(mp.transfer(model, to="keras"), ((X, kinds), Y)) == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(DataError, match="takes 2"):
        _fit(model, (X, Y))
    with pytest.raises(DataError, match="48 in input 'x' but 7"):
        _fit(model, ((X, kinds[:7]), Y))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fixed_number_of_rows_gets_as_many(backend: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    given = keras.Input((6,), batch_size=4)
    net = keras.Model(given, keras.layers.Dense(3)(keras.layers.Dropout(0.3)(given)))
    made = mp.compress(mp.transfer(net, to=backend), mp.FineTune((X[:30], Y[:30]), epochs=6, learning_rate=1e-2))
    assert losses(made)[-1] < losses(made)[0]


def test_an_iterator_is_empty_in_the_second_epoch() -> None:
    model = form("perceptron", "torch")
    assert len(_fit(model, _halves())) == 1
    with pytest.raises(DataError, match=r"no batches in epoch 2.*function"):
        _fit(model, _halves(), epochs=2)
    with pytest.raises(DataError, match="no batches in epoch 1"):
        _fit(model, [])
    with pytest.raises(DataError, match="validation has no batches any more"):
        _fit(model, (X, Y), epochs=2, validation=_halves())


HOLED = np.where(np.arange(48) == 3, np.nan, X.T).T.astype(np.float32)
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a number": (3, {}, "pair"),
    "no targets": (X, {}, "pair"),
    "a dict without targets": ({NAME: X}, {}, "pair"),
    "no rows": ((X[:0], Y[:0]), {}, "empty"),
    "NaN": ((HOLED, Y), {}, "NaN"),
    "NaN in targets": ((X, HOLED[:, :3]), {"loss": "mse"}, "NaN"),
    "columns": ((X[:, :4], Y), {}, "size 4 on axis 1"),
    "columns of a batch": ([(X, Y), (X[:, :4], Y)], {}, "size 4 on axis 1"),
    "fewer targets": ((X, Y[:7]), {}, "48 rows"),
    "texts": ((X, np.full(48, "a")), {}, "integer classes"),
    "no array": ((X, [[1], [1, 2]] + [[3]] * 46), {}, "no array"),
    "one-hot": ((X, np.eye(3)[Y]), {}, "integer classes"),
    "a class too many": ((X, Y + 1), {}, "classes 0 to 2, and not 1 to 3"),
    "a class below": ((X, Y - 1), {}, "classes 0 to 2"),
    "too narrow": ((X, X[:, :1]), {"loss": "mse"}, "takes"),
    "too wide": ((X, X), {"loss": "mse"}, "takes"),
    "no probabilities": ((X, X[:, :3]), {"loss": "binary_cross_entropy"}, "from 0 to 1"),
    "an unknown output": ((X, {"other": Y}), {}, "'other'"),
    "no output": ((X, {}), {}, "no targets for the output"),
    "validation": ((X, Y), {"validation": (X, Y + 1)}, "classes 0 to 2"),
}


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_data_that_do_not_fit_are_refused(backend: str) -> None:
    model = form("perceptron", backend)
    before = {name: array.tobytes() for name, array in model.parameters().items()}
    for data, settings, told in WRONG.values():
        with pytest.raises(DataError, match=told):
            _fit(model, data, **settings)
    assert {name: array.tobytes() for name, array in model.parameters().items()} == before


def test_positions_without_a_class_are_left_out() -> None:
    case, model = CASES["transformer"], form("transformer", "torch")
    some = np.where(np.arange(5) < 3, np.abs(case.y) % 4, -100)
    settings = {"batch_size": 40, "learning_rate": 1e-9}
    logits = model(case.x)[:, :3].astype(np.float64)
    said = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.take_along_axis(said, some[:, :3, None], -1).mean()
    step = mp.FineTune((case.x, some), validation=(case.x, some), **settings)  # type: ignore[arg-type]
    (epoch,) = finetune(_graph(model), step, backend="torch").epochs
    assert epoch.validation == pytest.approx(wanted, rel=1e-4)
    for columns in (3, 6):
        with pytest.raises(DataError, match=r"takes \(\d+, 5\)"):
            _fit(model, (case.x, np.zeros((40, columns), np.int64)))


def test_classes_of_images_are_on_the_last_axis() -> None:
    from torch import nn

    images = CASES["images"].x
    model = _net(nn.Conv2d(2, 3, 1), x=images)
    with pytest.raises(DataError, match="classes on its last axis"):
        _fit(model, (images, np.zeros((48, 8, 8), np.int64)))


def test_probabilities_learn_as_their_logits_do() -> None:
    import torch
    from torch import nn

    def net(width: int, *tail: Any) -> mp.Model:
        torch.manual_seed(0)
        return _net(nn.Linear(6, width), *tail)

    tails = ((), (nn.Softmax(-1),), (nn.LogSoftmax(-1),))
    classes = [_fit(net(3, *tail), (X, Y))[0] for tail in tails]
    assert classes == pytest.approx([classes[0]] * 3, rel=1e-5)
    yes = Y > 0
    forms = (yes, yes.astype(np.float32)[:, None], yes.astype(np.int32))
    models = [net(1), net(1, nn.Sigmoid())]
    binary = [_fit(model, (X, y), loss="binary_cross_entropy")[0] for model in models for y in forms]
    assert binary == pytest.approx([binary[0]] * 6, rel=1e-5)


def test_a_column_may_be_left_out_on_either_side() -> None:
    from torch import nn

    model = _net(nn.Linear(6, 1))
    assert _fit(model, (X, X[:, 0]), loss="mse") == _fit(model, (X, X[:, :1]), loss="mse")
    flat = _net(nn.Linear(6, 1), nn.Flatten(0))
    assert _fit(flat, (X, X[:, 0]), loss="mse") == _fit(flat, (X, X[:, :1]), loss="mse")


def test_each_output_has_a_loss() -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        """Three heads."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.kind, self.size, self.rest = (
                nn.Linear(6, 8),
                nn.Linear(8, 3),
                nn.Linear(8, 1),
                nn.Linear(8, 2),
            )

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            inside = torch.relu(self.body(x))
            return {"kind": self.kind(inside), "size": self.size(inside), "rest": self.rest(inside)}

    source, told = mp.transfer(Net().eval(), to="torch", example=torch.from_numpy(X[:4])), []
    loss = {"kind": "cross_entropy", "size": "mse"}
    for backend in BACKENDS:
        model = mp.transfer(source, to=backend)
        step = mp.FineTune((X, {"kind": Y, "size": X[:, 0]}), loss=loss, epochs=2, weight_decay=0.5)
        made = mp.compress(model, step)
        told.append(losses(made))
        before, after = model.parameters(), made.parameters()
        # What no loss reads learns nothing, and does not decay.
        assert {name for name in before if np.array_equal(before[name], after[name])} == {"rest.weight", "rest.bias"}
    np.testing.assert_allclose(told[1:], [told[0]] * 2, rtol=1e-4)
    assert _fit(source, (X, Y), loss="cross_entropy")
    with pytest.raises(DataError, match="no targets for the output 'size'"):
        _fit(source, (X, Y), loss=loss)


def test_a_loss_may_be_the_frameworks_own() -> None:
    import keras
    import torch

    wanted = _fit(form("perceptron", "torch"), (X, Y))
    own = torch.nn.CrossEntropyLoss()
    assert _fit(form("perceptron", "torch"), (X, Y), loss=own) == pytest.approx(wanted, rel=1e-5)
    assert _fit(form("perceptron", "onnx"), (X, Y), loss=own) == pytest.approx(wanted, rel=1e-5)

    def mean(output: Any, target: Any) -> Any:
        return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(target, output, from_logits=True))

    for loss in (mean, keras.losses.SparseCategoricalCrossentropy(from_logits=True)):
        assert _fit(form("perceptron", "keras"), (X, Y), loss=loss) == pytest.approx(wanted, rel=1e-5)


def test_a_loss_that_is_no_scalar_or_has_no_gradient_is_refused() -> None:
    import keras
    import torch

    each = torch.nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(StepError, match="let it give the mean"):
        _fit(form("perceptron", "torch"), (X, Y), loss=each)
    with pytest.raises(StepError, match="let it give the mean"):
        _fit(form("perceptron", "keras"), (X, Y), loss=lambda output, target: keras.ops.sum(output, -1))
    with pytest.raises(StepError, match="no gradients"):
        _fit(form("perceptron", "torch"), (X, Y), loss=lambda output, target: output.detach().mean())
