"""What a transfer costs beside the framework's own export: prints a table of medians.

Usage: PYTHONPATH=. python benchmarks/convert.py [REPEATS]

`ours / export` is everything modelport adds (normal form, build, parity) divided by the time that the source framework
itself takes to trace and export the model, in the same process and run.
"""

from __future__ import annotations

import platform
import statistics
import sys
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


def measure(make: Callable[[], Any], to: str, example: Any, repeats: int) -> tuple[float, float, float]:
    """Median seconds of export, build and parity."""
    reports = [mp.transfer(make(), to=to, example=example).report for _ in range(repeats)]
    export, build, parity = (
        statistics.median(r.seconds[stage] for r in reports) for stage in ("export", "build", "parity")
    )
    return export, build, parity


def main(repeats: int) -> None:
    image = np.zeros((2, 3, SIZE, SIZE), "float32")
    cases = [("torch", "keras", name, make, image) for name, make in torch_nets().items()]
    cases += [("keras", "torch", name, make, None) for name, make in keras_nets().items()]
    rows = []
    for source, to, name, make, example in cases:
        export, build, parity = measure(make, to, example, repeats)
        ratio = (build + parity) / export
        rows.append((f"{source} -> {to}", name, *(f"{s:.2f}" for s in (export, build, parity)), f"{ratio:.2f}"))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "keras", "tensorflow", "onnx", "onnxruntime"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {libraries}; median of {repeats}")
    print(table("seconds", ("", "net", "export", "build", "parity", "ours / export"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
