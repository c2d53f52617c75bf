"""What a transfer costs beside the framework's own export: prints a table of medians.

Usage: PYTHONPATH=. python benchmarks/convert.py [REPEATS]

`framework` is the source framework's own export of the same model, in pairs with our transfers in one run:
`torch.onnx.export` with a dynamic batch, `keras.Model.export` to a SavedModel. `ours` is what modelport adds: normal
form, build and parity. `transfer` is the whole call, tracing and lowering included.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

import modelport as mp
from modelport.core.report import table

SIZE = 64


def torch_nets() -> dict[str, Callable[[], Any]]:
    from tests.nets.vision import torchvision_models

    names = ("resnet18", "mobilenet_v2", "convnext_tiny")
    return {name: lambda name=name: getattr(torchvision_models(), name)(weights=None).eval() for name in names}


def keras_nets() -> dict[str, Callable[[], Any]]:
    import keras

    names = ("ResNet50", "MobileNetV2", "EfficientNetB0")
    shape = (SIZE, SIZE, 3)
    return {
        name: lambda name=name: getattr(keras.applications, name)(weights=None, input_shape=shape) for name in names
    }


def torch_export(net: Any, example: Any) -> None:
    import torch

    batch = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(net, (torch.from_numpy(example),), dynamo=True, dynamic_shapes=(batch,), verbose=False)


def keras_export(net: Any, example: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        net.export(folder, verbose=False)


def timed(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure(make: Callable[[], Any], export: Callable[..., None], to: str, example: Any, repeats: int) -> list[float]:
    """Median seconds of the framework's own export, of what we add, and of the whole transfer, and of both ratios."""
    rows = []
    for _ in range(repeats):
        framework = timed(lambda: export(make(), example))
        started = time.perf_counter()
        report = mp.transfer(make(), to=to, example=example).report
        transfer = time.perf_counter() - started
        ours = report.seconds["build"] + report.seconds["parity"]
        rows.append((framework, ours, transfer, ours / framework, transfer / framework))
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def main(repeats: int) -> None:
    image = np.zeros((2, 3, SIZE, SIZE), "float32")
    cases = [("torch", "keras", torch_export, name, make, image) for name, make in torch_nets().items()]
    cases += [("keras", "torch", keras_export, name, make, None) for name, make in keras_nets().items()]
    rows = []
    for source, to, export, name, make, example in cases:
        figures = measure(make, export, to, example, repeats)
        rows.append((f"{source} -> {to}", name, *(f"{figure:.2f}" for figure in figures)))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "keras", "tensorflow", "onnx", "onnxruntime"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {libraries}; medians of {repeats}")
    header = ("", "net", "framework, s", "ours, s", "transfer, s", "ours / framework", "transfer / framework")
    print(table("seconds", header, rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
