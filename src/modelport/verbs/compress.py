"""Make a model smaller and faster, step by step, and say what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelport.core import registry
from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.core.progress import showing
from modelport.core.signature import Signature
from modelport.core.steps import Distill, Step
from modelport.verbs.costs import measured
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.recipe import Budget, walked
from modelport.verbs.sample import sampled
from modelport.verbs.subject import exported

Evaluate = Callable[[Model], float]
"""The score of a model, larger where it is better."""


def compress(
    model: Any,
    *steps: Step,
    evaluate: Evaluate | None = None,
    budget: float | None = None,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
    progress: bool = False,
) -> Model:
    """A smaller model on the same backend; the one that is given stays as it is, also where the call is interrupted.

    Args:
        model: a native model, a `Model` or a path.
        steps: what to do, in this order.
        evaluate: the score of a `Model`, larger where it is better: an accuracy between 0 and 1, say. The report has it
            before and after.
        budget: how much of the score the result may lose, 0.005 for half a point of an accuracy. The layers that are
            most sensitive to `Quantize` stay in float until that is met; the report names them. Where it is not met
            even so, or was not before that step, the step is left out, and the report says so.
        example: inputs in the native call's nesting, as for `transfer`; calls on it are timed and compared.
        signature: as for `transfer`.
        dynamic: as for `transfer`.
        progress: whether to show progress bars, of the steps and of what takes long in them.

    Returns:
        A `Model`; its `report` is a `CompressReport`, which its `history` keeps.

    Raises:
        StepError: no step is given, or one cannot do what it says to this model; the message says what to change.
        DataError: data of a step do not fit the model, are empty, or hold NaN.
        UnsupportedModelError: no backend owns the model, or its framework cannot trace it.

    Example:
        >>> small = mp.compress(net, mp.Quantize("int8", calibration=x), evaluate=accuracy, example=x)  # doctest: +SKIP
        >>> print(small.report)                                                                         # doctest: +SKIP
    """
    if not steps:
        raise StepError('compress needs a step: compress(model, mp.Quantize("int8", calibration=x)).')
    wrong = [step for step in steps if not isinstance(step, Step)]
    if wrong:
        raise StepError(f"{wrong[0]!r} is no step: take mp.Quantize(...), and data and functions by keyword.")
    allowed = Budget.of(budget, evaluate, steps)
    source = sampled(model, steps, example=example, signature=signature, dynamic=dynamic)
    with showing(progress):
        return _compressed(source, steps, evaluate, allowed)


def _compressed(source: Model, steps: Sequence[Step], evaluate: Evaluate | None, budget: Budget | None) -> Model:
    from modelport.graph.weights import aliases

    graph, notes = exported(source)
    done = walked(graph, steps, source, budget)
    backend = registry.backend(source.backend)
    built = backend.build(done.graph)
    tied = aliases(done.graph) if any(isinstance(step, Distill) for step in steps) else source.aliases
    made = Model(built.native, backend, source.signature, example=source.example, history=source.history, aliases=tied)
    report = measured(source, made, graph, done, steps, evaluate, (*notes, *built.notes))
    event = {"verb": "compress", **report.to_json(), "steps": [step.to_json() for step in steps]}
    return made.replaced(history=(*source.history, event), report=report)
