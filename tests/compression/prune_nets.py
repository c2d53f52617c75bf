"""Small nets, each with a kind of coupling between channels: `NETS[kind]() -> (module, example)`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.down = None if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + (x if self.down is None else self.down(x)))


class Images(nn.Module):
    """Blocks on images of 3 channels, and a linear head on what they make."""

    def __init__(self, blocks: nn.Module, channels: int, flat: int = 0) -> None:
        super().__init__()
        self.blocks, self.flat = blocks, flat
        self.head = nn.Linear(flat or channels, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(x)
        return self.head(torch.flatten(y, 1) if self.flat else y.mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 6 * i), nn.ReLU(), nn.Conv2d(8 + 6 * i, 6, 3, padding=1)) for i in range(3)
        )
        self.transition = nn.Conv2d(26, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return F.avg_pool2d(self.transition(torch.cat(found, 1)), 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.scale * self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.less, self.more = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y * torch.sigmoid(self.more(torch.relu(self.less(y.mean((2, 3), keepdim=True)))))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 12, 3, padding=1)
        self.resized = nn.Conv2d(12 + 16, 10, 1)
        self.norm, self.slope = nn.InstanceNorm2d(10, affine=True), nn.PReLU(10)
        self.out = nn.Conv2d(10, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = torch.relu(self.one(x))
        two = torch.relu(self.two(one))
        y = self.join(torch.cat([one, torch.relu(self.up(two))], 1))
        y = torch.cat([F.max_pool2d(y, 2), two], 1)
        y = F.interpolate(self.resized(y), scale_factor=2.0, mode="bilinear")
        return self.out(self.slope(self.norm(y)))


class Shuffle(nn.Module):
    """Halves of the channels, one through a branch, then shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(nn.Conv2d(half, 6, 1), nn.ReLU(), nn.Conv2d(6, half, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([one, self.branch(two)], 1), 2)


class Gated(nn.Module):
    """A fused projection that is split in two, one of which gates the other; group norm and pixel shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.both = nn.Conv2d(channels, 32, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.wide = nn.Conv2d(16, 4 * 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.both(x).chunk(2, 1)
        return F.pixel_shuffle(self.wide(self.norm(one * torch.sigmoid(two))), 2)


class Attention(nn.Module):
    """Attention with separate or fused projections, and fewer heads of keys than of queries."""

    def __init__(self, width: int, heads: int, groups: int = 1, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.groups, self.size, self.fused = heads, groups, width // heads, fused
        few = width // groups
        if fused:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, few), nn.Linear(width, few)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        if self.fused:
            shape = (batch, length, 3, self.heads, self.size)
            q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (p(x).view(batch, length, -1, self.size).transpose(1, 2) for p in (self.q, self.k, self.v))
            k, v = (each.repeat_interleave(self.groups, 1) for each in (k, v))
        scores = torch.softmax(q @ k.transpose(-2, -1) / self.size**0.5, -1)
        return self.out((scores @ v).transpose(1, 2).reshape(batch, length, width))


class Transformer(nn.Module):
    def __init__(self, groups: int = 1, fused: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(24), nn.LayerNorm(24), nn.LayerNorm(24)
        self.attention = Attention(24, 6, groups, fused)
        self.mlp = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], 1) + self.places
        y = y + self.attention(self.norm1(y))
        y = y + self.mlp(self.norm2(y))
        return self.head(self.norm3(y)[:, 0])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], both: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 12)
        self.cell = kind(12, 10, num_layers=2, batch_first=True, bidirectional=both)
        self.out = nn.Linear(20 if both else 10, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.cell(self.embed(ids))[0].amax(1))


def _mobile() -> nn.Module:
    def block(channels: int, wide: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Conv2d(wide, channels, 1),
        ]

    class Residual(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + super().forward(x)

    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), Residual(*block(12, 24)), Residual(*block(12, 24)))


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: Images(nn.Sequential(nn.Conv2d(3, 16, 3), Bottleneck(16, 8, 16), Bottleneck(16, 8, 24, 2)), 24),
    "resnext": lambda: Images(nn.Sequential(nn.Conv2d(3, 16, 3), Bottleneck(16, 16, 16, 1, 4)), 16),
    "densenet": lambda: Images(Dense(), 12),
    "mobilenet": lambda: Images(_mobile(), 12),
    "convnext": lambda: Images(nn.Sequential(nn.Conv2d(3, 12, 4, 4), ConvNeXtBlock(12), ConvNeXtBlock(12)), 12),
    "squeeze": lambda: Images(nn.Sequential(nn.Conv2d(3, 8, 3), SqueezeExcite(8)), 8),
    "flat": lambda: Images(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 6, 3)), 6, 6 * 5 * 5),
    "unet": UNet,
    "shuffle": lambda: Images(nn.Sequential(nn.Conv2d(3, 16, 1), Shuffle(16), nn.Conv2d(16, 8, 1)), 8),
    "gated": lambda: Images(nn.Sequential(nn.Conv2d(3, 8, 1), Gated(8), nn.Conv2d(6, 8, 3)), 8),
    "attention": Transformer,
    "fused": lambda: Transformer(fused=True),
    "grouped_queries": lambda: Transformer(groups=2),
    "lstm": lambda: Recurrent(nn.LSTM),
    "bidirectional": lambda: Recurrent(nn.LSTM, both=True),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
}

RECURRENT = {"lstm", "bidirectional", "gru", "rnn"}


def net(kind: str) -> nn.Module:
    """A net with seeded weights and BatchNorm statistics that are not the trivial ones."""
    torch.manual_seed(0)
    made = NETS[kind]()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.add_(torch.randn(tensor.shape) * 0.2)
            module.running_var.mul_(torch.rand(module.running_var.shape) + 0.5)
    return made.eval()


def example(kind: str, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    if kind in RECURRENT:
        return torch.randint(0, 30, (batch, 7), generator=generator)
    return torch.randn(batch, 3, 16, 16, generator=generator)
