"""A converted model against the same architecture written natively in the target framework: prints ratios of latencies.

Usage: PYTHONPATH=. python benchmarks/latency.py [NET ...] [--pairs N] [--batch N ...] [--depth N] [--to BACKEND ...]

Each figure is the median over pairs of calls, one of each model right after the other and in turns first, so that what
else the machine does falls on both. The models have the same layers and sizes and random weights (see `nets.py`), and
are called as users call them: torch in eval mode under `torch.inference_mode`, Keras inside one `tf.function`. Images
are in the layout of the target framework (`layout="native"`) for both.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

import modelport as mp
from benchmarks.nets import Net, nets
from modelport.core.report import table

WARM_UP = 2


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Latency(NamedTuple):
    """Median seconds of the native model's call, and the median ratio of the converted model's to it."""

    native: float
    ratio: float


@dataclass(frozen=True)
class Pairs:
    """How pairs are measured.

    Attributes:
        count: of pairs.
        clock: seconds since some time.
    """

    count: int
    clock: Callable[[], float]

    def of(self, converted: Callable[[], Any], native: Callable[[], Any]) -> Latency:
        """Time two calls in turns."""
        for _ in range(WARM_UP):
            converted(), native()
        times: list[tuple[float, float]] = []
        for turn in range(self.count):
            order = (converted, native) if turn % 2 else (native, converted)
            seconds = dict(zip(order, map(self._seconds, order), strict=True))
            times.append((seconds[converted], seconds[native]))
        return Latency(statistics.median(b for _, b in times), statistics.median(a / b for a, b in times))

    def _seconds(self, call: Callable[[], Any]) -> float:
        started = self.clock()
        call()
        return self.clock() - started


def torch_call(model: Any, inputs: tuple[np.ndarray, ...]) -> Callable[[], Any]:
    """A model's call in inference mode, on tensors."""
    import torch

    tensors = [torch.from_numpy(x) for x in inputs]

    def call() -> Any:
        with torch.inference_mode():
            return model(*tensors)

    return call


def keras_call(model: Any) -> Callable[[tuple[np.ndarray, ...]], Callable[[], Any]]:
    """A model's call in one `tf.function`, which is traced once for all batch sizes."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def function(*tensors: Any) -> Any:
        return model(tensors[0] if len(tensors) == 1 else list(tensors), training=False)

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    concrete = function.get_concrete_function(*specs)

    def bound(inputs: tuple[np.ndarray, ...]) -> Callable[[], Any]:
        tensors = [tf.constant(x) for x in inputs]
        return lambda: concrete(*tensors)

    return bound


def to_keras(net: Net, batches: list[int], pairs: Pairs) -> dict[int, Latency]:
    moved = mp.transfer(net.torch(), to="keras", example=net.inputs(2), layout="native").native
    ours, theirs = keras_call(moved), keras_call(net.keras())
    found = {}
    for batch in batches:
        inputs = net.keras_inputs(batch)
        found[batch] = pairs.of(ours(inputs), theirs(inputs))
    return found


def to_torch(net: Net, batches: list[int], pairs: Pairs) -> dict[int, Latency]:
    moved = mp.transfer(net.keras(), to="torch", layout="native").native
    native = net.torch()
    found = {}
    for batch in batches:
        inputs = net.inputs(batch)
        found[batch] = pairs.of(torch_call(moved, inputs), torch_call(native, inputs))
    return found


DIRECTIONS = {"keras": to_keras, "torch": to_torch}


def main() -> None:
    options = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    options.add_argument("nets", nargs="*", help="by name; all of them where there is none")
    options.add_argument("--pairs", type=int, default=15)
    options.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    options.add_argument("--depth", type=int, default=12, help="layers of the transformers")
    options.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall", help="cpu: what a busy machine does not add to"
    )
    options.add_argument("--to", nargs="+", choices=tuple(DIRECTIONS), default=list(DIRECTIONS))
    given = options.parse_args()
    pairs = Pairs(given.pairs, CLOCKS[given.clock])
    rows, ratios = [], []
    for name, net in nets(given.depth).items():
        if given.nets and name not in given.nets:
            continue
        for to in given.to:
            for batch, latency in DIRECTIONS[to](net, given.batch, pairs).items():
                ratios.append(latency.ratio)
                rows.append((f"-> {to}", name, str(batch), f"{1e3 * latency.native:.1f}", f"{latency.ratio:.2f}"))
                print(*rows[-1], sep="  ", flush=True)
            gc.collect()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "keras", "tensorflow"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {libraries}")
    print(f"medians of {given.pairs} pairs, {given.clock} time, transformers of {given.depth} layers")
    print(table("converted / native", ("", "net", "batch", "native, ms", "ratio"), rows))
    print(f"median {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
