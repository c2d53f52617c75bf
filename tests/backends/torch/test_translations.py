"""Operators of torch that torch.onnx has no form for: what leaves for ONNX computes what torch computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import modelport as mp
from modelport.core.errors import UnsupportedOpError
from modelport.core.signature import leaves

rng = np.random.default_rng(0)
ROWS = rng.standard_normal((4, 6)).astype("float32")
OTHERS = rng.standard_normal((4, 6)).astype("float32")
MATRICES = (rng.standard_normal((2, 3, 3)) + 3 * np.eye(3)[[1, 0, 2]]).astype("float32")
IDS = rng.integers(0, 8, (4, 3))
TABLE = torch.from_numpy(rng.standard_normal((8, 5)).astype("float32"))


def order_statistics(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
    sequence = y.sort(1)[0]
    return (
        x.kthvalue(2), x.median(1), x.median(1, keepdim=True)[0], x.median(), x.aminmax(), x.aminmax(dim=1),
        torch.searchsorted(sequence, x), torch.searchsorted(sequence[0], x, right=True),
        torch.searchsorted(sequence[0], 0.1, out_int32=True), torch.searchsorted(y, x, sorter=y.argsort(1)),
    )  # fmt: skip


def running(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
    equal = (x * 2).round()
    hole = torch.where(torch.arange(6) == 3, torch.nan, x)
    return x.cummax(1), equal.cummax(1), x.cummin(1), equal.cummin(1), x.cumprod(1), hole.cummax(1)[0], hole.cummin(1)


def distances(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
    many = torch.cat([x] * 7)
    return *(torch.cdist(x, y, p) for p in (0.0, 1.0, 2.0, 3.0, math.inf)), torch.cdist(many, y), F.pdist(x.T[:, :4])


def numbers(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
    hole = torch.where(x > 1, torch.nan, x)
    whole = (x * 3).int()
    return (
        torch.fmax(hole, y), torch.fmin(y, hole), torch.fmax(whole, whole * 0), torch.hypot(x, y), x.copysign(y),
        torch.signbit(x), torch.signbit(0 * x), torch.signbit(whole), torch.erfinv(x.tanh()), F.rrelu(x),
        F.bilinear(x, y, TABLE.new_ones(3, 6, 6), TABLE.new_ones(3)), torch.erfinv(x.sign()),
    )  # fmt: skip


def elements(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
    places = (y * 10).long().abs() % 6
    return (
        x.scatter_reduce(1, places, y, "mean"), x.scatter_reduce(1, places[:, :3], y, "mean", include_self=False),
        x.scatter_reduce(1, places, y, "amax"), x.masked_select(y > 0), x.masked_select(y[:1] > 0),
        x.T.contiguous().index_put((torch.tensor([0, 2], dtype=torch.int32),), torch.tensor(5.0)),
    )  # fmt: skip


def matrices(x: torch.Tensor) -> tuple[Any, ...]:
    positive = x @ x.mT + torch.eye(3)
    return (
        torch.linalg.inv(x), torch.linalg.solve(x, x.flip(1)), torch.linalg.solve(x, x[..., 0]),
        torch.linalg.solve(x, x.flip(1), left=False), torch.linalg.slogdet(x), torch.linalg.cholesky(positive),
        torch.linalg.cholesky_ex(positive, upper=True)[0], torch.inverse(torch.eye(3).roll(1, 0) + 0 * x),
        torch.linalg.solve_triangular(x.tril(), x, upper=False), torch.linalg.solve_triangular(x.triu(), x, upper=True),
        torch.linalg.solve_triangular(x.triu(), x, upper=True, left=False, unitriangular=True),
    )  # fmt: skip


def bags(ids: torch.Tensor) -> tuple[Any, ...]:
    flat, begins = ids.flatten(), torch.tensor([0, 3, 3, 7])
    factors = torch.linspace(0, 1, 3).expand(ids.shape)
    return (
        *(F.embedding_bag(ids, TABLE, mode=mode) for mode in ("sum", "mean", "max")),
        *(F.embedding_bag(ids, TABLE, mode=mode, padding_idx=2) for mode in ("sum", "mean", "max")),
        *(F.embedding_bag(flat, TABLE, begins, mode=mode) for mode in ("sum", "mean", "max")),
        *(F.embedding_bag(flat, TABLE, begins, mode=mode, padding_idx=2) for mode in ("sum", "mean", "max")),
        F.embedding_bag(ids, TABLE, mode="sum", per_sample_weights=factors),
        F.embedding_bag(flat, TABLE, torch.tensor([0, 3, 3, 12]), mode="mean", include_last_offset=True),
    )


def simulated_quantization(x: torch.Tensor) -> tuple[Any, ...]:
    scales, zeros = torch.linspace(0.01, 0.1, 6), torch.arange(6, dtype=torch.int32)
    return (
        torch.fake_quantize_per_tensor_affine(x, 0.02, 3, -128, 127),
        torch.fake_quantize_per_tensor_affine(x, 0.02, 3, 0, 255),
        torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -7, 7),
        torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.02), torch.tensor(3), -128, 127),
        torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, -128, 127),
        torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, -127, 127),
    )


CASES: dict[Callable[..., Any], tuple[np.ndarray, ...]] = {
    order_statistics: (ROWS, OTHERS),
    running: (ROWS, OTHERS),
    distances: (ROWS, OTHERS),
    numbers: (ROWS, OTHERS),
    elements: (ROWS, OTHERS),
    matrices: (MATRICES,),
    bags: (IDS,),
    simulated_quantization: (ROWS,),
}


class Computing(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return tuple(leaves(self.function(*inputs)))


@pytest.mark.parametrize("to", ["onnx", "keras"])
@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_what_leaves_torch_computes_what_torch_computes(function: Callable[..., Any], to: str) -> None:
    inputs = CASES[function]
    moved = mp.transfer(Computing(function), to=to, example=inputs, check=False)
    assert not [note for note in moved.report.notes if note.kind == "fallback"]
    expected = Computing(function)(*map(torch.from_numpy, inputs))
    found = moved(inputs)
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.numpy().dtype
        largest = np.abs(np.nan_to_num(theirs.numpy(), posinf=0, neginf=0)).max(initial=1)
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: x.cummax(0), "cummax along axis 0, whose size .* is not fixed"),
        (lambda x: F.pdist(x), "pdist over .* rows has no ONNX form"),
        (lambda x: torch.linalg.inv(torch.eye(40) + x.sum()), "inverse of a matrix with 40 rows"),
    ],
)
def test_what_has_no_form_is_said(function: Callable[..., Any], told: str) -> None:
    with pytest.raises(UnsupportedOpError, match=told):
        mp.transfer(Computing(function), to="onnx", example=ROWS)
