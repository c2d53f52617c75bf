"""Weights by portable name: in a graph that is what the initializers are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from modelport.backends.onnx.export import as_graph
from modelport.backends.onnx.run import forget
from modelport.core.errors import DataError
from modelport.core.signature import Arrays
from modelport.graph.proto import to_graph
from modelport.graph.weights import aliases, roles


def parameters(native: Any) -> Arrays:
    """Every weight by name, tied ones under each of their names; read-only where they lie in the model or its files."""
    graph = as_graph(native)
    initializers = graph.graph.initializers
    found = {name: initializers[name].const_value for name in roles(graph)}
    arrays = {name: tensor.numpy() for name, tensor in found.items() if tensor is not None}
    return arrays | {alias: arrays[name] for alias, name in aliases(graph).items() if name in arrays}


def assign(native: Any, parameters: Mapping[str, Any]) -> None:
    """Set every weight; nothing is changed where one does not fit.

    Raises:
        DataError: a name is missing or unknown, a shape differs, or two names of one tied weight have two values.
    """
    graph = native if isinstance(native, ir.Model) else to_graph(native)
    tied = aliases(graph)
    weights = {name: graph.graph.initializers[name] for name in roles(graph)}
    given = {name: np.asarray(value) for name, value in parameters.items()}
    _check(weights, tied, given)
    arrays = {
        name: np.ascontiguousarray(given[name], value.const_value.dtype.numpy()) for name, value in weights.items()
    }
    if isinstance(native, ir.Model):
        for name, value in weights.items():
            value.const_value = ir.Tensor(arrays[name].copy(), value.const_value.dtype, name=name)
    else:
        _write(native, arrays)
    forget(native)


def _check(weights: Mapping[str, ir.Value], tied: Mapping[str, str], given: Arrays) -> None:
    problems = [f"missing {name!r}" for name in weights if name not in given]
    problems += [f"unknown {name!r}" for name in given if name not in weights and name not in tied]
    for name, value in weights.items():
        shape = () if value.const_value is None else tuple(value.const_value.shape.numpy())
        if name in given and given[name].shape != shape:
            problems.append(f"{name!r} has shape {given[name].shape}, the model has {shape}")
    for alias, name in tied.items():
        if alias in given and name in given and not np.array_equal(given[alias], given[name]):
            problems.append(f"{alias!r} and {name!r} are one weight and have two values")
    if problems:
        raise DataError(f"the weights do not fit, and nothing was changed: {'; '.join(problems)}.")


def _write(native: onnx.ModelProto, arrays: Arrays) -> None:
    for tensor in native.graph.initializer:
        if tensor.name in arrays:
            written = onnx.numpy_helper.from_array(arrays[tensor.name], tensor.name)
            written.data_type = tensor.data_type
            tensor.CopyFrom(written)
