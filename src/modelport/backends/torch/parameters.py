"""The parameters and persistent buffers of a torch model, by their names in its state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from modelport.backends.torch.run import as_module, to_numpy, to_tensor
from modelport.core.errors import DataError
from modelport.core.signature import Arrays

COUNTER = "num_batches_tracked"
"""How often a BatchNorm has been trained: bookkeeping of torch, no weight."""


def weights(native: Any) -> dict[str, torch.Tensor]:
    """The tensors of the state dict themselves, without the batch counters of BatchNorm layers."""
    if isinstance(native, ExportedProgram):
        state: Mapping[str, Any] = native.state_dict
    else:
        state = as_module(native).state_dict(keep_vars=True)
    return {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and name.rpartition(".")[2] != COUNTER
    }


def ties(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The further names of tensors that have several: alias -> the first name."""
    first: dict[Any, str] = {}
    aliases = {}
    for name, tensor in state.items():
        identity = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else id(tensor)
        if first.setdefault(identity, name) != name:
            aliases[name] = first[identity]
    return aliases


def parameters(native: Any) -> Arrays:
    """Every parameter and persistent buffer as an array of its own; tied ones under each of their names."""
    return {name: to_numpy(tensor).copy() for name, tensor in weights(native).items()}


def assign(native: Any, parameters: Mapping[str, Any]) -> None:
    """Copy values into a model's parameters and persistent buffers, in place; nothing changes where one does not fit.

    A tied tensor may be given under any of its names. Optimizers keep their references.

    Raises:
        DataError: a name is missing or unknown, a shape or the kind of a dtype differs, or two names of one tensor
            have two values; all of them are named.
    """
    state = weights(native)
    problems = _problems(state, parameters)
    if problems:
        raise DataError(f"the parameters do not fit {type(native).__name__}: " + "; ".join(problems) + ".")
    with torch.no_grad():
        for name, value in parameters.items():
            if name in state:
                state[name].copy_(to_tensor(value))


def _problems(state: Mapping[str, torch.Tensor], given: Mapping[str, Any]) -> list[str]:
    canonical = {name: name for name in state} | ties(state)
    values: dict[str, Any] = {}
    problems = []
    unknown = [name for name in given if name not in state and name.rpartition(".")[2] != COUNTER]
    for name, value in given.items():
        if name not in state:
            continue
        array = value if isinstance(value, torch.Tensor) else np.asarray(value)
        problems += _misfit(name, state[name], array)
        other = values.setdefault(canonical[name], array)
        if other is not array and not _equal(other, array):
            problems.append(f"{name!r} and {canonical[name]!r} are one tensor and have two values")
    missing = [name for name in state if canonical[name] not in values]
    if missing:
        problems.append(f"missing {missing}")
    if unknown:
        problems.append(f"unknown {unknown}")
    return problems


def _misfit(name: str, tensor: torch.Tensor, value: Any) -> list[str]:
    if tuple(value.shape) != tuple(tensor.shape):
        return [f"{name!r} has shape {tuple(value.shape)}, the model's is {tuple(tensor.shape)}"]
    dtype = to_tensor(value).dtype
    if not torch.can_cast(dtype, tensor.dtype) or dtype.is_floating_point != tensor.dtype.is_floating_point:
        return [f"{name!r} has dtype {dtype}, the model's is {tensor.dtype}"]
    return []


def _equal(a: Any, b: Any) -> bool:
    return np.array_equal(to_numpy(to_tensor(a)), to_numpy(to_tensor(b)), equal_nan=True)
