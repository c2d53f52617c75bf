"""Example inputs where none are given: rows of the data that a step has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from modelport.core.errors import DataError, SignatureError
from modelport.core.model import Model
from modelport.core.signature import Signature
from modelport.core.steps import Step
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.subject import subject

_ROWS = 32


def sampled(
    model: Any, steps: Sequence[Step], *, example: Any, signature: Signature | None, dynamic: Dynamic | None
) -> Model:
    """The `Model` that steps work on; where it has no example, the first rows of their data are.

    Raises:
        DataError: the data of a step do not fit the model, or are empty.
    """
    known = example is not None or (isinstance(model, Model) and model.example is not None)
    rows = None if known else _first_rows(steps)
    if rows is None:
        return subject(model, example=example, signature=signature, dynamic=dynamic)
    try:
        return subject(model, example=rows, signature=signature, dynamic=dynamic)
    except SignatureError as error:
        raise DataError(f"the data of a step do not fit the model: {error}") from error


def _first_rows(steps: Iterable[Step]) -> Any:
    """The first rows of the first step that has arrays."""
    for step in steps:
        for setting in ("calibration", "data"):
            data = getattr(step, setting, None)
            if setting == "data":
                data = data[0] if isinstance(data, tuple) and len(data) == 2 else None
            rows = _cut(data, f"{type(step).__name__}: {setting}")
            if rows is not None:
                return rows
    return None


def _cut(data: Any, what: str) -> Any:
    if isinstance(data, np.ndarray):
        if data.ndim == 0 or len(data) == 0:
            raise DataError(f"{what} is empty: give at least one row.")
        return data[:_ROWS]
    if isinstance(data, tuple) and data:
        parts = [_cut(part, what) for part in data]
        return None if any(part is None for part in parts) else tuple(parts)
    if isinstance(data, Mapping) and data:
        found = {name: _cut(part, what) for name, part in data.items()}
        return None if any(part is None for part in found.values()) else found
    return None
