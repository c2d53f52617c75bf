"""Small tasks with real data, and a net for each that learns it in seconds.

Handwritten digits are scikit-learn's; names of countries, of which the language is to be told, are those of the CLDR
that Babel carries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import modelport as mp

LANGUAGES = ("cs", "de", "el", "es", "fi", "fr", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr")
LENGTH = 24
"""Characters of a name that are looked at."""


@dataclass(frozen=True)
class Data:
    """Rows to learn from and rows to be tested on.

    Attributes:
        x: inputs to learn from.
        y: their classes.
        test_x: inputs that are held out.
        test_y: their classes.
    """

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    def accuracy(self, model: mp.Model) -> float:
        """The share of held-out rows whose class a model tells."""
        return float(np.mean(model.predict(self.test_x, batch_size=128).argmax(-1) == self.test_y))


@cache
def digits() -> Data:
    """Images (rows, 1, 8, 8) of 0 to 1, and ten classes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _split((x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int64))


@cache
def names() -> Data:
    """Code numbers of characters (rows, 24) with 0 behind the last, and a class per language.

    Names that are the same in two languages are left out.
    """
    from babel import Locale

    found = [
        (name, place)
        for place, language in enumerate(LANGUAGES)
        for code, name in sorted(Locale(language).territories.items())
        if code.isalpha()
    ]
    often = Counter(name for name, _ in found)
    found = [(name, place) for name, place in found if often[name] == 1]
    known = {char: number + 1 for number, char in enumerate(sorted({char for name, _ in found for char in name}))}
    x = np.zeros((len(found), LENGTH), np.int64)
    for row, (name, _) in zip(x, found, strict=True):
        numbers = [known[char] for char in name[:LENGTH]]
        row[: len(numbers)] = numbers
    return _split(x, np.array([place for _, place in found]))


def _split(x: np.ndarray, y: np.ndarray) -> Data:
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    cut = len(x) * 2 // 3
    return Data(x[:cut], y[:cut], x[cut:], y[cut:])


def digits_cnn() -> Any:
    """Two convolutions and two Linear layers, with BatchNorm and Dropout."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def small_resnet() -> Any:
    """Three stages of two residual blocks each."""
    import torch
    from torch import nn

    class Block(nn.Module):
        """Two convolutions beside a shortcut."""

        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
            self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            same = stride == 1 and channels == out
            self.down = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside = torch.relu(self.norm1(self.first(x)))
            return torch.relu(self.norm2(self.second(inside)) + self.down(x))

    sizes = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *(Block(*each) for each in sizes),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def names_lstm() -> Any:
    """An embedding and an LSTM in both directions; the mean over the characters is classified."""
    import torch
    from torch import nn

    class Net(nn.Module):
        """Character by character."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(_characters(), 48)
            self.lstm = nn.LSTM(48, 64, batch_first=True, bidirectional=True)
            self.out = nn.Linear(128, len(LANGUAGES))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.lstm(self.embed(ids))[0].amax(1))

    return Net()


def names_transformer() -> Any:
    """Two encoder layers over characters and their places."""
    import torch
    from torch import nn

    class Net(nn.Module):
        """All characters at once."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(_characters(), 64)
            self.place = nn.Parameter(0.02 * torch.randn(LENGTH, 64))
            layer = nn.TransformerEncoderLayer(64, 4, 128, 0.1, "gelu", batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(64, len(LANGUAGES))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.encoder(self.embed(ids) + self.place).amax(1))

    return Net()


def _characters() -> int:
    data = names()
    return int(max(data.x.max(), data.test_x.max())) + 1


@dataclass(frozen=True)
class Task:
    """Data, a torch net for them, and how long it learns."""

    data: Callable[[], Data]
    net: Callable[[], Any]
    epochs: int

    def learned(self, seed: int = 0) -> mp.Model:
        """The net, trained, as a `Model` on torch."""
        import torch

        torch.manual_seed(seed)
        data = self.data()
        step = mp.FineTune((data.x, data.y), epochs=self.epochs, learning_rate=2e-3, schedule="cosine")
        return mp.compress(self.net().eval(), step)


TASKS = {
    "digits CNN": Task(digits, digits_cnn, 12),
    "digits ResNet": Task(digits, small_resnet, 12),
    "names LSTM": Task(names, names_lstm, 12),
    "names Transformer": Task(names, names_transformer, 12),
}
