"""Parameters and buffers by portable name, out of a Keras model and into it."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelport.backends.keras.layers import weights
from modelport.core.errors import DataError
from modelport.core.signature import Arrays


def parameters(native: Any) -> Arrays:
    """Every parameter and persistent buffer by its portable name, in the portable layout."""
    return {
        name: array for weight in weights(native) for name, array in weight.to_portable(weight.variable.numpy()).items()
    }


def assign(native: Any, arrays: Mapping[str, Any]) -> None:
    """Set every parameter and persistent buffer.

    Args:
        native: a `keras.Layer` or a `tf.Module`.
        arrays: by portable name in the portable layout; names that differ only in the numbers that Keras gives out
            (`dense_3`) are matched in their order. Or what `read_weights` finds in a Keras weights file.

    Raises:
        DataError: a name is missing or unknown, or a shape differs; all of them are named and nothing is changed.
    """
    if arrays and any("/" in name for name in arrays):
        _assign_file(native, arrays)
        return
    table = weights(native)
    shapes = {name: weight.layout.portable for weight in table for name in weight.names}
    source = match(shapes, {name: tuple(np.shape(array)) for name, array in arrays.items()})
    ready = []
    for weight in table:
        array = weight.to_native([np.asarray(arrays[source[name]]) for name in weight.names])
        ready.append((weight.variable, array.astype(weight.variable.numpy().dtype, copy=False)))
    for variable, array in ready:
        variable.assign(array)


def match(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Which given name each wanted name takes its array from, both with their shapes.

    Raises:
        DataError: the two sides do not fit; the message names every difference.
    """
    pairs = {name: name for name in wanted} if set(wanted) == set(given) else _by_rank(wanted, given)
    problems = [f"{name} is missing" for name in wanted if name not in pairs]
    problems += [f"{name} is unknown" for name in given if name not in set(pairs.values())]
    problems += [
        f"{name} has shape {given[other]}, the model takes {wanted[name]}"
        for name, other in pairs.items()
        if given[other] != wanted[name]
    ]
    if problems:
        raise DataError(
            "the parameters do not fit the model; nothing was changed:" + "".join(f"\n  {p}" for p in problems)
        )
    return pairs


_NUMBER = re.compile(r"_(\d+)$")


def _by_rank(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Names that are equal up to Keras' automatic numbers, paired in the order of those numbers."""
    groups: dict[tuple[str, ...], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((wanted, given)):
        for name in names:
            groups[_stem(name)][side].append(name)
    pairs: dict[str, str] = {}
    for left, right in groups.values():
        if len(left) == len(right):
            pairs.update(zip(sorted(left, key=_numbers), sorted(right, key=_numbers), strict=True))
        else:
            pairs.update({name: name for name in left if name in right})
    return pairs


def _stem(name: str) -> tuple[str, ...]:
    return tuple(_NUMBER.sub("", part) for part in name.split("."))


def _numbers(name: str) -> tuple[int, ...]:
    """The automatic numbers of a name's parts; the first layer of a kind has none and comes first."""
    found = (_NUMBER.search(part) for part in name.split("."))
    return tuple(int(each[1]) if each else -1 for each in found)


def _assign_file(native: Any, arrays: Mapping[str, Any]) -> None:
    """Set the weights from the datasets of a Keras weights file, through Keras' own reader."""
    import h5py

    before = [variable.numpy() for variable in native.weights]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        try:
            native.load_weights(path)
        except (ValueError, KeyError) as error:
            for variable, array in zip(native.weights, before, strict=True):
                variable.assign(array)
            raise DataError(f"the weights file does not fit the model; nothing was changed: {error}") from error
