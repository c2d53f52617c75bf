"""Training a graph: a framework's own model of it is trained, and its weights come back into the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from modelport.core.errors import StepError
from modelport.core.signature import Arrays
from modelport.core.steps import Training
from modelport.core.training import Batch, Epoch, Plan, Term
from modelport.graph.named import Named
from modelport.graph.signature import read_signature
from modelport.graph.weights import roles
from modelport.training.biases import with_single_biases
from modelport.training.dropout import with_draws
from modelport.training.objective import giving, renamed
from modelport.training.precision import in_single, single_precision
from modelport.training.statistics import Measured
from modelport.training.trainer import trainer


class Trained(NamedTuple):
    """Weights by portable name, and how they came about."""

    weights: Arrays
    epochs: tuple[Epoch, ...]


def fit(
    graph: ir.Model,
    step: Training,
    terms: tuple[Term, ...],
    batches: Callable[[int], Iterable[Batch]],
    *,
    backend: str,
    validation: Callable[[], Iterable[Batch]] | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
) -> Trained:
    """The weights of a graph as training leaves them.

    Args:
        graph: in normal form; it stays as it is.
        step: how to train.
        terms: of the loss, over values of the graph by their names.
        batches: of an epoch, counted from 0.
        backend: the one to train on; another one where it cannot.
        validation: batches that decide which epoch's weights are kept.
        masks: by portable name, 1 where a weight may be other than zero.

    Raises:
        DataError: a BatchNormalization has one value per channel to measure.
        StepError: no backend can train, nothing is left to train, or the loss is not finite.
    """
    name = type(step).__name__
    framework = trainer(backend, name)
    frozen = Named(step.freeze, graph, f"{name}: freeze")
    graph, doubled = with_single_biases(graph)
    single, labels = renamed(in_single(giving(graph, [term.output for term in terms])))
    signature, known = read_signature(single), roles(single)
    weights = graph.graph.initializers
    still = frozenset(new for old, new in labels.items() if old in doubled or frozen.weight(weights[old]))
    measured = Measured(single, signature, still | {each for each, role in known.items() if role == "frozen"})
    part, draws = with_draws(single, step.seed)

    def checked() -> Iterator[Batch]:
        for batch in () if validation is None else validation():
            yield draws.inference(single_precision(batch, signature))

    def drawn(epoch: int) -> Iterator[Batch]:
        for place, batch in enumerate(batches(epoch)):
            measured.check(batch)
            yield draws.training(single_precision(batch, signature), epoch, place)

    plan = Plan(
        terms,
        step.epochs,
        step.learning_rate,
        schedule=step.schedule,
        weight_decay=step.weight_decay,
        seed=step.seed,
        frozen=still,
        masks={labels[each]: mask for each, mask in (masks or {}).items() if each in labels},
        validation=None if validation is None else checked,
    )
    built = framework.build(part)
    best: list[tuple[float, Arrays]] = []

    def on_epoch(epoch: Epoch) -> bool:
        if epoch.validation is not None and (not best or epoch.validation < best[0][0]):
            best[:] = [(epoch.validation, framework.parameters(built.native))]
        return False

    try:
        epochs = framework.fit(built.native, drawn, plan, built.signature or read_signature(part), on_epoch)
    except StepError as error:
        raise StepError(f"{name}: {error}") from error
    found = best[0][1] if best else framework.parameters(built.native)
    return Trained({old: found[new] for old, new in labels.items() if new in found}, epochs)
