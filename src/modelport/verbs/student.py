"""The student of `Distill`: any framework's model, as a portable graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from modelport.core import registry
from modelport.core.errors import SignatureError, StepError
from modelport.core.model import Model
from modelport.core.report import Note
from modelport.core.signature import Arrays
from modelport.core.steps import Distill
from modelport.verbs.subject import example_of, exported, subject

if TYPE_CHECKING:
    from modelport.core.backend import Graph


class Student(NamedTuple):
    """A graph in normal form, where it comes from, and what did not cross."""

    graph: Graph
    backend: str
    notes: tuple[Note, ...]


def student_of(step: Distill, teacher: Model) -> Student:
    """The student of a step; one that does not know its inputs is called with the teacher's example.

    Raises:
        StepError: it takes other inputs than the teacher.
        UnsupportedModelError: no backend owns it, or its framework cannot trace it.
    """
    from modelport.graph.normal import normalize

    found = _known(step.student, teacher)
    graph, notes = exported(found)
    return Student(normalize(graph), found.backend, notes)


def _known(student: Any, teacher: Model) -> Model:
    try:
        return subject(student)
    except SignatureError:
        failures = []
    for example in _examples(student, teacher):
        try:
            return subject(student, example=example)
        except SignatureError as error:
            failures.append(str(error))
    raise StepError(
        f"the student does not fit: it cannot be called with the model's inputs, {teacher.signature}. {failures[0]}"
    )


def _examples(student: Any, teacher: Model) -> list[tuple[np.ndarray, ...]]:
    """The teacher's example, and the same with the channels of images where the student's framework has them."""
    arrays = example_of(teacher)
    as_it_is, turned = tuple(arrays.values()), _turned(arrays, teacher)
    last = getattr(registry.owner(student), "channels_last", False)
    return [as_it_is] if last == _is_last(teacher) else [turned, as_it_is]


def _is_last(model: Model) -> bool:
    return getattr(registry.backend(model.backend), "channels_last", False)


def _turned(arrays: Arrays, teacher: Model) -> tuple[np.ndarray, ...]:
    source, target = (-1, 1) if _is_last(teacher) else (1, -1)
    return tuple(np.moveaxis(x, source, target) if x.ndim > 3 else x for x in arrays.values())
