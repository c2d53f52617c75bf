"""Parity: two models on the same inputs, output by output and gradient by gradient."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from modelport.core import registry
from modelport.core.backend import Trainer
from modelport.core.errors import DataError, ModelPortError
from modelport.core.model import Model
from modelport.core.report import ParityReport, ParityRow
from modelport.core.signature import Arrays, Signature, map_tree
from modelport.verbs.dynamic import another_size
from modelport.verbs.subject import example_of, subject

if TYPE_CHECKING:
    from modelport.core.backend import Graph
    from modelport.graph.layout.native import Orders
    from modelport.verbs.rounding import Slack

TOLERANCE = 1e-4
"""Relative error that float32 outputs may have after a transfer: kernels sum in other orders, and a deep net adds up
about 1e-6 per layer."""

HALF_TOLERANCE = 4e-3
"""The same where a model computes in float16: an operator rounds its result by up to 2^-11 relative, where one
framework does so after each and another after a few, so this is eight of them."""

GRADIENT_TOLERANCE = 1e-3

_CANCELLED = 1e-3
"""A gradient smaller than this share of the largest one is measured against that share: where terms cancel (a bias
before BatchNorm, the key bias of attention) what is left is rounding of the terms, not of their sum."""


def compare(
    a: Any,
    b: Any,
    x: Any = None,
    *,
    gradients: bool = True,
    tolerance: float = TOLERANCE,
    gradient_tolerance: float = GRADIENT_TOLERANCE,
) -> ParityReport:
    """How far the outputs of `b`, and the gradients of its parameters, are from those of `a`.

    Both run in inference mode. Gradients are those of `sum(output * c)` for one fixed random `c` per floating output,
    compared parameter by parameter under their portable names where both backends train.

    Args:
        a: the reference: a native model, a `Model` or a path.
        b: the model to compare with it.
        x: the inputs, as `Model.__call__` takes them or as the native call does; `None` uses the example that `a` or
            `b` carries, or draws from a signature. Where `x` is not given, other dynamic sizes are compared too.
        gradients: whether to compare gradients where both sides have them.
        tolerance: what the relative error of an output may be (see `ParityRow.max_rel`).
        gradient_tolerance: the same for gradients.

    Returns:
        A `ParityReport`; `report.ok` says whether everything is within tolerance.

    Raises:
        SignatureError: the inputs do not fit.
        DataError: the models have different numbers of inputs or outputs.

    Example:
        >>> print(mp.compare(torch_net, "net.mport", x))    # doctest: +SKIP
    """
    left, right = _subjects(a, b, x)
    return parity(
        left, right, gradients=gradients, tolerance=tolerance, gradient_tolerance=gradient_tolerance, more=x is None
    )


def _subjects(a: Any, b: Any, x: Any) -> tuple[Model, Model]:
    """Both models as handles, the first with the inputs; a native model beside one that knows its inputs gets those."""
    left, right = (subject(m) if isinstance(m, (Model, str, os.PathLike)) else m for m in (a, b))
    known = next((m for m in (left, right) if isinstance(m, Model)), None)
    if known is None:
        return subject(left, example=x), subject(right, example=x)
    inputs = example_of(known) if x is None else known.signature.bind(x)
    if known is left:
        left = subject(left, example=inputs)
    example = _native_example(known.signature.spread(), inputs)
    left, right = (m if isinstance(m, Model) else subject(m, example=example) for m in (left, right))
    return left, right


def _native_example(signature: Signature, arrays: Arrays) -> Any:
    """Inputs by name in the nesting of the native call: positional arguments as a tuple, or keywords as a dict."""
    if signature.kwargs:
        return arrays
    return tuple(map_tree(lambda name: arrays[name], tree) for tree in signature.args or ())


def parity(
    left: Model,
    right: Model,
    *,
    gradients: bool = True,
    tolerance: float = TOLERANCE,
    gradient_tolerance: float = GRADIENT_TOLERANCE,
    more: bool = True,
    orders: Orders | None = None,
    slack: Slack | None = None,
) -> ParityReport:
    """`compare` for two handles, on the example of `left` and, with `more`, at other dynamic sizes.

    Args:
        orders: how the axes of the inputs and outputs of `right` stand, where not as in `left`; for outputs only.
        slack: what rounding may do to the outputs, by the names of `left`, for inputs as `right` takes them. An output
            that is further off than `tolerance` is measured by one step, and where that is too little by all of it.
    """
    _check_arity(left.signature, right.signature)
    rows: list[ParityRow] = []
    for inputs, expected in _cases(left, more):
        strict = found = _output_rows(left, right, inputs, expected, tolerance, orders)
        if slack is not None and not all(row.ok for row in strict):
            found = _with_slack(strict, slack.steps)
            if not all(row.ok for row in found):
                given = inputs if orders is None else orders.to_native(inputs)
                found = _with_slack(strict, slack.measured(given))
        rows += found
    unmatched: tuple[str, ...] = ()
    if gradients:
        slopes, unmatched = _gradient_rows(left, right, example_of(left), gradient_tolerance)
        rows += slopes
    return ParityReport(left.backend, right.backend, tuple(rows), unmatched)


def tolerance_for(graph: Graph | None, tolerance: float = TOLERANCE) -> float:
    """The tolerance that a caller gives; where it is the usual one, that of the type that a graph computes in."""
    if graph is None or tolerance != TOLERANCE:
        return tolerance
    from onnx_ir import DataType

    halves = (value for value in graph.graph.initializers.values() if value.dtype == DataType.FLOAT16)
    is_half = any(node.op_type != "Cast" for value in halves for node, _ in value.uses())
    return HALF_TOLERANCE if is_half else tolerance


def _with_slack(rows: list[ParityRow], allowed: Mapping[str, float]) -> list[ParityRow]:
    """The rows that are not within their tolerance with what rounding explains beside it."""

    def tolerance(row: ParityRow) -> float:
        relative = row.max_rel / row.max_abs if 0 < row.max_abs < float("inf") else 0.0
        return row.tolerance + allowed.get(row.name, 0.0) * relative

    return [row if row.ok else replace(row, tolerance=tolerance(row)) for row in rows]


def _check_arity(left: Signature, right: Signature) -> None:
    for what in ("inputs", "outputs"):
        names, others = ([s.name for s in getattr(side, what)] for side in (left, right))
        if len(names) != len(others):
            raise DataError(f"the models cannot be compared: their {what} are {names} and {others}.")


def _cases(model: Model, more: bool) -> Iterator[tuple[Arrays, Arrays]]:
    """Inputs by name and what the model makes of them: its example and, with `more`, every dynamic size changed."""
    inputs = example_of(model)
    yield inputs, _run(model, inputs)
    sizes = model.signature.sizes(inputs)
    if more and sizes:
        yield _resized_case(model, inputs, sizes)


def _resized_case(model: Model, inputs: Arrays, sizes: dict[str, int]) -> tuple[Arrays, Arrays]:
    """Another batch size, and other sizes wherever the model itself runs with them: its code may need even ones."""
    batch, *rest = sizes
    sizes = {**sizes, batch: sizes[batch] + 1}
    if rest:
        drawn = model.signature.draw({**sizes, **{dim: another_size(sizes[dim]) for dim in rest}}, like=inputs, seed=1)
        with suppress(ModelPortError):
            return drawn, _run(model, drawn)
    drawn = model.signature.draw(sizes, like=inputs, seed=1)
    return drawn, _run(model, drawn)


def _rename(arrays: Arrays, source: Signature, target: Signature, what: str) -> Arrays:
    """Arrays, all or some, by the target's names: by name where they agree, else by position."""
    old, new = ([s.name for s in getattr(side, what)] for side in (source, target))
    pairs = zip(new, new if set(old) == set(new) else old, strict=True)
    return {name: arrays[other] for name, other in pairs if other in arrays}


