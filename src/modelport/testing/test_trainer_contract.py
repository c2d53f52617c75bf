"""What `Trainer.fit` promises, on small portable graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from modelport.core.backend import Backend, Trainer
from modelport.core.errors import StepError
from modelport.core.signature import Arrays
from modelport.core.training import BETAS, EPSILON, Batch, Epoch, Plan, Term
from modelport.graph.signature import read_signature
from modelport.testing.conformance import find_backend
from modelport.testing.graphs import GRAPHS, draw, expected, weights

RATE = 0.01


@pytest.fixture
def trainer(modelport_backend: str) -> Any:
    """The backend under test, where it trains."""
    backend = find_backend(modelport_backend)
    if not isinstance(backend, Trainer):
        pytest.skip(f"{backend.name} is no Trainer")
    return backend


class _Task:
    """A graph, its native model, and one batch with targets for its first output."""

    def __init__(self, backend: Backend, graph: str, *, targets: np.ndarray | None = None) -> None:
        self.model = GRAPHS[graph]()
        self.backend, self.signature = backend, read_signature(self.model)
        self.native = backend.build(self.model).native
        self.inputs = draw(self.signature, 8)
        self.output, self.before = next(iter(expected(self.model, self.inputs).items()))
        self.targets = {"y": np.zeros_like(self.before) if targets is None else targets}

    def plan(self, **settings: Any) -> Plan:
        term = Term("mse", self.output, "y")
        return Plan(**{"terms": (term,), "epochs": 1, "learning_rate": RATE, **settings})

    def fit(self, plan: Plan, on_epoch: Callable[[Epoch], bool] = lambda epoch: False) -> tuple[Epoch, ...]:
        assert isinstance(self.backend, Trainer)
        return self.backend.fit(self.native, self.batches, plan, self.signature, on_epoch)

    def batches(self, epoch: int) -> Iterable[Batch]:
        return [Batch(self.inputs, self.targets)]

    def parameters(self) -> Arrays:
        return self.backend.parameters(self.native)

    def trained(self) -> list[str]:
        return [name for name in weights(self.model) if "running" not in name]


@pytest.fixture
def task(trainer: Any) -> _Task:
    """A Linear layer with weights and nothing drawn at random."""
    return _Task(trainer, "loose_weights")


def test_the_first_step_is_that_of_adamw(task: _Task) -> None:
    before = task.parameters()
    slope = 2 * (task.before - task.targets["y"]) / task.before.size
    gradients = task.backend.gradients(task.native, task.inputs, {task.output: slope}, task.signature)  # type: ignore[attr-defined]
    task.fit(task.plan(weight_decay=0.5))
    for name in task.trained():
        # With m and v corrected for their start, the first update is g over |g|, and epsilon is corrected as v is.
        epsilon = EPSILON / np.sqrt(1 - BETAS[1])
        step = gradients[name] / (np.abs(gradients[name]) + epsilon) + 0.5 * before[name]
        np.testing.assert_allclose(task.parameters()[name], before[name] - RATE * step, rtol=1e-4, atol=2e-5)


def test_the_loss_falls_and_every_epoch_is_told(task: _Task) -> None:
    told: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> bool:
        told.append(epoch)
        return False

    epochs = task.fit(task.plan(epochs=20), on_epoch)
    assert list(epochs) == told
    assert [epoch.number for epoch in epochs] == list(range(20))
    assert epochs[0].loss == pytest.approx(float(np.mean(np.square(task.before))), rel=1e-4)
    assert epochs[-1].loss < epochs[0].loss


def test_training_stops_where_it_is_told_to(task: _Task) -> None:
    assert len(task.fit(task.plan(epochs=9), lambda epoch: epoch.number == 2)) == 3


def test_a_cosine_makes_the_last_steps_the_smallest(task: _Task) -> None:
    values: list[Arrays] = [task.parameters()]

    def on_epoch(epoch: Epoch) -> bool:
        values.append(task.parameters())
        return False

    task.fit(task.plan(epochs=8, schedule="cosine"), on_epoch)
    name = task.trained()[0]
    moves = [float(np.abs(after[name] - before[name]).max()) for before, after in pairwise(values)]
    assert moves[0] == pytest.approx(RATE, rel=1e-2)
    assert moves[-1] < 0.2 * moves[0]


def test_the_validation_loss_is_that_of_inference(trainer: Any) -> None:
    task = _Task(trainer, "perceptron")
    epochs = task.fit(task.plan(epochs=2, learning_rate=1e-12, validation=lambda: task.batches(0)))
    for epoch in epochs:
        assert epoch.validation == pytest.approx(float(np.mean(np.square(task.before))), rel=1e-4)


def test_frozen_parameters_stay_and_the_rest_moves(task: _Task) -> None:
    before, frozen = task.parameters(), task.trained()[:1]
    task.fit(task.plan(frozen=frozenset(frozen)))
    for name in task.trained():
        assert np.array_equal(before[name], task.parameters()[name]) == (name in frozen), name


def test_a_frozen_normalization_counts_no_statistics(trainer: Any) -> None:
    for freeze in (False, True):
        task = _Task(trainer, "convolution")
        before = task.parameters()
        norm = [name for name in task.trained() if f"{name.rpartition('.')[0]}.running_mean" in before]
        task.fit(task.plan(frozen=frozenset(norm if freeze else ())))
        for name in (name for name in before if "running" in name):
            assert np.array_equal(before[name], task.parameters()[name]) == freeze, name


def test_masked_elements_are_zero_after_each_step(task: _Task) -> None:
    name = task.trained()[0]
    mask = np.random.default_rng(3).integers(0, 2, task.parameters()[name].shape)
    task.fit(task.plan(epochs=3, masks={name: mask}))
    after = task.parameters()[name]
    assert not after[mask == 0].any()
    assert after[mask == 1].all()


def test_nothing_left_to_train_is_refused(task: _Task) -> None:
    with pytest.raises(StepError, match="no parameter is left"):
        task.fit(task.plan(frozen=frozenset(task.trained())))


def test_a_loss_that_is_not_finite_is_refused(task: _Task) -> None:
    task.targets = {"y": np.full_like(task.before, np.nan)}
    with pytest.raises(StepError, match="epoch 1"):
        task.fit(task.plan())


def _rows(shape: tuple[int, ...]) -> Iterator[tuple[Any, Arrays, float]]:
    """A kind of loss, targets for outputs of a shape, and the loss of outputs that are all zero."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, shape[-1], shape[:-1])
    counted = (np.arange(classes.size).reshape(classes.shape) % 2).astype(np.float32)
    yield "cross_entropy", {"y": classes, "counted": counted}, float(np.log(shape[-1]))
    yield "binary_cross_entropy", {"y": rng.random(shape).astype(np.float32)}, float(np.log(2))
    logits = rng.standard_normal(shape).astype(np.float32)
    soft = logits / 2 - np.log(np.exp(logits / 2).sum(-1, keepdims=True))
    divergence = float((np.exp(soft) * (soft + np.log(shape[-1]))).sum(-1).mean())
    yield "kl", {"y": logits}, divergence
    yield "mse", {"y": logits}, float(np.square(logits).mean())
    yield "nmse", {"y": logits}, 1.0


def test_each_kind_of_loss_is_what_its_formula_says(trainer: Any) -> None:
    for kind, targets, wanted in _rows(_Task(trainer, "perceptron").before.shape):
        task = _Task(trainer, "perceptron")
        trainer.assign(task.native, {name: np.zeros_like(array) for name, array in task.parameters().items()})
        task.targets = targets
        counted = "counted" if "counted" in targets else ""
        term = Term(kind, task.output, "y", weight=0.5, temperature=2 if kind == "kl" else 1, counted=counted)
        (epoch,) = task.fit(task.plan(terms=(term,)))
        assert epoch.loss == pytest.approx(0.5 * wanted, rel=1e-5), kind


def test_a_loss_may_be_a_function_of_the_tensors(task: _Task) -> None:
    first = (0,) * task.before.ndim
    term = Term(lambda output, target: (output[first] - target[first]) ** 2, task.output, "y")
    (epoch,) = task.fit(task.plan(terms=(term,)))
    assert epoch.loss == pytest.approx(float(task.before[first] ** 2), rel=1e-4)
