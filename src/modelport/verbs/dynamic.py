"""Which sizes may vary: named by the caller for the inputs, found by running the model for the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from modelport.core import registry
from modelport.core.errors import ModelPortError, SignatureError, UnsupportedModelError
from modelport.core.model import Model
from modelport.core.signature import Arrays, Dim, Signature, TensorSpec

Dynamic = Mapping[int, str] | Mapping[str, Mapping[int, str]] | Mapping[int | str, str | Mapping[int, str]]
"""Names of axes: `{1: "sequence"}` for every input that has that axis, `{"input_ids": {1: "sequence"}}`, or both."""


def with_dynamic(model: Model, dynamic: Dynamic, inputs: Arrays) -> Model:
    """The same model with more dimensions called dynamic; what follows from them in its outputs is measured.

    Args:
        model: the model; it runs once for every new dimension, at another size.
        dynamic: the names of the axes that may have any size. One name is one size, wherever it stands.
        inputs: an example of every input, by name.

    Raises:
        SignatureError: there is no such input or axis, or one name stands for two sizes of the example.
        UnsupportedModelError: the model does not run at another size of a dimension.
    """
    known = {dim for spec in model.signature.inputs for dim in spec.shape or () if isinstance(dim, str)}
    named = _name_inputs(model.signature, dynamic)
    sizes = named.sizes(inputs)
    named.bind(inputs)
    base = _shapes(model, named, inputs, {})
    outputs = named.outputs
    for dim in sizes.keys() - known:
        other = another_size(sizes[dim])
        found = _shapes(model, named, inputs, {dim: other})
        outputs = tuple(
            replace(spec, shape=_following(spec, base[spec.name], found[spec.name], dim, sizes[dim], other))
            for spec in outputs
        )
    return model.replaced(signature=replace(named, outputs=outputs), example=inputs)


def another_size(size: int) -> int:
    """A size to try where a dimension has `size`: a smaller one, since models have a longest input, or the next."""
    return size - 1 if size > 2 else size + 1


def _name_inputs(signature: Signature, dynamic: Dynamic) -> Signature:
    specs = {spec.name: spec for spec in signature.inputs}
    by_input: dict[str, dict[int, str]] = {name: {} for name in specs}
    for key, value in dynamic.items():
        if isinstance(key, int) and isinstance(value, str):
            having = [spec.name for spec in specs.values() if _has(spec, key)]
            for name in having:
                by_input[name][key] = value
            if not having:
                raise SignatureError(f"dynamic={{{key}: {value!r}}}: no input of {signature} has an axis {key}.")
        elif isinstance(key, str) and isinstance(value, Mapping):
            if key not in specs:
                raise SignatureError(f"dynamic= names the input {key!r}; the inputs are {list(specs)}.")
            by_input[key].update(value)
        else:
            raise SignatureError(
                f"dynamic= has {key!r}: {value!r}; it maps an axis to a name, as in {{1: 'sequence'}}, or an input's "
                "name to such a dict."
            )
    return signature.with_dims({name: _renamed(specs[name], axes) for name, axes in by_input.items() if axes})


def _has(spec: TensorSpec, axis: int) -> bool:
    return spec.shape is not None and -len(spec.shape) <= axis < len(spec.shape)


def _renamed(spec: TensorSpec, axes: Mapping[int, str]) -> tuple[Dim, ...]:
    missing = [axis for axis in axes if not _has(spec, axis)]
    if missing:
        raise SignatureError(f"dynamic= names axis {missing[0]} of input {spec.name!r}, which is {spec}.")
    shape = list(spec.shape or ())
    for axis, name in axes.items():
        shape[axis] = name
    return tuple(shape)


def _shapes(
    model: Model, signature: Signature, inputs: Arrays, changed: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    arrays = {spec.name: _resized(inputs[spec.name], spec.shape or (), changed) for spec in signature.inputs}
    try:
        outputs = registry.backend(model.backend).run(model.native, arrays, signature)
    except ModelPortError as exc:
        if not changed:
            raise
        ((dim, size),) = changed.items()
        raise UnsupportedModelError(
            f"dynamic= calls {dim!r} a dimension of any size, but the model does not run with {size} there: {exc} "
            "Leave it out of dynamic=, or make the model's code independent of it."
        ) from exc
    return {name: np.shape(value) for name, value in outputs.items()}


def _resized(array: np.ndarray, shape: tuple[Dim, ...], sizes: Mapping[str, int]) -> np.ndarray:
    for axis, dim in enumerate(shape):
        if isinstance(dim, str) and dim in sizes:
            array = np.take(array, np.arange(sizes[dim]) % array.shape[axis], axis)
    return array


def _following(
    spec: TensorSpec, base: tuple[int, ...], found: tuple[int, ...], dim: str, size: int, other: int
) -> tuple[Dim, ...]:
    """An output's shape with the axes that changed with a dimension written as `sequence`, `2*sequence + 1`, …"""
    known = spec.shape if spec.shape is not None and len(spec.shape) == len(base) else base
    return tuple(
        old if n == m else _expression(old, n, m, dim, size, other) or f"{spec.name}_dim_{axis}"
        for axis, (old, n, m) in enumerate(zip(known, base, found, strict=True))
    )


def _expression(old: Dim, n: int, m: int, dim: str, size: int, other: int) -> str:
    factor, rest = divmod(m - n, other - size)
    if rest or factor < 1 or isinstance(old, str):
        return ""
    offset = n - factor * size
    text = dim if factor == 1 else f"{factor}*{dim}"
    return text if offset == 0 else f"{text} {'+' if offset > 0 else '-'} {abs(offset)}"