def _run(model: Model, inputs: Arrays) -> Arrays:
    return registry.backend(model.backend).run(model.native, model.signature.bind(inputs), model.signature)


def _output_rows(
    left: Model, right: Model, inputs: Arrays, expected: Arrays, tolerance: float, orders: Orders | None
) -> list[ParityRow]:
    given = _rename(inputs, left.signature, right.signature, "inputs")
    found = _run(right, given if orders is None else orders.to_native(given))
    found = _rename(found if orders is None else orders.to_source(found), right.signature, left.signature, "outputs")
    batch = _batch_size(inputs)
    return [row for name in expected for row in _value_rows(name, batch, expected[name], found[name], tolerance)]


def _value_rows(name: str, batch: int, expected: Any, found: Any, tolerance: float) -> list[ParityRow]:
    """A row per array: one for each element of a sequence; an empty optional is only like another empty one."""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        items = enumerate(zip(expected, found, strict=True))
        return [row for i, pair in items for row in _value_rows(f"{name}[{i}]", batch, *pair, tolerance)]
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        return [measure(name, "output", batch, expected, found, tolerance)]
    error = 0.0 if expected is None and found is None else float("inf")
    return [ParityRow(name, "output", batch, error, error, tolerance)]


def _batch_size(inputs: Arrays) -> int:
    return next((len(array) for array in inputs.values() if isinstance(array, np.ndarray) and array.ndim), 1)


