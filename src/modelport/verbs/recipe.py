"""A recipe: steps that are done to a graph, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelport.core import registry
from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.core.progress import tracked
from modelport.core.report import Note
from modelport.core.steps import Distill, FineTune, Prune, Quantize, Step
from modelport.verbs.student import student_of
from modelport.verbs.subject import example_of

if TYPE_CHECKING:
    from modelport.compression.outcome import Outcome
    from modelport.compression.quantize.budget import Judge
    from modelport.core.backend import Graph
    from modelport.core.training import Epoch


class Done:
    """The graph after the steps so far.

    Attributes:
        graph: in normal form.
        alone: why layers stay as they were, by node name.
        masked: the portable names of weights whose zeros stay.
        seconds: that each step took.
        epochs: of the steps that trained.
        notes: what did not go as it was asked for.
        quantized: the steps that put numbers into fewer bits.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.alone: dict[str, str] = {}
        self.masked: set[str] = set()
        self.seconds: tuple[float, ...] = ()
        self.epochs: tuple[tuple[str, tuple[Epoch, ...]], ...] = ()
        self.notes: tuple[Note, ...] = ()
        self.quantized: tuple[Quantize, ...] = ()

    def add(self, step: Step, outcome: Outcome, seconds: float) -> None:
        """What a step has made becomes what the next one works on."""
        self.graph = outcome.graph
        self.alone.update(outcome.alone)
        self.masked.update(outcome.masked)
        self.seconds += (seconds,)
        self.notes += outcome.notes
        if outcome.epochs:
            self.epochs += ((str(step), outcome.epochs),)
        if isinstance(step, Quantize) and outcome.layers:
            self.quantized += (step,)


@dataclass(frozen=True)
class Budget:
    """How much of a score may be lost.

    Attributes:
        loss: of the score.
        evaluate: says the score of a model.
    """

    loss: float
    evaluate: Callable[[Model], float]

    @classmethod
    def of(
        cls, budget: float | None, evaluate: Callable[[Model], float] | None, steps: Sequence[Step]
    ) -> Budget | None:
        """The budget that a caller gives; `None` where there is none.

        Raises:
            StepError: it is no loss, there is no score, or no step could be left out for it.
        """
        if budget is None:
            return None
        if evaluate is None:
            raise StepError("budget is of a score: give the function that says it, evaluate=f beside budget=0.005.")
        if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 <= budget < math.inf:
            raise StepError(f"budget is the loss of the score that is allowed, a number from 0 on, and not {budget!r}.")
        if not any(isinstance(step, Quantize) for step in steps):
            raise StepError("budget leaves layers out of Quantize, and no step is one: add mp.Quantize(...).")
        return cls(float(budget), evaluate)

    def judge(self, source: Model) -> Judge:
        """How graphs are measured: on the source's backend, against the source's own score."""
        from modelport.compression.quantize.budget import Judge

        backend, inputs = registry.backend(source.backend), example_of(source)
        before = float(self.evaluate(source))
        if not math.isfinite(before):
            raise StepError(f"evaluate says {before} of the model as it is: budget= needs a number.")

        def built(graph: Graph) -> Model:
            native = backend.build(graph).native
            return Model(native, backend, source.signature, example=source.example, aliases=source.aliases)

        return Judge(
            score=lambda graph: float(self.evaluate(built(graph))),
            outputs=lambda graph: backend.run(built(graph).native, inputs, source.signature),
            floor=before - self.loss,
        )


def walked(graph: Graph, steps: Sequence[Step], source: Model, budget: Budget | None) -> Done:
    """The graph with all steps done to it.

    Args:
        graph: of the source; it stays as it is.
        steps: in this order.
        source: the model that the graph is of.
        budget: what quantization may cost.

    Raises:
        StepError: a step cannot do what it says to this graph.
        DataError: data of a step do not fit.
    """
    from modelport.graph.normal import normalize

    judge = None if budget is None else budget.judge(source)
    done = Done(normalize(graph))
    for step in tracked(steps, "compress", told=str):
        started = time.perf_counter()
        outcome = _applied(done, step, source, judge)
        done.add(step, outcome, time.perf_counter() - started)
    return done


def _applied(done: Done, step: Step, source: Model, judge: Judge | None) -> Outcome:
    if isinstance(step, Quantize):
        return _quantized(done, step, source, judge)
    from modelport.compression.order import refuse_quantized

    if isinstance(step, (FineTune, Prune)):
        advice = "Do it before Quantize, or train with the rounding in place: Quantize(..., train=FineTune(...))."
        refuse_quantized(done.graph, type(step).__name__, advice)
    if isinstance(step, Prune):
        from modelport.compression.gradients import gradients
        from modelport.compression.prune.run import pruned

        slopes = gradients(done.graph, step.data, source.backend) if step.importance == "taylor" else None
        return pruned(done.graph, step, slopes)
    if isinstance(step, FineTune):
        from modelport.compression.retrain import retrained

        return retrained(done.graph, step, backend=source.backend, masked=done.masked)
    if isinstance(step, Distill):
        from modelport.compression.retrain import learned

        student = student_of(step, source)
        done.masked.clear()
        return learned(done.graph, step, student.graph, backend=student.backend, notes=student.notes)
    raise StepError(f"compress does not know the step {type(step).__name__}.")


def _quantized(done: Done, step: Quantize, source: Model, judge: Judge | None) -> Outcome:
    from modelport.compression.quantize.aware import quantize_aware
    from modelport.compression.quantize.budget import quantize_within
    from modelport.compression.quantize.run import quantize

    def rounded(graph: Graph) -> Outcome:
        if judge is None:
            return quantize(graph, step, source.signature)
        return quantize_within(graph, step, source.signature, judge)

    if step.train is None:
        return rounded(done.graph)
    backend, masked = source.backend, done.masked
    return quantize_aware(done.graph, step, step.train, source.signature, rounded, backend=backend, masked=masked)
