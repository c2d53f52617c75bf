"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.registry import op
from modelport.backends.keras.ops.tensors import along, cast, dtype, rank, size


@op("NegativeLogLikelihoodLoss")
def negative_log_likelihood(
    log_probabilities: Any, target: Any, weight: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    classes = size(log_probabilities, 1)
    target = cast(target, "int64")
    ignored = None if ignore_index is None else ops.equal(target, ignore_index)
    if ignored is not None:
        target = ops.where(ignored, ops.zeros_like(target), target)
    hot = cast(
        ops.equal(ops.expand_dims(target, 1), along(np.arange(classes), 1, rank(log_probabilities))),
        dtype(log_probabilities),
    )
    loss = ops.negative(ops.sum(ops.multiply(hot, log_probabilities), axis=1))
    share = ops.ones_like(loss)
    if weight is not None:
        share = ops.sum(ops.multiply(hot, ops.reshape(weight, (1, -1, *[1] * (rank(hot) - 2)))), axis=1)
    if ignored is not None:
        share = ops.where(ignored, ops.zeros_like(share), share)
    loss = ops.multiply(loss, share)
    if reduction == "none":
        return loss
    total = ops.sum(loss)
    return total if reduction == "sum" else ops.divide(total, ops.sum(share))


@op("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    scores: Any,
    labels: Any,
    weights: Any = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> Any:
    log_probabilities = ops.log_softmax(scores, axis=1)
    loss = negative_log_likelihood(log_probabilities, labels, weights, ignore_index=ignore_index, reduction=reduction)
    return (loss, log_probabilities) if outputs > 1 else loss
