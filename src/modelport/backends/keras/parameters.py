"""Parameters and buffers by portable name, out of a Keras model and into it."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelport.backends.keras.layers import NUMBERED, weights
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
    if arrays and all(_DATASET.search(name) for name in arrays):
        _assign_file(native, arrays)
        return
    if arrays and all("/" in name for name in arrays):
        _assign_paths(native, arrays)
        return
    table = weights(native)
    shapes = {name: weight.layout.portable for weight in table for name in weight.names}
    source = match(shapes, _shapes(arrays))
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
    _refuse(_problems(pairs, wanted, given))
    return pairs


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(np.shape(array)) for name, array in arrays.items()}


def _problems(
    pairs: Mapping[str, str], wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> list[str]:
    taken = set(pairs.values())
    problems = [f"{name} is missing" for name in wanted if name not in pairs]
    problems += [f"{name} is unknown" for name in given if name not in taken]
    return problems + [
        f"{name} has shape {given[other]}, the model takes {wanted[name]}"
        for name, other in pairs.items()
        if given[other] != wanted[name]
    ]


def _refuse(problems: list[str]) -> None:
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise DataError(f"the parameters do not fit the model; nothing was changed:{listed}")


_NUMBER = re.compile(r"_(\d+)$")


def _by_rank(wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Names that are equal up to Keras' automatic numbers, paired in the order of those numbers."""
    groups: dict[tuple[str, ...], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    numbers: dict[str, tuple[int, ...]] = {}
    for side, names in enumerate((wanted, given)):
        for name in names:
            parts = _parts(name, names)
            numbers[name] = _numbers(parts)
            groups[tuple(_NUMBER.sub("", part) for part in parts)][side].append(name)
    pairs: dict[str, str] = {}
    for left, right in groups.values():
        if len(left) == len(right):
            pairs.update(
                zip(sorted(left, key=numbers.__getitem__), sorted(right, key=numbers.__getitem__), strict=True)
            )
        else:
            pairs.update({name: name for name in left if name in right})
    return pairs


def _parts(name: str, names: Collection[str]) -> list[str]:
    """The parts of a name, without the numbered one of the layer inside a Bidirectional: the first has no such part."""
    parts = name.split(".")
    if len(parts) > 2 and NUMBERED.fullmatch(parts[-2]) and ".".join([*parts[:-1], "weight_ih_l0_reverse"]) in names:
        del parts[-2]
    return parts


def _numbers(parts: Sequence[str]) -> tuple[int, ...]:
    """The automatic numbers of a name's parts; the first layer of a kind has none and comes first."""
    found = (_NUMBER.search(part) for part in parts)
    return tuple(int(each[1]) if each else -1 for each in found)


_DATASET = re.compile(r"(^|/)vars/\d+$")
"""Where Keras 3 keeps a variable in a weights file."""


def _assign_paths(native: Any, arrays: Mapping[str, Any]) -> None:
    """Set the variables by their Keras paths, in their own layouts, as an older weights file has them."""
    variables = {_path(variable.path, native.name): variable for variable in native.weights}
    given = {_path(name, native.name): np.asarray(array) for name, array in arrays.items()}
    pairs = match({name: tuple(v.shape) for name, v in variables.items()}, {n: a.shape for n, a in given.items()})
    for name, other in pairs.items():
        variables[name].assign(given[other])


def _path(path: str, root: str) -> str:
    """A variable's path with dots, without the name of the model, which differs between two of a kind."""
    first, _, rest = path.partition("/")
    same = _NUMBER.sub("", first) == _NUMBER.sub("", root)
    return (rest if same and rest else path).replace("/", ".")


def _assign_file(native: Any, arrays: Mapping[str, Any]) -> None:
    """Set the weights from the datasets of a Keras weights file, through Keras' own reader.

    That reader skips what it does not find, so the file is held against the one that the model itself writes.
    """
    import h5py

    from modelport.backends.keras.files import read_weights

    with tempfile.TemporaryDirectory() as folder:
        own, given = Path(folder) / "own.weights.h5", Path(folder) / "given.weights.h5"
        native.save_weights(own)
        expected = {name: array.shape for name, array in read_weights(own).items()}
        _refuse(_problems({name: name for name in expected if name in arrays}, expected, _shapes(arrays)))
        with h5py.File(given, "w") as file:
            for name, array in arrays.items():
                file[name] = array
        native.load_weights(given)
