"""Make a model smaller and faster, step by step, and say what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelport.core import registry
from modelport.core.compressed import CompressReport, Measured
from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.core.progress import showing, tracked
from modelport.core.report import Note
from modelport.core.signature import Arrays, Signature
from modelport.core.steps import Distill, FineTune, Prune, Quantize, Step
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.sample import sampled
from modelport.verbs.student import student_of
from modelport.verbs.subject import example_of, exported

if TYPE_CHECKING:
    from modelport.compression.outcome import Outcome
    from modelport.core.backend import Graph
    from modelport.core.training import Epoch

Evaluate = Callable[[Model], float]
"""The score of a model, larger where it is better."""


def compress(
    model: Any,
    *steps: Step,
    evaluate: Evaluate | None = None,
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
        example: inputs in the native call's nesting, as for `transfer`; calls on it are timed and compared. Where there
            is none, the first rows of the data of a step are.
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
    source = sampled(model, steps, example=example, signature=signature, dynamic=dynamic)
    with showing(progress):
        return _compressed(source, steps, evaluate)


def _compressed(source: Model, steps: Sequence[Step], evaluate: Evaluate | None) -> Model:
    graph, notes = exported(source)
    done = _walked(graph, steps, source)
    backend = registry.backend(source.backend)
    built = backend.build(done.graph)
    made = Model(
        built.native, backend, source.signature, example=source.example, history=source.history, aliases=source.aliases
    )
    report = _measured(source, made, graph, done, steps, evaluate, (*notes, *built.notes))
    event = {"verb": "compress", **report.to_json(), "steps": [step.to_json() for step in steps]}
    return made.replaced(history=(*source.history, event), report=report)


class _Done:
    """The graph after the steps so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.alone: dict[str, str] = {}
        self.masked: set[str] = set()
        self.seconds: tuple[float, ...] = ()
        self.epochs: tuple[tuple[str, tuple[Epoch, ...]], ...] = ()
        self.notes: tuple[Note, ...] = ()


def _walked(graph: Graph, steps: Sequence[Step], source: Model) -> _Done:
    from modelport.graph.normal import normalize

    done = _Done(normalize(graph))
    for step in tracked(steps, "compress", told=str):
        started = time.perf_counter()
        outcome = _applied(done, step, source)
        done.graph = outcome.graph
        done.alone.update(outcome.alone)
        done.masked.update(outcome.masked)
        done.notes += outcome.notes
        done.seconds += (time.perf_counter() - started,)
        if outcome.epochs:
            done.epochs += ((str(step), outcome.epochs),)
    return done


def _applied(done: _Done, step: Step, source: Model) -> Outcome:
    if isinstance(step, Quantize):
        from modelport.compression.quantize.aware import quantize_aware
        from modelport.compression.quantize.run import quantize

        if step.train is None:
            return quantize(done.graph, step, source.signature)
        backend, masked = source.backend, done.masked
        return quantize_aware(done.graph, step, step.train, source.signature, backend=backend, masked=masked)
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
        return learned(done.graph, step, student.graph, backend=student.backend, notes=student.notes)
    raise StepError(f"compress does not know the step {type(step).__name__}.")


def _measured(
    source: Model,
    made: Model,
    graph: Graph,
    done: _Done,
    steps: Sequence[Step],
    evaluate: Evaluate | None,
    notes: tuple[Note, ...],
) -> CompressReport:
    import numpy as np

    from modelport.compression.measure import agreement, latencies
    from modelport.compression.quantize.cpu import instructions

    backend, inputs = registry.backend(source.backend), example_of(source)

    def run(model: Model) -> Arrays:
        return backend.run(model.native, inputs, model.signature)

    outputs = run(source), run(made)
    before, after = latencies(lambda: run(source), lambda: run(made))
    scores = _scores(evaluate, source, made)
    first, second = (
        Measured(_bytes(each), 1e3 * float(np.median(times)), 1e3 * float(np.percentile(times, 95)), score)
        for each, times, score in ((graph, before, scores[0]), (done.graph, after, scores[1]))
    )
    return CompressReport(
        source.backend,
        tuple(str(step) for step in steps),
        first,
        second,
        latency_ratio=float(np.median(after / before)),
        agreement=agreement(*outputs),
        alone=tuple(done.alone.items()),
        notes=(*notes, *done.notes, *_simulated(source.backend, steps)),
        instructions=instructions(),
        seconds=done.seconds,
        epochs=done.epochs,
    )


def _scores(evaluate: Evaluate | None, *models: Model) -> list[float | None]:
    if evaluate is None:
        return [None] * len(models)
    return [float(evaluate(model)) for model in tracked(models, "evaluate", unit="model")]


def _bytes(graph: Graph) -> int:
    tensors = (value.const_value for value in graph.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _simulated(backend: str, steps: Sequence[Step]) -> tuple[Note, ...]:
    kinds = [step.precision for step in steps if isinstance(step, Quantize)]
    if backend == "onnx" or not kinds:
        return ()
    told = (
        f"{backend} simulates {kinds[-1]}: it rounds, and computes in float. To compute in bytes, compress the model "
        'that transfer(model, to="onnx") gives.'
    )
    return (Note("changed", "the whole model", told),)
