"""The same recipes on four trained nets, from torch, from Keras and from ONNX: what they cost in points of accuracy.

Usage: PYTHONPATH=. python benchmarks/recipes.py [TASK ...]

The nets learn scikit-learn's digits and the language of country names (CLDR, by Babel); points are percent of rows that
they have never seen. ONNX Runtime's `quantize_static` on its defaults is the peer of static int8, on the same model and
the same rows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import quantize_static

import modelport as mp
from benchmarks.compress import Rows, snr
from modelport.core.report import table
from tests.nets.tasks import TASKS, Data

BACKENDS = ("torch", "keras", "onnx")


def recipes(data: Data) -> dict[str, tuple[mp.Step, ...]]:
    """The steps by name."""
    pair, rows = (data.x, data.y), data.x[:256]
    tune = mp.FineTune(pair, epochs=6, learning_rate=1e-3, schedule="cosine")
    return {
        "static int8": (mp.Quantize("int8", calibration=rows),),
        "half the channels, tuned": (mp.Prune(0.5, structured=True), tune),
        "80 % zeros, tuned": (mp.Prune(0.8), tune),
        "half, tuned, int8 aware": (
            mp.Prune(0.5, structured=True),
            tune,
            mp.Quantize("int8", calibration=rows, train=mp.FineTune(pair, epochs=2, learning_rate=2e-4)),
        ),
    }


def peer(model: mp.Model, data: Data) -> tuple[str, ...]:
    """The row of `quantize_static`: points lost, share of the file, dB."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        mp.save(model, before)
        session = onnxruntime.InferenceSession(before)
        name = session.get_inputs()[0].name
        quantize_static(before, after, Rows({name: data.x[:256]}))
        outputs = [onnxruntime.InferenceSession(path).run(None, {name: data.test_x})[0] for path in (before, after)]
        share = after.stat().st_size / before.stat().st_size
    scores = [float(np.mean(each.argmax(-1) == data.test_y)) for each in outputs]
    return f"{100 * scores[0]:.2f}", f"{100 * (scores[0] - scores[1]):+.2f}", f"{share:.3f}", f"{snr(*outputs):.1f}"


def ours(model: mp.Model, steps: tuple[mp.Step, ...], data: Data) -> tuple[str, ...]:
    """The row of one recipe on one backend."""
    small = mp.compress(model, *steps, evaluate=data.accuracy, example=data.test_x)
    report = small.report
    before, after = _saved(model), _saved(small)
    lost = 100 * (report.before.score - report.after.score)
    return (
        f"{100 * report.before.score:.2f}",
        f"{lost:+.2f}",
        f"{after / before:.3f}",
        f"{report.agreement[0].snr_db:.1f}",
    )


def _saved(model: mp.Model) -> int:
    with tempfile.TemporaryDirectory() as folder:
        mp.save(model, Path(folder) / "saved.onnx")
        return (Path(folder) / "saved.onnx").stat().st_size


def measure(name: str) -> None:
    """Print the table of one task."""
    task = TASKS[name]
    data, learned = task.data(), task.learned()
    models = {to: mp.transfer(learned, to=to) if to != "torch" else learned for to in BACKENDS}
    rows = [("static int8", "quantize_static", *peer(models["onnx"], data))]
    for recipe, steps in recipes(data).items():
        rows += [(recipe, backend, *ours(model, steps, data)) for backend, model in models.items()]
    print(table(name, ("recipe", "on", "points", "lost", "file", "SNR, dB"), rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    for name in parser.parse_args().tasks:
        measure(name)


if __name__ == "__main__":
    main()
