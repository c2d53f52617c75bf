"""What a model costs: parameters, operations, memory and time, layer by layer, on any backend."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelport.core import registry
from modelport.core.costs import ProfileReport
from modelport.core.errors import DataError, SignatureError
from modelport.core.model import Model
from modelport.core.signature import Arrays, Signature
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.subject import example_of, exported, subject

RUNS = 30
"""Timed runs: enough for a 95th percentile that is not the slowest run."""

_WARM_UP = 3
"""Runs that are not timed: the first opens sessions, traces and fills caches."""


def profile(
    model: Any,
    *,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
    batch: int | None = None,
    runs: int = RUNS,
) -> ProfileReport:
    """What a model costs to hold and to run, in inference mode.

    Operations are counted on the portable graph, so that one model counts alike in every framework: one
    multiply-accumulate (MAC) is two floating-point operations (FLOPs). MACs are those of convolutions, matrix products,
    attention and recurrences, as `torch.utils.flop_counter` and fvcore count them (fvcore and torchvision's tables call
    them FLOPs); FLOPs have biases, elementwise work, normalizations and poolings too. Peak memory is that of the
    activations alone, by their life in the graph's order. Latency is measured on the model's own backend, where it is.

    Args:
        model: a native model, a `Model` or a path.
        example: as for `transfer`; sizes other than the batch are its sizes.
        signature: as for `transfer`.
        dynamic: as for `transfer`.
        batch: rows of every input; 1 where it is not given and the model takes any number.
        runs: how many runs are timed, after 3 that are not; at least 2.

    Returns:
        A `ProfileReport`: a row per layer, sums, latency; what could not be counted is listed in it.

    Raises:
        UnsupportedModelError: no backend owns the model, or its framework cannot trace it.
        UnsupportedOpError: an operator has no portable form.
        SignatureError: the inputs are not known or do not fit, or the model has another batch size than `batch` fixed.
        DataError: `batch` or `runs` is too small.

    Example:
        >>> print(mp.profile(net, example=x))    # doctest: +SKIP
    """
    if runs < 2 or (batch is not None and batch < 1):
        raise DataError(f"profile takes runs of at least 2 and a batch of at least 1, not runs={runs}, batch={batch}.")
    source = subject(model, example=example, signature=signature, dynamic=dynamic)
    inputs = _at_batch(source, batch)

    from modelport.graph.cost.count import count

    shapes = {spec.name: np.shape(inputs[spec.name]) for spec in source.signature.inputs if spec.is_tensor}
    cost = count(exported(source).graph, shapes)
    seconds = latency(source, inputs, runs)
    return ProfileReport(
        source.backend,
        {spec.name: _told(spec.dtype, inputs[spec.name]) for spec in source.signature.inputs},
        cost.layers(),
        cost.peak.nbytes,
        cost.peak.node,
        float(np.median(seconds) * 1e3),
        float(np.percentile(seconds, 95) * 1e3),
        runs,
        cost.uncounted,
    )


def latency(model: Model, inputs: Mapping[str, Any], runs: int = RUNS) -> np.ndarray:
    """The wall time of some runs of a model, in seconds, one after the other and after 3 that are not timed.

    Args:
        model: the model, on its own backend and device.
        inputs: arrays by input name.
        runs: how many are timed.

    Raises:
        SignatureError: the inputs do not fit.
    """
    backend = registry.backend(model.backend)
    arrays = model.signature.bind(dict(inputs))
    times = np.empty(_WARM_UP + runs)
    for index in range(len(times)):
        started = time.perf_counter()
        backend.run(model.native, arrays, model.signature)
        times[index] = time.perf_counter() - started
    return times[_WARM_UP:]


def _at_batch(model: Model, batch: int | None) -> Arrays:
    """The model's example with another number of rows."""
    inputs = example_of(model)
    first = model.signature.inputs[0].shape if model.signature.inputs else None
    rows = first[0] if first else None
    if isinstance(rows, str):
        sizes = {**model.signature.sizes(inputs), rows: 1 if batch is None else batch}
        return model.signature.draw(sizes, like=inputs)
    if batch is not None and batch != rows:
        raise SignatureError(
            f"batch={batch}, but the model's first axis is {'not there' if rows is None else f'always {rows}'}: "
            f'{model.signature}. Leave batch= out, or call the axis dynamic: dynamic={{0: "batch"}}.'
        )
    return inputs


def _told(dtype: str, value: Any) -> str:
    return f"{dtype}({', '.join(map(str, np.shape(value)))})" if isinstance(value, np.ndarray) else dtype
