"""Losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Tensor


@op("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    ignored = -(2**31) if ignore_index is None else ignore_index
    return F.nll_loss(x, target.to(torch.int64), weight, ignore_index=ignored, reduction=reduction)


@op("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    log_prob = F.log_softmax(scores, 1)
    ignored = -(2**31) if ignore_index is None else ignore_index
    loss = F.nll_loss(log_prob, labels.to(torch.int64), weights, ignore_index=ignored, reduction=reduction)
    return loss, log_prob
