"""Gradients of torch models, and training."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
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
from modelport.core.errors import StepError
from modelport.core.signature import Arrays, Signature
from modelport.core.training import (
    BETAS,
    EPSILON,
    TINY,
    Batch,
    Epoch,
    Plan,
    Term,
    check_scalar,
    check_shapes,
    run_epochs,
)


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


def fit(
    native: Any,
    batches: Callable[[int], Iterable[Batch]],
    plan: Plan,
    signature: Signature,
    on_epoch: Callable[[Epoch], bool],
) -> tuple[Epoch, ...]:
    """Train a module in place; see `Trainer.fit`. Every submodule's train flag is as before afterwards."""
    module, device = as_module(native), device_of(native)
    state = weights(native)
    trained = {n: t for n, t in state.items() if isinstance(t, nn.Parameter) and t.requires_grad}
    still = {id(tensor) for name, tensor in state.items() if name in plan.frozen}
    learning = {id(tensor): tensor for tensor in trained.values() if id(tensor) not in still}
    if not learning:
        raise StepError("no parameter is left to train: freeze fewer layers.")
    masks = [(state[name], to_tensor(mask).to(device, state[name].dtype)) for name, mask in plan.masks.items()]
    optimizer = torch.optim.AdamW(learning.values(), betas=BETAS, weight_decay=plan.weight_decay)

    statistics = _PopulationVariance(module)

    def loss(batch: Batch) -> torch.Tensor:
        outputs = outputs_of(call_module(module, tensors_of(batch.inputs, signature, device)), signature)
        targets = {name: to_tensor(array).to(device) for name, array in batch.targets.items()}
        return torch.stack([term.weight * _loss(term, outputs[term.output], targets) for term in plan.terms]).sum()

    steps = count(1)

    def step(batch: Batch, rate: float) -> torch.Tensor:
        for group in optimizer.param_groups:
            # torch adds epsilon to the corrected root, the rule to the root as it is counted.
            group["lr"], group["eps"] = rate, EPSILON / math.sqrt(1 - BETAS[1] ** next(steps))
        optimizer.zero_grad()
        found = loss(batch)
        try:
            found.backward()
        except (NotImplementedError, RuntimeError) as error:
            raise StepError(f"torch finds no gradients of the loss: {error}") from error
        optimizer.step()
        with torch.no_grad():
            statistics.settle()
            for tensor, mask in masks:
                tensor.mul_(mask)
        return found.detach()

    def check(batch: Batch) -> torch.Tensor:
        with evaluating(module), torch.no_grad():
            return loss(batch)

    with _training(module, learning), statistics, torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return run_epochs(plan, batches, on_epoch, step=step, check=check)


def _loss(term: Term, output: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
    target = targets[term.target]
    if callable(term.kind):
        found = term.kind(output, target)
        check_scalar(term, found.shape)
        return found
    check_shapes(term, output.shape, target.shape)
    if term.kind in ("mse", "nmse"):
        rows = F.mse_loss(output, target.to(output.dtype), reduction="none")
        rows = rows / target.square().mean().clamp(min=TINY) if term.kind == "nmse" else rows
    elif term.kind == "binary_cross_entropy":
        rows = F.binary_cross_entropy_with_logits(output / term.temperature, target.to(output.dtype), reduction="none")
    elif term.kind == "cross_entropy":
        rows = -F.log_softmax(output, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    else:
        said, wanted = (F.log_softmax(each / term.temperature, -1) for each in (output, target.to(output.dtype)))
        rows = F.kl_div(said, wanted, reduction="none", log_target=True).sum(-1)
    if not term.counted:
        return rows.mean()
    counted = targets[term.counted].to(rows.dtype)
    return (rows * counted).sum() / counted.sum().clamp(min=1)


@contextmanager
def _training(module: nn.Module, learning: Collection[int]) -> Iterator[None]:
    """Training mode for the layers that learn; what is frozen has no gradients and counts no statistics."""
    flags = [(child, child.training) for child in module.modules()]
    still = [each for each in module.parameters() if each.requires_grad and id(each) not in learning]
    for child, _ in flags:
        own = {id(parameter) for parameter in child.parameters(recurse=False)}
        child.training = not own or not own.isdisjoint(learning)
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for child, training in flags:
            child.training = training
        for parameter in still:
            parameter.requires_grad_(True)


class _PopulationVariance:
    """BatchNorm layers count the variance of the batch itself, as ONNX's operator says and other frameworks do.

    torch divides by one element less, which in the last layers of a small net is more than a rounding.
    """

    def __init__(self, module: nn.Module) -> None:
        self._before: dict[nn.Module, torch.Tensor] = {}
        self._counts: dict[nn.Module, int] = {}
        self._handles = []
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                self._handles.append(layer.register_forward_pre_hook(self._remember))
                self._handles.append(layer.register_forward_hook(self._count))

    def __enter__(self) -> _PopulationVariance:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def settle(self) -> None:
        """Correct what the last step has counted; the gradient has been taken by then, which reads it."""
        for layer, old in self._before.items():
            counted, share = layer.running_var, layer.momentum
            if layer in self._counts and share is not None:
                counted.sub_((counted - (1 - share) * old) / self._counts[layer])
        self._before.clear()
        self._counts.clear()

    def _remember(self, layer: Any, inputs: Any) -> None:
        if layer.training and layer.running_var is not None:
            self._before[layer] = layer.running_var.clone()

    def _count(self, layer: Any, inputs: Any, output: torch.Tensor) -> None:
        if layer in self._before:
            self._counts[layer] = output.numel() // output.shape[1]
