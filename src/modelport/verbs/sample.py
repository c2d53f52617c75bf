"""Example inputs where none are given: rows of the data that a step has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from modelport.core.errors import DataError, SignatureError
from modelport.core.model import Model
from modelport.core.rows import is_array, rows_at_once
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
    size = _ROWS
    if not known:
        # A framework that does not know its models' inputs is told them by the example.
        with suppress(SignatureError):
            model = subject(model)
            size = rows_at_once(model.signature, _ROWS)
    rows = None if known else _first_rows(steps, size)
    if rows is None:
        return subject(model, example=example, signature=signature, dynamic=dynamic)
    try:
        return subject(model, example=rows, signature=signature, dynamic=dynamic)
    except SignatureError as error:
        raise DataError(f"the data of a step do not fit the model: {error}") from error


def _first_rows(steps: Iterable[Step], size: int) -> Any:
    """The first rows of the first step that has arrays."""
    for step in steps:
        for setting in ("calibration", "data"):
            data = getattr(step, setting, None)
            if setting == "data" and isinstance(data, list) and data:
                data = data[0]
            if setting == "data" and isinstance(data, (tuple, list)):
                data = data[0] if len(data) == 2 else None
            rows = _cut(data, size, f"{type(step).__name__}: {setting}")
            if rows is not None:
                return rows
    return None


def _cut(data: Any, size: int, what: str) -> Any:
    if is_array(data):
        if len(data.shape) == 0 or data.shape[0] == 0:
            raise DataError(f"{what} is empty: give at least one row.")
        return np.asarray(data[:size])
    if isinstance(data, tuple) and data:
        parts = [_cut(part, size, what) for part in data]
        return None if any(part is None for part in parts) else tuple(parts)
    if isinstance(data, Mapping) and data:
        found = {name: _cut(part, size, what) for name, part in data.items()}
        return None if any(part is None for part in found.values()) else found
    return None
