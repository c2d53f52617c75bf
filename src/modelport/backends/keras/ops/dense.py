"""Layers recognised in the graph whose weights are computed, or shared with something else."""

from __future__ import annotations

from typing import Any

from keras import ops

from modelport.backends.keras.ops.registry import op
from modelport.backends.keras.ops.tensors import plus


@op("Linear", domain="modelport")
def linear(x: Any, weight: Any, bias: Any = None, *, transposed: int = 0) -> Any:
    product = ops.matmul(x, weight if transposed else ops.transpose(weight))
    return product if bias is None else plus(product, bias)


@op("Embedding", domain="modelport")
def embedding(ids: Any, weight: Any) -> Any:
    return ops.take(weight, ids, axis=0)
