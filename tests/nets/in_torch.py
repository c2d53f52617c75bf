"""The eight kinds of net, written as a PyTorch user writes them: `NETS[kind]() -> (module, example)`."""

from __future__ import annotations

import torch
from torch import nn


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Linear(16 * 4 * 4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(image)))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        return self.fc(self.drop(torch.flatten(x, 1)))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=4, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.grouped(x)))
        y = nn.functional.relu6(self.norm2(self.depthwise(y)))
        return torch.relu(x + self.pointwise(y))


class ResidualNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(16), ResidualBlock(16)])
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class LSTMNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 10, num_layers=2, batch_first=True)
        self.out = nn.Linear(10, 3)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(sequence)
        return self.out(hidden[:, -1])


class GRUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 8, batch_first=True, bidirectional=True)
        self.out = nn.Linear(16, 3)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.gru(sequence)
        return self.out(hidden.mean(1))


class Encoder(nn.Module):
    """A Transformer encoder with exact GELU; `mask` is True where a token counts."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.embed = nn.Linear(6, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(self.embed(tokens), src_key_padding_mask=~mask)
        return self.head(self.norm(hidden)[:, 0])


class EmbeddingClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.fc1 = nn.Linear(12, 16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(self.embedding(ids).mean(1))))


class DictNet(nn.Module):
    """Two inputs by name, two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.numeric = nn.Linear(5, 8)
        self.image = nn.Conv2d(1, 4, 3)
        self.regression = nn.Linear(12, 1)
        self.logits = nn.Linear(12, 3)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        numeric = torch.relu(self.numeric(inputs["numeric"]))
        image = torch.relu(self.image(inputs["image"])).amax((2, 3))
        joined = torch.cat([numeric, image], dim=1)
        return {"regression": self.regression(joined), "logits": self.logits(joined)}


def _settled(net: nn.Module) -> nn.Module:
    """BatchNorm statistics and affine weights that are not the trivial ones."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
            module.running_var.mul_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return net.eval()


def _example(kind: str, batch: int) -> object:
    g = torch.Generator().manual_seed(batch)
    if kind == "encoder":
        return torch.randn(batch, 7, 6, generator=g), torch.arange(7).expand(batch, 7) < 5
    if kind == "dict":
        numeric, image = torch.randn(batch, 5, generator=g), torch.randn(batch, 1, 8, 8, generator=g)
        return {"numeric": numeric, "image": image}
    if kind == "embedding":
        return torch.randint(0, 50, (batch, 9), generator=g)
    shape = {"mlp": (12,), "cnn": (3, 16, 16), "residual": (3, 16, 16), "lstm": (7, 6), "gru": (7, 6)}[kind]
    return torch.randn(batch, *shape, generator=g)


NETS = {
    "mlp": MLP,
    "cnn": CNN,
    "residual": ResidualNet,
    "lstm": LSTMNet,
    "gru": GRUNet,
    "encoder": Encoder,
    "embedding": EmbeddingClassifier,
    "dict": DictNet,
}


def net(kind: str) -> nn.Module:
    """A net with seeded weights, in eval mode."""
    torch.manual_seed(0)
    return _settled(NETS[kind]())


def example(kind: str, batch: int = 2) -> object:
    """Inputs in the native call's nesting."""
    return _example(kind, batch)
