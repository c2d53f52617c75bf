"""What a framework is told when it trains a model: batches in, terms of a loss over named outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from modelport.core.errors import DataError, StepError
from modelport.core.progress import tracked
from modelport.core.signature import Arrays

Loss = Callable[[Any, Any], Any]
"""The loss of an output and its targets, a scalar, both tensors of the framework that trains."""

IGNORED = -100
"""The class of a row or a position that has none: no loss is taken there."""


class Epoch(NamedTuple):
    """What one pass through the data gave: its number from 0, the mean loss, and that on the validation data."""

    number: int
    loss: float
    validation: float | None = None


class Batch(NamedTuple):
    """Rows that are learned from at once: inputs by the signature's names, targets as the terms of a loss name them."""

    inputs: Arrays
    targets: Arrays


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of a loss.

    Attributes:
        kind: `"cross_entropy"`: of logits (..., classes) and integer classes (...). `"binary_cross_entropy"`: of
            logits, divided by the temperature, and probabilities of the same shape. `"kl"`: the Kullback-Leibler
            divergence of the softmax of the output from that of the target, both logits (..., classes) divided by the
            temperature (Hinton et al. 2015, section 2). `"mse"`: the mean squared difference. `"nmse"`: the same over
            the mean square of the target. Or a function of the framework's tensors.
        output: the name of the output.
        target: the name among a batch's targets.
        weight: the factor of this term in the sum.
        temperature: what logits are divided by.
        counted: the name of the target that is 1 where a row or position counts, and 0 where it does not; every one
            counts where it is empty. A term is the mean over those that count.
    """

    kind: Literal["cross_entropy", "binary_cross_entropy", "kl", "mse", "nmse"] | Loss
    output: str
    target: str
    weight: float = 1.0
    temperature: float = 1.0
    counted: str = ""


@dataclass(frozen=True)
class Plan:
    """How a model is trained: by AdamW (Loshchilov and Hutter 2019) on the sum of some terms.

    Attributes:
        terms: the addends of the loss.
        epochs: how often the data are gone through.
        learning_rate: of the first epoch.
        schedule: whether the learning rate stays, or falls to zero along half a cosine.
        weight_decay: the share of every weight, times the learning rate, that each step takes away.
        seed: of what the framework draws (Dropout).
        frozen: the portable names of parameters that are not trained; a layer that has no others is in inference mode.
        masks: by portable name, 1 where a parameter may be other than zero.
        validation: batches that the loss is measured on after each epoch, in inference mode.
    """

    terms: tuple[Term, ...]
    epochs: int
    learning_rate: float
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    seed: int = 0
    frozen: frozenset[str] = frozenset()
    masks: Mapping[str, Any] = field(default_factory=dict)
    validation: Callable[[], Iterable[Batch]] | None = None

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))


BETAS = (0.9, 0.999)
EPSILON = 1e-7
"""AdamW's further settings, the same in every framework so that one recipe gives one result; epsilon is added to the
root of the second moment before its correction (Kingma and Ba 2015, end of section 2)."""


def check_shapes(term: Term, output: Sequence[int | None], target: Sequence[int | None]) -> None:
    """Refuse targets that a loss of an output would stretch, or of which it would leave a part.

    Args:
        term: the addend of the loss; a function sees to its targets itself.
        output: the shape of its output; a size is `None` where it is not known yet.
        target: the shape of its targets.

    Raises:
        DataError: the shapes do not fit.
    """
    if callable(term.kind):
        return
    wanted = output[:-1] if term.kind == "cross_entropy" else output
    if len(wanted) != len(target) or any(
        None not in (first, second) and first != second for first, second in zip(wanted, target, strict=True)
    ):
        classes = ", with the classes on its last axis," if term.kind == "cross_entropy" else ""
        raise DataError(
            f"targets {term.target!r} have the shape {tuple(target)}, and {term.kind} of {term.output!r} "
            f"{tuple(output)}{classes} takes {tuple(wanted)}."
        )


def check_scalar(term: Term, shape: Sequence[int | None]) -> None:
    """Refuse a loss of the caller's that gives more than one number.

    Raises:
        StepError: it is no scalar.
    """
    if len(shape):
        raise StepError(f"the loss function of {term.output!r} gives a tensor {tuple(shape)}: let it give the mean.")


TINY = 1e-12
"""The least mean square that `"nmse"` divides by."""


def run_epochs(
    plan: Plan,
    batches: Callable[[int], Iterable[Batch]],
    on_epoch: Callable[[Epoch], bool],
    *,
    step: Callable[[Batch, float], Any],
    check: Callable[[Batch], Any],
) -> tuple[Epoch, ...]:
    """The loop that every framework has around its own step.

    Args:
        plan: how often.
        batches: see `Trainer.fit`.
        on_epoch: see `Trainer.fit`.
        step: learns from a batch at a learning rate, and returns the loss, as what `float` takes.
        check: the loss of a batch in inference mode.

    Raises:
        StepError: a loss is not finite.
    """
    done: list[Epoch] = []
    for number in range(plan.epochs):
        rate = plan.rate(number)
        loss = _mean(
            [step(batch, rate) for batch in tracked(batches(number), f"epoch {number + 1}", unit="batch")], number
        )
        checked = None if plan.validation is None else _mean([check(batch) for batch in plan.validation()], number)
        done.append(Epoch(number, loss, checked))
        if on_epoch(done[-1]):
            break
    return tuple(done)


def _mean(losses: list[Any], epoch: int) -> float:
    values = [float(loss) for loss in losses]
    mean = sum(values) / len(values)
    if not math.isfinite(mean):
        raise StepError(f"the loss is {mean} in epoch {epoch + 1}: lower the learning rate, and look at the targets.")
    return mean
