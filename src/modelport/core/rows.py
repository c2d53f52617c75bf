"""Inputs that a step looks at: in any form that `predict` takes, checked before anything is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from modelport.core.errors import DataError, SignatureError
from modelport.core.signature import Arrays, Signature


def is_array(data: Any) -> bool:
    """Whether data are one array: NumPy's, or what makes one (a tensor of any framework)."""
    return hasattr(data, "__array__") and hasattr(data, "shape")


def observed(signature: Signature, data: Any, *, what: str = "calibration") -> Arrays:
    """Rows of inputs as arrays by input name.

    Args:
        signature: of the model that takes them.
        data: one array, a tuple in the order of the inputs, or a dict by input name, with the rows on the first axis.
        what: how the caller calls them, for the message.

    Raises:
        DataError: they do not fit the signature, there are none, or they hold NaN or an infinity.
    """
    try:
        arrays = signature.bind(data)
    except SignatureError as error:
        raise DataError(f"{what} data do not fit the model: {error}") from error
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) == 0:
            raise DataError(f"{what} data for input {name!r} are empty: give at least one row.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise DataError(
                f"{what} data for input {name!r} hold {count} values that are NaN or infinite: remove them."
            )
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{what} data differ in their number of rows: {lengths}.")
    return arrays


def any_rows(signature: Signature) -> Signature:
    """A signature whose inputs may have any number of rows: that of data which are handed on in batches."""
    inputs = tuple(
        replace(spec, shape=("rows", *spec.shape[1:])) if spec.shape and isinstance(spec.shape[0], int) else spec
        for spec in signature.inputs
    )
    return replace(signature, inputs=inputs)


def rows_at_once(signature: Signature, wanted: int) -> int:
    """How many rows a call may take: those wanted, or as many as the model's inputs fix."""
    fixed = [spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], int)]
    return fixed[0] if fixed else wanted
