"""`compress` against ONNX Runtime's own quantizer on its defaults: size, agreement and ratios of latencies.

Usage: PYTHONPATH=. python benchmarks/compress.py [NET ...] [--pairs N] [--rows N] [--depth N]

Both tools get the same ONNX model and the same rows of calibration data. The three models (float32, the peer's int8 and
ours) are called in turns by ONNX Runtime with a batch of one; a ratio is the median over the turns. The statistics of
BatchNorm are those of a batch, so that activations have the range of a trained net's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, quantize_static

import modelport as mp
from benchmarks.nets import nets
from modelport.core.report import table

QUANTIZED = ("resnet50", "mobilenet_v2", "bert")
Feeds = dict[str, np.ndarray]


class Rows(CalibrationDataReader):  # type: ignore[misc]
    """The calibration data, four rows at a time."""

    def __init__(self, data: Feeds) -> None:
        rows = len(next(iter(data.values())))
        self.left = iter([{name: x[i : i + 4] for name, x in data.items()} for i in range(0, rows, 4)])

    def get_next(self) -> Feeds | None:
        return next(self.left, None)


def _net(name: str, depth: int, rows: int) -> tuple[Any, Feeds]:
    import torch

    from tests.nets.vision import settled
    from tests.zoo.crossing import draw

    torch.manual_seed(0)
    net = nets(depth)[name].torch()
    if nets(depth)[name].images:
        data = draw(rows, (3, 224, 224))
        return settled(net, data[:16]), {"x": data}
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 30522, (rows, 128))
    return net, {"ids": ids, "mask": np.ones_like(ids)}


def snr(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def ratios(paths: list[Path], feeds: Feeds, pairs: int, options: Any = None) -> list[float]:
    sessions = [onnxruntime.InferenceSession(path, options) for path in paths]
    times: list[list[float]] = []
    for turn in range(pairs + 2):
        row = []
        for session in sessions:
            started = time.perf_counter()
            session.run(None, feeds)
            row.append(time.perf_counter() - started)
        if turn > 1:
            times.append(row)
    return [statistics.median(row[place] / row[0] for row in times) for place in range(len(paths))]


def measure(name: str, *, pairs: int, rows: int, depth: int) -> list[tuple[object, ...]]:
    """Two rows of the table: the peer's and ours."""
    net, data = _net(name, depth, rows)
    with tempfile.TemporaryDirectory() as folder:
        float32, peer, ours = (Path(folder) / f"{label}.onnx" for label in ("float32", "peer", "ours"))
        mp.save(net, float32, example=tuple(x[:2] for x in data.values()))
        names = [value.name for value in onnxruntime.InferenceSession(float32).get_inputs()]
        feeds = dict(zip(names, data.values(), strict=True))
        quantize_static(float32, peer, Rows(feeds))
        one = {n: x[:1] for n, x in feeds.items()}
        small = mp.compress(float32, mp.Quantize("int8", calibration=feeds), example=one)
        mp.save(small, ours)
        fresh = {n: np.roll(x, 1, 0)[:8] for n, x in feeds.items()}
        outputs = [onnxruntime.InferenceSession(path).run(None, fresh)[0] for path in (float32, peer, ours)]
        found = ratios([float32, peer, ours], one, pairs)
        sizes = [path.stat().st_size for path in (float32, peer, ours)]
    return [
        (name, label, f"{sizes[i] / sizes[0]:.3f}", f"{snr(outputs[0], outputs[i]):.1f}", f"{found[i]:.2f}")
        for i, label in ((1, "quantize_static"), (2, "modelport"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("nets", nargs="*", default=QUANTIZED)
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--depth", type=int, default=12)
    options = parser.parse_args()
    rows = []
    for name in options.nets or QUANTIZED:
        rows += measure(name, pairs=options.pairs, rows=options.rows, depth=options.depth)
    print(table("static int8, batch 1", ("net", "by", "file", "SNR, dB", "latency"), rows))


if __name__ == "__main__":
    main()