def measure(
    name: str, kind: Any, batch: int, expected: np.ndarray, found: np.ndarray, tolerance: float, floor: float = 0.0
) -> ParityRow:
    """One row: the error of `found` in the maximum norm.

    NaN and infinity count as equal only where both sides have the same one; a different shape, or other values of a
    type that is not floating, are an infinite error.

    Args:
        floor: the least reference magnitude that the error is divided by.
    """
    if expected.shape != found.shape:
        return ParityRow(name, kind, batch, float("inf"), float("inf"), tolerance)
    if expected.dtype.kind in "biuSUO":
        error = 0.0 if np.array_equal(expected, found) else float("inf")
        return ParityRow(name, kind, batch, error, error, tolerance)
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    left, right = expected.astype(wide), found.astype(wide)
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return ParityRow(name, kind, batch, float("inf"), float("inf"), tolerance)
    error = float(np.abs(left - right, where=finite, out=np.zeros(left.shape)).max(initial=0.0))
    scale = max(float(np.abs(left[finite]).max(initial=0.0)), floor)
    return ParityRow(name, kind, batch, error, error / scale if scale else error, tolerance)


def _gradient_rows(
    left: Model, right: Model, inputs: Arrays, tolerance: float
) -> tuple[list[ParityRow], tuple[str, ...]]:
    signatures = left.signature, right.signature
    first, second = registry.backend(left.backend), registry.backend(right.backend)
    if not (isinstance(first, Trainer) and isinstance(second, Trainer)):
        return [], ()
    outputs = _run(left, inputs)
    rng = np.random.default_rng(0)
    floats = {n: a for n, a in outputs.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"}
    cotangents = {n: rng.standard_normal(a.shape).astype(a.dtype) for n, a in floats.items()}
    if not cotangents:
        return [], ()
    expected = first.gradients(left.native, inputs, cotangents, left.signature)
    there = (_rename(inputs, *signatures, "inputs"), _rename(cotangents, *signatures, "outputs"))
    found = second.gradients(right.native, *there, right.signature)
    largest = max((float(np.abs(g).max(initial=0.0)) for g in expected.values()), default=0.0)
    batch, floor = _batch_size(inputs), _CANCELLED * largest
    rows = [
        measure(name, "gradient", batch, expected[name], found[name], tolerance, floor)
        for name in expected
        if name in found
    ]
    both = expected.keys() & found.keys()
    tied = {alias for model in (left, right) for alias, name in model.aliases.items() if name in both}
    return rows, tuple(sorted((expected.keys() ^ found.keys()) - tied))
