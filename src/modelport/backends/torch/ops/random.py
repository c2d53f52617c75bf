"""Operators that draw random numbers, from torch's own generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Tensor


def _heed(seed: float | None, node: ir.Node, operands: Operands) -> None:
    """The standard does not say which numbers follow from a seed, so that nobody's are those of another framework."""
    if seed is not None:
        operands.note("changed", node, f"its seed {seed:g} is not used: torch.manual_seed says what is drawn")


@op("RandomUniform")
def random_uniform(
    *, shape: Sequence[int], low: float = 0.0, high: float = 1.0, dtype: int = 1, seed: float | None = None,
    node: ir.Node, operands: Operands, anchor: Tensor,
) -> Any:  # fmt: skip
    _heed(seed, node, operands)
    return torch.rand(list(shape), dtype=torch_dtype(dtype), device=anchor.device) * (high - low) + low


@op("RandomUniformLike")
def random_uniform_like(
    x: Tensor, *, low: float = 0.0, high: float = 1.0, dtype: int | None = None, seed: float | None = None,
    node: ir.Node, operands: Operands,
) -> Any:  # fmt: skip
    _heed(seed, node, operands)
    return torch.rand_like(x, dtype=x.element if dtype is None else torch_dtype(dtype)) * (high - low) + low


@op("RandomNormal")
def random_normal(
    *, shape: Sequence[int], mean: float = 0.0, scale: float = 1.0, dtype: int = 1, seed: float | None = None,
    node: ir.Node, operands: Operands, anchor: Tensor,
) -> Any:  # fmt: skip
    _heed(seed, node, operands)
    return torch.randn(list(shape), dtype=torch_dtype(dtype), device=anchor.device) * scale + mean


@op("RandomNormalLike")
def random_normal_like(
    x: Tensor, *, mean: float = 0.0, scale: float = 1.0, dtype: int | None = None, seed: float | None = None,
    node: ir.Node, operands: Operands,
) -> Any:  # fmt: skip
    _heed(seed, node, operands)
    return torch.randn_like(x, dtype=x.element if dtype is None else torch_dtype(dtype)) * scale + mean


@op("Bernoulli")
def bernoulli(
    x: Tensor, *, dtype: int | None = None, seed: float | None = None, node: ir.Node, operands: Operands
) -> Any:
    _heed(seed, node, operands)
    return torch.bernoulli(x).to(x.element if dtype is None else torch_dtype(dtype))


@op("Multinomial")
def multinomial(
    x: Tensor, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None, node: ir.Node, operands: Operands
) -> Any:
    _heed(seed, node, operands)
    # The input holds logarithms of probabilities, with any constant added.
    return torch.multinomial(torch.softmax(x, -1), sample_size, replacement=True).to(torch_dtype(dtype))
