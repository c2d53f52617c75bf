"""What `compress` cost: bytes, latency, agreement and score, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from modelport.core import registry
from modelport.core.compressed import CompressReport, Measured
from modelport.core.model import Model
from modelport.core.progress import tracked
from modelport.core.report import Note
from modelport.core.signature import Arrays
from modelport.core.steps import Quantize, Step
from modelport.verbs.subject import example_of

if TYPE_CHECKING:
    from modelport.core.backend import Graph
    from modelport.verbs.recipe import Done


def measured(
    source: Model,
    made: Model,
    graph: Graph,
    done: Done,
    steps: Sequence[Step],
    evaluate: Callable[[Model], float] | None,
    notes: tuple[Note, ...],
) -> CompressReport:
    """The report on a model before and after.

    Args:
        source: the model before.
        made: the model after.
        graph: of the model before.
        done: of the model after.
        steps: that were done.
        evaluate: says the score of a model.
        notes: what did not cross to the graph and back.
    """
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
        notes=(*notes, *done.notes, *_simulated(source.backend, done.quantized)),
        instructions=instructions(),
        seconds=done.seconds,
        epochs=done.epochs,
    )


def _scores(evaluate: Callable[[Model], float] | None, *models: Model) -> list[float | None]:
    if evaluate is None:
        return [None] * len(models)
    return [float(evaluate(model)) for model in tracked(models, "evaluate", unit="model")]


def _bytes(graph: Graph) -> int:
    tensors = (value.const_value for value in graph.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


_IN_FLOAT = {
    "float16": "computes in float16 where its kernels do",
    "bfloat16": "stores weights in bfloat16, and multiplies in float32",
    "float8": "stores weights in float8, and multiplies in float32",
}


def _simulated(backend: str, steps: Sequence[Quantize]) -> tuple[Note, ...]:
    if not steps:
        return ()
    last = steps[-1]
    if last.precision in _IN_FLOAT:
        told = f"{backend} {_IN_FLOAT[last.precision]}: fewer bytes, and no faster for it."
    elif backend == "onnx":
        return ()
    elif last.by_blocks:
        told = (
            f"{backend} writes {last.precision} weights out at each call, and multiplies in float32. To multiply by "
            'blocks, compress the model that transfer(model, to="onnx") gives.'
        )
    else:
        told = (
            f"{backend} simulates {last.precision}: weights take a byte each, and it rounds as the integers do, but "
            'computes in float. transfer(model, to="onnx") runs it in bytes.'
        )
    return (Note("changed", "the whole model", told),)
