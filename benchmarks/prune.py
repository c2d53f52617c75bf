"""Structured pruning to half of the multiply-accumulates: what is left of the latency in ONNX Runtime.

Usage: PYTHONPATH=. python benchmarks/prune.py [NET ...] [--pairs N]

The ratio of channels is found by bisection until the pruned net has half of the multiply-accumulates. The two nets are
called in turns with a batch of one, on one thread; the ratio of latencies is the median over the turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import modelport as mp
from benchmarks.compress import ratios
from modelport.core.report import table

NETS = ("resnet50", "mobilenet_v2", "densenet121", "convnext_tiny", "vit_b_16", "lstm")


def _net(name: str) -> tuple[Any, np.ndarray]:
    import torch

    from tests.nets.vision import settled, torchvision_models
    from tests.zoo.crossing import draw

    torch.manual_seed(0)
    if name == "lstm":
        rows = np.random.default_rng(0).standard_normal((2, 64, 128)).astype("float32")
        return _lstm().eval(), rows
    images = draw(8, (3, 224, 224))
    return settled(getattr(torchvision_models(), name)(weights=None), images), images[:2]


def _lstm() -> Any:
    """Two layers of 256, and a Linear layer on the last step."""
    from torch import nn

    class Net(nn.Module):
        """Reads steps, gives ten numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.LSTM(128, 256, num_layers=2, batch_first=True)
            self.out = nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            return self.out(self.inner(x)[0][:, -1])

    return Net()


def halved(net: Any, example: np.ndarray) -> tuple[float, mp.Model, float]:
    """The share of channels that goes, the net without them, and the share of multiply-accumulates that it has."""
    source = mp.transfer(net, to="onnx", example=example, check=False)
    whole = mp.profile(source).macs
    low, high = 0.1, 0.6
    best: tuple[float, mp.Model, float] | None = None
    for _ in range(6):
        ratio = (low + high) / 2
        small = mp.compress(source, mp.Prune(ratio, structured=True))
        share = mp.profile(small).macs / whole
        if best is None or abs(share - 0.5) < abs(best[2] - 0.5):
            best = ratio, small, share
        low, high = (ratio, high) if share > 0.5 else (low, ratio)
    assert best is not None
    return best


def measure(name: str, pairs: int) -> tuple[str, ...]:
    """One row of the table."""
    net, example = _net(name)
    ratio, small, share = halved(net, example)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        mp.save(net, before, example=example, check=False)
        small.save(after, check=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        feeds = {onnxruntime.InferenceSession(before).get_inputs()[0].name: example[:1]}
        latency = ratios([before, after], feeds, pairs, options)[1]
        size = after.stat().st_size / before.stat().st_size
    return name, f"{ratio:.2f}", f"{share:.2f}", f"{size:.2f}", f"{latency:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--pairs", type=int, default=31)
    options = parser.parse_args()
    rows = [measure(name, options.pairs) for name in options.nets or NETS]
    print(table("half of the multiply-accumulates", ("net", "channels gone", "MACs", "file", "latency"), rows))


if __name__ == "__main__":
    main()
