"""A student that learns from a teacher of another framework, against the same student that learns alone.

Usage: PYTHONPATH=. python benchmarks/distill.py [--seeds N] [--epochs N]

The teacher is the digits CNN of `tests/nets/tasks.py`, in Keras or in torch; the student has an eightieth of its
parameters and is written in the other framework. Both students get the same rows, the same steps and the same start.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import modelport as mp
from modelport.core.report import table
from tests.nets.tasks import TASKS, Data

ROWS = 300
"""Images with a label; a small set, as the one is that most who distill have."""


def torch_student(seed: int) -> Any:
    """Two small convolutions and a Linear layer, in torch."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def keras_student(seed: int) -> Any:
    """The same layers in Keras, on the same images (1, 8, 8)."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential([
        keras.Input((1, 8, 8)), layers.Permute((2, 3, 1)),
        layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dense(10),
    ])  # fmt: skip


def measure(teacher: mp.Model, student: Callable[[int], Any], data: Data, seeds: int, epochs: int) -> tuple[str, ...]:
    """Percent of held-out rows: the teacher's, and the means of both students."""
    alone, taught = [], []
    pair = (data.x[:ROWS], data.y[:ROWS])
    for seed in range(seeds):
        how: dict[str, Any] = {"epochs": epochs, "learning_rate": 5e-3, "schedule": "cosine", "seed": seed}
        alone.append(data.accuracy(mp.compress(student(seed), mp.FineTune(pair, **how))))
        made = mp.compress(teacher, mp.Distill(student(seed), pair, **how))
        taught.append(data.accuracy(made))
    sizes = [sum(array.size for array in each.parameters().values()) for each in (teacher, made)]
    scores = (data.accuracy(teacher), statistics.mean(alone), statistics.mean(taught))
    return f"1/{sizes[0] // sizes[1]}", *(f"{100 * score:.2f}" for score in scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=120)
    options = parser.parse_args()
    task = TASKS["digits CNN"]
    learned = task.learned()
    rows = []
    for teacher, student, make in (("keras", "torch", torch_student), ("torch", "keras", keras_student)):
        model = learned if teacher == "torch" else mp.transfer(learned, to=teacher)
        rows.append((teacher, student, *measure(model, make, task.data(), options.seeds, options.epochs)))
    titles = ("teacher", "student", "size", "teacher, %", "alone, %", "taught, %")
    print(table(f"digits, {ROWS} labels, mean of {options.seeds} seeds", titles, rows))


if __name__ == "__main__":
    main()
