"""Indexing by tensors crosses as Gather, at any batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.backends.torch.test_export import differences, exported, operators

ORDER = torch.tensor([2, -1, 0, 1])
ROW, COLUMN = torch.tensor([3, 0, -2]), torch.tensor([[1], [-1]])
SQUARE = torch.tensor([[0, 1, -1], [3, 2, 0]])

CASES: dict[str, Callable[[torch.Tensor], Any]] = {
    "one axis": lambda x: x[:, ORDER],
    "one axis behind": lambda x: x[..., SQUARE],
    "the batch": lambda x: x.flip(0)[torch.zeros(2, dtype=torch.long)],
    "a grid": lambda x: x[:, :, COLUMN, ROW],
    "two axes at once": lambda x: x[:, :, SQUARE, SQUARE.flip(0)],
    "two axes in the middle": lambda x: x[:, ORDER, ORDER],
    "all but the batch": lambda x: x[:, ORDER, ORDER.flip(0), ORDER],
    "axes apart": lambda x: x[:, ORDER, :, ORDER],
    "a number and a tensor": lambda x: x[:, 1, ORDER],
}


class Indexing(nn.Module):
    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case

    def forward(self, x: torch.Tensor) -> Any:
        return CASES[self.case](x)


@pytest.mark.parametrize("case", CASES)
def test_elements_are_taken_as_in_torch(case: str) -> None:
    assert max(differences(Indexing(case), torch.randn(2, 4, 5, 6))) == 0
    graph = exported(Indexing(case), torch.randn(2, 4, 5, 6)).graph
    assert case == "axes apart" or not operators(graph, "GatherND", "Transpose")


def written(start: int | None, end: int | None, step: int = 1) -> Callable[[torch.Tensor], Any]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, slice(start, end, step)] += 1
        return y

    return forward


WRITES = {
    "everything": (None, None),
    "the start": (None, 2),
    "the middle": (1, 3),
    "the end": (-2, None),
    "more than there is": (1, 99),
    "every second": (0, None, 2),
}


@pytest.mark.parametrize("case", WRITES)
def test_a_part_is_written_as_in_torch(case: str) -> None:
    class Writing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return written(*WRITES[case])(x)

    assert max(differences(Writing(), torch.randn(2, 4, 5))) == 0
    graph = exported(Writing(), torch.randn(2, 4, 5)).graph
    assert case == "every second" or not operators(graph, "ScatterND")
