"""`FineTune` as it is done: a graph is trained on data, and what has been pruned stays away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from modelport.core.steps import FineTune
from modelport.core.training import Batch
from modelport.graph.signature import read_signature
from modelport.training.data import Data
from modelport.training.fit import Trained, fit
from modelport.training.objective import Head, heads


def finetune(
    graph: ir.Model, step: FineTune, *, backend: str, masks: Mapping[str, np.ndarray] | None = None
) -> Trained:
    """The weights of a graph as training leaves them.

    Args:
        graph: in normal form; it stays as it is.
        step: what to train on, and how.
        backend: the one to train on; another one where it cannot.
        masks: by portable name, 1 where a weight may be other than zero.

    Raises:
        DataError: inputs or targets do not fit the graph.
        StepError: see `fit`; or `freeze` or `loss` name what the graph does not have.
    """
    found = heads(graph, step.loss, "FineTune")
    signature = read_signature(graph)
    data = Data(step.data, signature, batch_size=step.batch_size, seed=step.seed, what="FineTune: data")
    validation = None
    if step.validation is not None:
        checked = Data(step.validation, signature, batch_size=step.batch_size, what="FineTune: validation")

        def validation() -> Iterator[Batch]:
            return told(checked.in_order(), found)

    return fit(
        graph,
        step,
        tuple(head.term() for head in found),
        lambda epoch: told(data.batches(epoch), found),
        backend=backend,
        validation=validation,
        masks=masks,
    )


def told(batches: Iterable[Batch], found: Sequence[Head]) -> Iterator[Batch]:
    """Batches with the targets that the terms of a loss take.

    Raises:
        DataError: an output has no targets, or they do not fit it.
    """
    for batch in batches:
        targets = {name: array for head in found for name, array in head.expected(batch).items()}
        yield Batch(batch.inputs, targets)
