"""What a model computes with but does not keep is no weight, on any side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import modelport as mp

pytestmark = pytest.mark.xdist_group("roundtrip")


class Positions(nn.Module):
    """Adds a table that is no part of its state, and looks at what a mask lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(40, 40)
        self.register_buffer("table", torch.randn(30, 40), persistent=False)
        self.register_buffer("mask", torch.rand(30, 40) > 0.5, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, self.linear(x + self.table), 0.0)


def test_large_constants_come_home_as_constants(tmp_path: Path) -> None:
    import keras

    torch.manual_seed(0)
    net, x = Positions(), torch.randn(2, 30, 40)
    moved = mp.transfer(net, to="keras", example=x)
    assert set(moved.parameters()) == set(net.state_dict())
    assert len(moved.native.trainable_weights) == 2
    moved.native.save(tmp_path / "m.keras")
    home = mp.transfer(keras.saving.load_model(tmp_path / "m.keras"), to="torch")
    assert set(home.native.state_dict()) == set(net.state_dict())
    np.testing.assert_allclose(home(x.numpy()), net(x).detach().numpy(), rtol=1e-5, atol=1e-6)
