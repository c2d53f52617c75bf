"""Products of matrices."""

from __future__ import annotations

from typing import Any

import torch

from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Tensor


@op("MatMul")
def matmul(a: Tensor, b: Tensor) -> Any:
    return torch.matmul(a, b)


@op("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    if c is not None and c.rank == 1 and (transA, transB, alpha, beta) == (0, 1, 1, 1) and a.element.is_floating_point:
        return torch.nn.functional.linear(a, b, c)
    y = torch.matmul(a.transpose(0, 1) if transA else a, b.transpose(0, 1) if transB else b)
    y = y if alpha == 1 else y * alpha
    if c is None or beta == 0:
        return y
    return y + (c if beta == 1 else c * beta)


@op("Einsum")
def einsum(*operands: Tensor, equation: str) -> Any:
    return torch.einsum(equation.replace(" ", ""), *operands)


@op("Det")
def det(x: Tensor) -> Any:
    return torch.linalg.det(x)
