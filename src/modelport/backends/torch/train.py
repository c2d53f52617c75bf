"""Gradients of torch models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from modelport.backends.torch.parameters import weights
from modelport.backends.torch.run import (
    as_module,
    call_module,
    device_of,
    evaluating,
    outputs_of,
    tensors_of,
    to_numpy,
    to_tensor,
)
from modelport.core.signature import Arrays, Signature


def gradients(native: Any, inputs: Arrays, cotangents: Arrays, signature: Signature) -> Arrays:
    """The gradient of `sum(output * cotangent)` over the outputs, in inference mode; `.grad` stays as it is.

    Returns:
        One array per parameter that requires a gradient, by its name in the state dict; zeros where the outputs do
        not depend on it.
    """
    module, device = as_module(native), device_of(native)
    trained = {n: t for n, t in weights(native).items() if isinstance(t, nn.Parameter) and t.requires_grad}
    call = tensors_of(inputs, signature, device)
    # cuDNN's recurrent kernels have no backward pass in inference mode.
    with evaluating(module), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        outputs = outputs_of(call_module(module, call), signature)
        reached = {name: tensor for name, tensor in outputs.items() if name in cotangents and tensor.requires_grad}
        found: Sequence[torch.Tensor | None] = [None] * len(trained)
        if reached and trained:
            weighted = [to_tensor(cotangents[name]).to(device, tensor.dtype) for name, tensor in reached.items()]
            found = torch.autograd.grad([*reached.values()], [*trained.values()], weighted, allow_unused=True)
    return {
        name: to_numpy(torch.zeros_like(tensor) if gradient is None else gradient)
        for (name, tensor), gradient in zip(trained.items(), found, strict=True)
    }
