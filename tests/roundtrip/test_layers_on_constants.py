"""A layer that a model calls on a constant keeps its weights, and computes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.xdist_group("roundtrip")


class Positions(torch.nn.Module):
    """(batch, 6, 4) -> the same, plus embedded positions and a bias computed from a table of coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(6, 4)
        self.bias = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4, bias=False))
        self.register_buffer("places", torch.arange(6)[None], persistent=False)
        self.register_buffer("coordinates", torch.linspace(-1, 1, 12).reshape(6, 2), persistent=False)

    def forward(self, x: Any) -> Any:
        return x + self.embed(self.places) + self.bias(self.coordinates)


def test_layers_on_constants_cross_with_their_weights() -> None:
    torch.manual_seed(0)
    net = Positions().eval()
    x = np.random.default_rng(0).standard_normal((2, 6, 4)).astype("float32")
    moved = mp.transfer(net, to="keras", example=(x,))
    assert set(moved.parameters()) == set(net.state_dict())
    trained = {weight.path for weight in moved.native.trainable_variables}
    assert len(trained) == 4
    assert mp.compare(net, moved, (x,)).ok
