"""The steps of `compress` that train: `FineTune` and `Distill`."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from modelport.compression.masks import zeros
from modelport.compression.order import refuse_quantized
from modelport.compression.outcome import Outcome
from modelport.core.report import Note
from modelport.core.steps import Distill, FineTune
from modelport.graph.signature import read_signature
from modelport.graph.weights import with_weights
from modelport.training.distill import distill
from modelport.training.finetune import finetune
from modelport.training.objective import speaking_alike
from modelport.training.replacing import replacing


def retrained(graph: ir.Model, step: FineTune, *, backend: str, masked: Collection[str]) -> Outcome:
    """The graph with weights that are trained; zeros of the masked ones stay.

    Raises:
        DataError: the data do not fit the graph.
        StepError: see `training.finetune.finetune`.
    """
    trained = finetune(graph, step, backend=backend, masks=zeros(graph, masked))
    return Outcome(with_weights(graph, trained.weights), epochs=trained.epochs)


def learned(
    graph: ir.Model, step: Distill, student: ir.Model, *, backend: str, notes: tuple[Note, ...] = ()
) -> Outcome:
    """The student in the place of the graph, trained on what the graph says.

    Args:
        graph: the teacher, in normal form.
        step: how to train.
        student: in normal form, with its own signature.
        backend: of the student.
        notes: what did not cross when the student was exported.

    Raises:
        DataError: the data do not fit the graph.
        StepError: the student's inputs or outputs do not fit; or see `training.distill.distill`.
    """
    refuse_quantized(student, "Distill", "Take a student in floats.")
    placed = replacing(student, read_signature(graph), "the student")
    placed = speaking_alike(placed, graph, step.loss, "Distill")
    trained = distill(graph, placed, step, backend=backend)
    return Outcome(with_weights(placed, trained.weights), epochs=trained.epochs, notes=notes)
