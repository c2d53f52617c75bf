"""Small nets of several kinds, with rows that they can learn from, and the same net on each backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import modelport as mp

BACKENDS = ("torch", "keras", "onnx")


@dataclass(frozen=True)
class Case:
    """A net that torch makes, inputs, and the class of each row or position."""

    net: Callable[[], Any]
    x: np.ndarray
    y: np.ndarray


def _rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _classes(x: np.ndarray, count: int) -> np.ndarray:
    """Classes that follow from the rows."""
    flat = x.reshape(len(x), -1).astype(np.float32)
    return (flat @ _rows(flat.shape[1], count, seed=7)).argmax(-1)


def perceptron() -> Any:
    """Two Linear layers with Dropout between them."""
    from torch import nn

    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def images() -> Any:
    """A convolution with BatchNorm, a second one, and Dropout."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 4),
    )  # fmt: skip


def recurrent() -> Any:
    """An embedding and an LSTM in both directions."""
    import torch
    from torch import nn

    class Net(nn.Module):
        """Looks at the last step."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
            self.out = nn.Linear(16, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.lstm(self.embed(ids))[0].mean(1))

    return Net()


def transformer() -> Any:
    """An encoder layer over an embedding with places, which says a class at each step."""
    import torch
    from torch import nn

    class Net(nn.Module):
        """A class per step."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 8)
            self.place = nn.Parameter(0.02 * torch.randn(5, 8))
            layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.out = nn.Linear(8, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.encoder(self.embed(ids) + self.place))

    return Net()


_IDS = np.random.default_rng(3).integers(0, 11, (40, 5))
CASES = {
    "perceptron": Case(perceptron, _rows(48, 6), _classes(_rows(48, 6), 3)),
    "images": Case(images, _rows(48, 2, 8, 8), _classes(_rows(48, 2, 8, 8), 4)),
    "recurrent": Case(recurrent, _IDS, _IDS[:, 0] % 3),
    "transformer": Case(transformer, _IDS, np.where(_IDS > 8, -100, _IDS % 4)),
}


@cache
def form(name: str, backend: str) -> mp.Model:
    """The net of a case on a backend; every backend has the same weights."""
    import torch

    if backend != "torch":
        return mp.transfer(form(name, "torch"), to=backend)
    torch.manual_seed(0)
    return mp.transfer(CASES[name].net().eval(), to="torch", example=torch.from_numpy(CASES[name].x[:4]))


def losses(model: mp.Model) -> list[float]:
    """The loss of every epoch of the first step that trained."""
    return [epoch.loss for epoch in model.report.epochs[0][1]]
