"""`Distill` as it is done: a student graph is trained on data and on what a teacher graph says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from modelport.core import registry
from modelport.core.signature import Arrays
from modelport.core.steps import Distill
from modelport.core.training import Batch, Term
from modelport.graph.signature import read_signature
from modelport.training.data import Data
from modelport.training.features import Pair, paired
from modelport.training.fit import Trained, fit
from modelport.training.objective import Head, giving, heads

_TEACHER = "/teacher"


def distill(teacher: ir.Model, student: ir.Model, step: Distill, *, backend: str) -> Trained:
    """The weights of a student as training leaves them.

    Args:
        teacher: in normal form; it stays as it is, and is run by ONNX Runtime.
        student: in normal form, with the teacher's signature; it stays as it is.
        step: what to train on, and how.
        backend: the one to train on; another one where it cannot.

    Raises:
        DataError: inputs or targets do not fit the graphs.
        StepError: see `fit`; or the step names a layer or an output that is not there.
    """
    pairs = list(zip(heads(teacher, step.loss, "Distill"), heads(student, step.loss, "Distill"), strict=True))
    learning, features = paired(teacher, student, step)
    said = _Teacher(teacher, [head for head, _ in pairs], features)
    data = _data(step, step.data, teacher, "data")
    validation = None
    if step.validation is not None:
        checked = _data(step, step.validation, teacher, "validation")

        def validation() -> Iterator[Batch]:
            return _told(checked.in_order(), step, pairs, said)

    terms = [term for pair in pairs for term in _terms(*pair, step)]
    terms += [Term("nmse", feature.student, feature.target, step.feature_weight) for feature in features]
    return fit(
        learning,
        step,
        tuple(terms),
        lambda epoch: _told(data.batches(epoch), step, pairs, said),
        backend=backend,
        validation=validation,
    )


def _data(step: Distill, data: object, teacher: ir.Model, what: str) -> Data:
    return Data(
        data,
        read_signature(teacher),
        batch_size=step.batch_size,
        seed=step.seed,
        targets=step.alpha < 1,
        what=f"Distill: {what}",
        hint=" Inputs alone are enough where alpha is 1.",
    )


def _terms(teacher: Head, student: Head, step: Distill) -> Iterator[Term]:
    """The two addends of an output's loss; the square of the temperature keeps the gradients' size (Hinton et al.)."""
    hard = student.term(1 - step.alpha)
    if step.alpha < 1:
        yield hard
    if step.alpha > 0:
        target, counted = f"{student.output}{_TEACHER}", hard.counted if step.alpha < 1 else ""
        soft = {"cross_entropy": "kl", "binary_cross_entropy": "binary_cross_entropy"}
        if callable(student.kind) or student.kind not in soft:
            yield Term("mse", student.label, target, weight=step.alpha)
        else:
            weight = step.alpha * step.temperature**2
            yield Term(soft[student.kind], student.label, target, weight, step.temperature, counted)  # type: ignore[arg-type]


def _told(
    batches: Iterator[Batch], step: Distill, pairs: Sequence[tuple[Head, Head]], teacher: _Teacher
) -> Iterator[Batch]:
    """Batches with the targets that the terms take, the teacher's among them."""
    for batch in batches:
        targets = teacher(batch.inputs, step.temperature)
        if step.alpha < 1:
            for _, head in pairs:
                targets.update(head.expected(batch))
        yield Batch(batch.inputs, targets)


class _Teacher:
    """What a graph says of inputs: the logits of its outputs and some values inside."""

    def __init__(self, graph: ir.Model, outputs: Sequence[Head], features: Sequence[Pair]) -> None:
        self._outputs, self._features = outputs, features
        part = giving(graph, [*(head.label for head in outputs), *(pair.teacher for pair in features)])
        self._backend, self._signature = registry.backend("onnx"), read_signature(part)
        self._native = self._backend.build(part).native

    def __call__(self, inputs: Arrays, temperature: float) -> Arrays:
        found = self._backend.run(self._native, inputs, self._signature)
        targets = {f"{head.output}{_TEACHER}": found[head.label] for head in self._outputs}
        for head in self._outputs:
            if head.kind == "binary_cross_entropy":
                name = f"{head.output}{_TEACHER}"
                targets[name] = 1 / (1 + np.exp(-targets[name] / temperature))
        return targets | {pair.target: pair.turned(found[pair.teacher]) for pair in self._features}
