"""Adaptive pooling crosses for every pair of sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from modelport.backends.torch.translations.pooling import windows
from tests.backends.torch.test_export import differences, exported, operators


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
@pytest.mark.parametrize("output", [(1, 1), (3, 2), (6, 6), (7, 4), (4, 3)])
def test_an_adaptive_pooling_computes_the_same(pool: type[nn.Module], output: tuple[int, int]) -> None:
    assert max(differences(pool(output), torch.randn(2, 3, 6, 4))) < 1e-6


@pytest.mark.parametrize(
    "pool", [nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d]
)
def test_it_does_for_any_number_of_axes(pool: type[nn.Module]) -> None:
    axes = 1 if "1d" in pool.__name__ else 3
    assert max(differences(pool(4), torch.randn(2, 3, *(5, 7, 3)[:axes]))) < 1e-6


def test_equal_parts_are_an_ordinary_pooling() -> None:
    graph = exported(nn.AdaptiveAvgPool2d((2, 3)), torch.randn(2, 3, 6, 6)).graph
    assert [node.op_type for node in graph.graph] == ["AveragePool"]
    assert not operators(graph, "GatherND")


@pytest.mark.parametrize(("size", "count"), [(1, 6), (6, 6), (7, 3), (5, 4), (13, 7)])
def test_the_windows_are_those_of_torch(size: int, count: int) -> None:
    line = torch.randn(1, size)
    indices, weights = windows(size, count)
    expected = nn.functional.adaptive_avg_pool1d(line, count)[0].numpy()
    np.testing.assert_allclose((line[0].numpy()[indices] * weights).sum(1), expected, rtol=1e-5, atol=1e-6)
