"""Normalisations whose weights are no layer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Tensor


@op("LRN")
def lrn(x: Tensor, *, size: int, alpha: float = 0.0001, beta: float = 0.75, bias: float = 1.0) -> Any:
    squares = torch.square(x).unsqueeze(1)
    rest = (0, 0) * (x.rank - 2)
    squares = F.pad(squares, (*rest, (size - 1) // 2, size // 2))
    total = torch.zeros_like(x)
    for offset in range(size):
        total = total + torch.narrow(squares, 2, offset, x.size_of(1)).squeeze(1)
    return x / torch.pow(bias + alpha / size * total, beta)


@op("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Any:
    length = torch.norm(x, p, axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / length)


@op("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Any:
    mean = torch.mean(x, list(axes), keepdim=True)
    variance = torch.mean(torch.square(x), list(axes), keepdim=True) - torch.square(mean)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)
