"""Networks as people write them in their own repositories, small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def _block(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.GroupNorm(4, outer), nn.SiLU(),
        nn.Conv2d(outer, outer, 3, padding=1), nn.GroupNorm(4, outer), nn.SiLU(),
    )  # fmt: skip


class DiffusionUNet(nn.Module):
    """A U-Net that is told the time step by its sines and cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _block(3, 8), _block(8, 16), _block(16, 32)
        self.lift2, self.up2 = nn.ConvTranspose2d(32, 16, 2, 2), _block(32, 16)
        self.lift1, self.up1 = nn.ConvTranspose2d(16, 8, 4, 2, 1), _block(16, 8)
        self.out = nn.Conv2d(8, 1, 1)
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(8, device=x.device) / 8)
        angles = t[:, None].float() * frequencies[None]
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        y = self.middle(F.avg_pool2d(second, 2)) + time[:, :, None, None]
        y = self.up2(torch.cat([self.lift2(y), second], 1))
        y = self.up1(torch.cat([self.lift1(y), first], 1))
        return torch.sigmoid(self.out(y))


class GraphConvolution(nn.Module):
    """Two rounds of messages along the edges of a graph, added up by `index_add`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(7, 16), nn.Linear(16, 4)

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        def received(x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])

        return F.log_softmax(self.second(received(F.relu(self.first(received(nodes))))), -1)


class SelectiveScan(nn.Module):
    """A state space whose steps depend on the input, unrolled in Python."""

    def __init__(self, width: int = 8, states: int = 4) -> None:
        super().__init__()
        self.states = states
        self.decay = nn.Parameter(-torch.rand(width, states))
        self.skip = nn.Parameter(torch.ones(width))
        self.project = nn.Linear(width, 2 * states + 1)
        self.conv = nn.Conv1d(width, width, 4, groups=width, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        x = F.silu(self.conv(x.transpose(1, 2))[..., :length].transpose(1, 2))
        step, into, out = self.project(x).split([1, self.states, self.states], -1)
        step = F.softplus(step)
        keep = torch.exp(step.unsqueeze(-1) * self.decay)
        added = (step * into).unsqueeze(2) * x.unsqueeze(-1)
        state, outputs = torch.zeros(batch, width, self.states), []
        for i in range(length):
            state = keep[:, i] * state + added[:, i]
            outputs.append((state * out[:, i, None]).sum(-1))
        return torch.stack(outputs, 1) + x * self.skip


class Translator(nn.Module):
    """An encoder and a decoder of GRUs, with attention over words that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16, padding_idx=0)
        self.encoder = nn.GRU(16, 16, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(16, 32, batch_first=True)
        self.align, self.out = nn.Linear(32, 32), nn.Linear(64, 30)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, state = self.encoder(self.embed(source))
        decoded, _ = self.decoder(self.embed(target), torch.cat([state[0], state[1]], -1)[None])
        scores = torch.bmm(self.align(decoded), memory.transpose(1, 2))
        weights = torch.softmax(scores.masked_fill((source == 0)[:, None], float("-inf")), -1)
        return self.out(torch.cat([decoded, weights @ memory], -1))


class RotaryAttention(nn.Module):
    """Causal attention with rotated positions, two heads of queries to one of keys."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(width, width // 2, bias=False), nn.Linear(width, width // 2, bias=False)
        self.register_buffer("turns", 1 / (10000 ** (torch.arange(0, self.size, 2) / self.size)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        angles = torch.outer(torch.arange(length, dtype=torch.float), self.turns)
        cosine, sine = angles.cos(), angles.sin()

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, -1, self.size).transpose(1, 2)

        def turned(y: torch.Tensor) -> torch.Tensor:
            even, odd = y[..., ::2], y[..., 1::2]
            return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)

        query, key = turned(split(self.query(x))), turned(split(self.key(x))).repeat_interleave(2, 1)
        value = split(self.value(x)).repeat_interleave(2, 1)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class Spectrogram(nn.Module):
    """Sound as the logarithm of its frequencies, filtered, and back to sound."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.conv = nn.Conv1d(17, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = torch.stft(x, 32, 16, window=self.window, return_complex=True)
        whole = torch.fft.rfft(x)
        smooth = torch.fft.irfft(whole * torch.exp(-0.1 * torch.arange(whole.shape[-1])), n=x.shape[-1])
        return self.conv(torch.log1p(frequencies.abs())), smooth


class SpatialTransformer(nn.Module):
    """An image that is moved as a linear layer says."""

    def __init__(self) -> None:
        super().__init__()
        self.localize = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = F.affine_grid(self.localize(x).view(-1, 2, 3), x.shape, align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


class DetectionHead(nn.Module):
    """Boxes over a grid, with anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 21, 1)
        )  # fmt: skip
        self.register_buffer("anchors", torch.rand(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        batch, _, high, wide = y.shape
        y = y.view(batch, 3, 7, high, wide).permute(0, 1, 3, 4, 2)
        cells = torch.stack(torch.meshgrid(torch.arange(wide), torch.arange(high), indexing="xy"), -1)
        centre = (y[..., :2].sigmoid() + cells) / torch.tensor([wide, high])
        size = y[..., 2:4].exp() * self.anchors[None, :, None, None]
        return torch.cat([centre, size, y[..., 4:].sigmoid()], -1).flatten(1, 3)


class MixtureOfExperts(nn.Module):
    """The two experts that a gate prefers for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = torch.topk(self.gate(x).softmax(-1), 2, -1)
        every = torch.stack([expert(x) for expert in self.experts], -2)
        found = torch.gather(every, -2, chosen.unsqueeze(-1).expand(*chosen.shape, 8))
        return (found * weights.unsqueeze(-1)).sum(-2)


class Recommender(nn.Module):
    """Bags of categories, and the products of every two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(20, 8, mode="sum") for _ in range(3))
        self.dense = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.out = nn.Linear(8 + 6, 1)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        bags = [bag(categories[:, i]) for i, bag in enumerate(self.bags)]
        features = torch.stack([self.dense(numbers), *bags], 1)
        products = features @ features.transpose(1, 2)
        row, column = torch.tril_indices(4, 4, -1)
        return torch.sigmoid(self.out(torch.cat([features[:, 0], products[:, row, column]], 1)))


class Codebook(nn.Module):
    """A vector-quantized code: the nearest of 16 vectors, passed straight through for gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.ConvTranspose1d(4, 4, 4, 2, 1)
        self.slope = nn.Parameter(torch.ones(1, 4, 1))
        self.codes = nn.Parameter(torch.randn(16, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.lift(x)
        x = (x + (x * self.slope).sin().pow(2) / (self.slope + 1e-9)).transpose(1, 2)
        nearest = torch.cdist(x, self.codes[None].expand(x.shape[0], -1, -1)).argmin(-1)
        code = F.embedding(nearest, self.codes)
        return x + (code - x).detach(), nearest


class TextReader(nn.Module):
    """Columns of an image read by an LSTM, as words for CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.read = nn.LSTM(64, 16, 2, bidirectional=True, dropout=0.1)
        self.out = nn.Linear(32, 11)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.max_pool2d(F.relu(self.conv(x)), (4, 2))
        batch, channels, high, wide = y.shape
        columns = y.permute(3, 0, 1, 2).reshape(wide, batch, channels * high)
        return F.log_softmax(self.out(self.read(columns)[0]), -1)


class Written(NamedTuple):
    """A network and its inputs.

    Attributes:
        make: the network.
        inputs: shapes of float32 inputs, or (shape, limit) of whole numbers below a limit.
        dynamic: the axes that may have any size beside the batch.
    """

    make: Callable[[], Any]
    inputs: tuple[Any, ...]
    dynamic: dict[int, str] | None = None

    def example(self) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(0)
        return tuple(
            rng.integers(1, each[1], each[0]) if isinstance(each[0], tuple) else rng.standard_normal(each).astype("f4")
            for each in self.inputs
        )


WRITTEN = {
    "diffusion U-Net": Written(DiffusionUNet, ((2, 3, 32, 32), ((2,), 100))),
    "graph convolution": Written(GraphConvolution, ((10, 7), ((2, 30), 10))),
    "selective scan": Written(SelectiveScan, ((2, 6, 8),)),
    "translator": Written(Translator, (((2, 7), 30), ((2, 5), 30))),
    "rotary attention": Written(RotaryAttention, ((2, 7, 32),), {1: "length"}),
    "spectrogram": Written(Spectrogram, ((2, 160),)),
    "spatial transformer": Written(SpatialTransformer, ((2, 3, 16, 16),)),
    "detection head": Written(DetectionHead, ((2, 3, 32, 32),)),
    "mixture of experts": Written(MixtureOfExperts, ((2, 5, 8),)),
    "recommender": Written(Recommender, ((2, 5), ((2, 3, 4), 20))),
    "codebook": Written(Codebook, ((2, 4, 8),)),
    "text reader": Written(TextReader, ((2, 1, 32, 40),)),
}
