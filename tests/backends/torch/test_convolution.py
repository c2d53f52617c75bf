"""Convolutions with as many groups as there are examples cross for any number of examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import modelport as mp
from modelport.backends.torch import BACKEND
from modelport.core.errors import UnsupportedModelError
from tests.backends.torch.test_export import differences, exported, operators


class PerExample(nn.Module):
    """Convolves every example with kernels of its own, which it makes of the example."""

    def __init__(self, rank: int = 2, kernel: int = 3, groups: int = 1, bias: bool = True, **settings: Any) -> None:
        super().__init__()
        self.shape, self.groups, self.settings = (8, 4 // groups, *[kernel] * rank), groups, settings
        self.kernels = nn.Linear(4, 8 * 4 // groups * kernel**rank)
        self.biases = nn.Linear(4, 8) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, *sizes = x.shape
        means = x.flatten(2).mean(2)
        kernels = self.kernels(means).view(batch * self.shape[0], *self.shape[1:])
        bias = None if self.biases is None else self.biases(means).view(-1)
        convolve = getattr(nn.functional, f"conv{len(sizes)}d")
        joined = x.reshape(1, batch * channels, *sizes)
        out = convolve(joined, kernels, bias, groups=self.groups * batch, **self.settings)
        return out.reshape(batch, self.shape[0], *out.shape[2:])


@pytest.mark.parametrize(
    "net",
    [
        PerExample(),
        PerExample(kernel=1),
        PerExample(kernel=1, stride=2),
        PerExample(rank=1, groups=2, padding=2, dilation=2, bias=False),
        PerExample(groups=4, stride=2, padding=1),
        PerExample(padding="same", kernel=2),
        PerExample(rank=3, padding="valid", kernel=2),
    ],
    ids=lambda net: f"{len(net.shape) - 2}d, {net.groups} groups, {net.settings}",
)
def test_kernels_that_are_made_of_each_example_cross(net: PerExample) -> None:
    sizes = (7, 6, 5)[: len(net.shape) - 2]
    assert max(differences(net.eval(), torch.randn(2, 4, *sizes))) < 1e-5


def test_they_do_for_images_of_any_size() -> None:
    net, example = PerExample(groups=2, padding=1, stride=2).eval(), torch.randn(2, 4, 7, 6)
    signature = BACKEND.signature(net, example).with_dims({"x": ("batch", 4, "height", "width")})
    graph = exported(net, example, signature).graph
    assert max(differences(net, example, signature, graph, height=9, width=5)) < 1e-5
    assert not operators(graph, "Loop")


def test_they_go_to_keras_and_come_home() -> None:
    net = PerExample(groups=2, padding=1, stride=2).eval()
    moved = mp.transfer(net, to="keras", example=torch.randn(2, 4, 7, 6))
    home = mp.transfer(moved, to="torch")
    assert set(home.parameters()) == set(net.state_dict())
    assert mp.compare(net, home, torch.randn(3, 4, 7, 6)).ok


def test_a_program_that_torch_exported_has_them_too() -> None:
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(PerExample().eval(), (torch.randn(2, 4, 7, 6),), dynamic_shapes=({0: batch},))
    assert mp.transfer(program, to="onnx", example=torch.randn(2, 4, 7, 6)).report.parity.ok


def test_a_transposed_one_is_refused_with_its_line() -> None:
    class Transposed(nn.Module):
        def forward(self, x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
            folded = x.reshape(1, -1, *x.shape[2:])
            return nn.functional.conv_transpose2d(folded, kernels.flatten(0, 1), groups=x.shape[0])

    with pytest.raises(UnsupportedModelError, match=r"test_convolution.py:\d+: return nn.functional.*fixed number"):
        exported(Transposed(), (torch.randn(2, 3, 5, 5), torch.randn(2, 3, 4, 3, 3)))
