"""What a net written by hand computes in place is computed in place; nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import modelport as mp

X = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype("float32")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.act = nn.ReLU6()

    def forward(self, image: Any) -> Any:
        x = self.relu(image)
        y = self.act(self.bn(self.conv(x)))
        z = self.bn(self.conv(y)) + y
        return self.relu(z), torch.relu(torch.sigmoid(z))


def _calls(module: Any) -> dict[str, list[bool]]:
    """Whether each call writes over its input, by function."""
    found: dict[str, list[bool]] = {}
    for node in module.graph.nodes:
        name = getattr(node.target, "__name__", str(node.target))
        found.setdefault(name.rstrip("_"), []).append(bool(node.kwargs.get("inplace")) or name.endswith("_"))
    return found


def test_an_activation_writes_over_what_a_layer_made_for_it_alone() -> None:
    torch.manual_seed(0)
    net = Block().eval()
    moved = mp.transfer(mp.transfer(net, to="onnx", example=X), to="torch").native
    calls = _calls(moved)
    assert calls["relu6"] == [True]
    assert calls["add"] == [True]
    # The first Relu would change the caller's image, the others a value that is used again or needed for gradients.
    assert calls["relu"] == [False, False, False]
    image = torch.from_numpy(X.copy()).requires_grad_()
    given = image.detach().clone()
    total = sum(output.square().sum() for output in moved(image))
    total.backward()
    np.testing.assert_array_equal(image.detach(), given)
    twin = torch.from_numpy(X.copy()).requires_grad_()
    sum(output.square().sum() for output in net(twin)).backward()
    np.testing.assert_allclose(image.grad, twin.grad, rtol=1e-4, atol=1e-4)
