"""How much memory a transfer takes beside the model: prints the peak as a multiple of the model's weights.

Usage: python benchmarks/memory.py [GIGABYTES] [torch-keras | keras-torch | torch-onnx | ...]

One process per direction makes a stack of Linear layers, notes its resident memory, transfers it with parity checked,
and notes the greatest resident memory on the way (`VmHWM` of Linux, reset before the transfer). A model on ONNX is a
bundle that another process has saved; the pages of its mapped file that the transfer reads, which the system can drop
at any time, count as the source's and not as the transfer's.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 4096
DIRECTIONS = ("torch-keras", "torch-onnx", "keras-torch", "keras-onnx", "onnx-torch", "onnx-keras")


def resident(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def torch_net(layers: int) -> Any:
    import torch

    return torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers))).eval()


def keras_net(layers: int) -> Any:
    import keras

    return keras.Sequential([keras.Input((WIDTH,)), *(keras.layers.Dense(WIDTH) for _ in range(layers))])


def bundle(layers: int, folder: Path) -> Any:
    """A loaded bundle of as many layers, all of whose pages have been read."""
    import modelport as mp

    if not (path := folder / f"{layers}.mport").exists():
        command = f"import memory, sys; memory.save({layers}, {str(path)!r})"
        subprocess.run([sys.executable, "-c", command], check=True, cwd=Path(__file__).parent)
    model = mp.load(path)
    for array in model.parameters().values():
        array.max()
    return model


def save(layers: int, path: str) -> None:
    import modelport as mp

    mp.save(torch_net(layers), path, example=np.zeros((2, WIDTH), "float32"), check=False)


def measure(gigabytes: float, direction: str, folder: Path) -> None:
    """Print weights, memory before and peak of one transfer."""
    import modelport as mp

    source, target = direction.split("-")
    makers = {"torch": torch_net, "keras": keras_net, "onnx": lambda layers: bundle(layers, folder)}
    make = makers[source]
    example = np.zeros((2, WIDTH), "float32")
    mp.transfer(make(1), to=target, example=None if source == "onnx" else example)
    layers = round(gigabytes * 1e9 / (4 * WIDTH * (WIDTH + 1)))
    net = make(layers)
    gc.collect()
    weights, before = 4.0 * layers * WIDTH * (WIDTH + 1), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    moved = mp.transfer(net, to=target, example=None if source == "onnx" else example)
    peak = resident("VmHWM")
    after = resident("VmRSS")
    assert moved.report.parity.ok
    figures = {"weights": weights, "before": before, "peak": peak, "after": after}
    told = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in figures.items())
    print(f"{direction}: {told}, (peak - before) / weights = {(peak - before) / weights:.2f}")


def main(gigabytes: float, directions: tuple[str, ...]) -> None:
    for direction in directions:
        subprocess.run([sys.executable, __file__, str(gigabytes), direction, "here"], check=True)


if __name__ == "__main__":
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    if sys.argv[3:] == ["here"]:
        with tempfile.TemporaryDirectory() as folder:
            measure(size, sys.argv[2], Path(folder))
    else:
        main(size, tuple(sys.argv[2:]) or DIRECTIONS)
