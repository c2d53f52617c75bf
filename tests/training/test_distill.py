"""`Distill`: a student takes the teacher's place, whatever framework either is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.errors import DataError, StepError
from modelport.verbs.subject import subject
from tests.training.small import BACKENDS, CASES, form, losses

pytestmark = pytest.mark.xdist_group("training")

FIRST = np.random.default_rng(0).standard_normal((32, 2, 8, 8)).astype(np.float32)
LAST = np.ascontiguousarray(np.moveaxis(FIRST, 1, -1))
Y = np.arange(32) % 4
RECIPE = {"epochs": 2, "learning_rate": 1e-2}


def torch_net(width: int, *tail: Any, outputs: int = 4) -> Any:
    """Images with their channels first."""
    import torch
    from torch import nn

    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, outputs), *tail,
    ).eval()  # fmt: skip


def keras_net(width: int, activation: str | None = None) -> Any:
    """Images with their channels last."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(width)
    given = keras.Input((8, 8, 2))
    inside = layers.BatchNormalization(name="bn")(layers.Conv2D(width, 3, padding="same", name="conv")(given))
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU(name="act")(inside))
    return keras.Model(given, layers.Dense(4, activation=activation, name="head")(pooled))


@pytest.fixture(scope="module")
def teachers() -> dict[str, mp.Model]:
    """One net on torch and ONNX, one on Keras."""
    import torch

    first = subject(torch_net(8), example=torch.from_numpy(FIRST[:4]))
    last = mp.transfer(keras_net(8), to="keras")
    return {"torch": first, "onnx": mp.transfer(first, to="onnx"), "keras": last}


def _distilled(teacher: mp.Model, student: Any, data: Any = None, **settings: Any) -> mp.Model:
    x = LAST if teacher.backend == "keras" else FIRST
    return mp.compress(teacher, mp.Distill(student, (x, Y) if data is None else data, **{**RECIPE, **settings}))


@pytest.mark.parametrize("teacher", BACKENDS)
@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_a_student_of_any_framework_takes_the_teachers_place(
    teacher: str, kind: str, teachers: dict[str, mp.Model]
) -> None:
    model, student = teachers[teacher], torch_net(4) if kind == "torch" else keras_net(4)
    if kind == "torch":
        student.train()
    before = {name: array.tobytes() for name, array in model.parameters().items()}
    state = student.state_dict().values() if kind == "torch" else student.get_weights()
    own = [np.array(each) for each in state]
    made = _distilled(model, student)
    assert made.backend == teacher
    assert made.signature == model.signature
    assert set(made.parameters()) >= ({"0.weight", "5.bias"} if kind == "torch" else {"conv.weight", "head.bias"})
    assert made(LAST if teacher == "keras" else FIRST).shape == (32, 4)
    assert losses(made)[1] < losses(made)[0]
    assert {name: array.tobytes() for name, array in model.parameters().items()} == before
    after = student.state_dict().values() if kind == "torch" else student.get_weights()
    assert all(np.array_equal(first, np.array(second)) for first, second in zip(own, after, strict=True))
    assert kind == "keras" or student.training


def test_a_student_may_be_a_model_or_a_path(tmp_path: Path, teachers: dict[str, mp.Model]) -> None:
    import torch

    model = mp.transfer(torch_net(4), to="torch", example=torch.from_numpy(FIRST[:4]))
    model.save(tmp_path / "student.mport")
    told = [losses(_distilled(teachers["torch"], each)) for each in (torch_net(4), model, tmp_path / "student.mport")]
    np.testing.assert_allclose(told[1:], [told[0]] * 2, rtol=1e-5)


def test_the_loss_is_that_of_hinton(teachers: dict[str, mp.Model]) -> None:
    import torch

    def softened(logits: np.ndarray, temperature: float) -> np.ndarray:
        scaled = logits.astype(np.float64) / temperature
        return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))

    teacher = teachers["torch"]
    student = mp.transfer(torch_net(4), to="torch", example=torch.from_numpy(FIRST[:4]))
    said, own = teacher(FIRST), student(FIRST)
    taught, learned = softened(said, 3), softened(own, 3)
    divergence = float((np.exp(taught) * (taught - learned)).sum(-1).mean())
    hard = float(-softened(own, 1)[np.arange(32), Y].mean())
    settings = {"temperature": 3, "epochs": 1, "learning_rate": 1e-12, "freeze": "1", "validation": (FIRST, Y)}
    for alpha in (0.0, 0.3, 1.0):
        made = _distilled(teacher, student, alpha=alpha, **settings)
        ((_, (epoch,)),) = made.report.epochs
        assert epoch.validation == pytest.approx(alpha * 9 * divergence + (1 - alpha) * hard, rel=1e-4), alpha


def test_without_the_teacher_it_is_fine_tuning(teachers: dict[str, mp.Model]) -> None:
    made = _distilled(teachers["torch"], torch_net(4), alpha=0.0)
    alone = mp.compress(torch_net(4), mp.FineTune((FIRST, Y), **RECIPE))  # type: ignore[arg-type]
    np.testing.assert_array_equal(made(FIRST), alone(FIRST))


def test_the_teacher_alone_needs_no_targets(teachers: dict[str, mp.Model]) -> None:
    import torch

    teacher = teachers["torch"]
    wanted = losses(_distilled(teacher, torch_net(4), alpha=1.0))
    for data in (FIRST, torch.from_numpy(FIRST), {"input": FIRST}):
        assert losses(_distilled(teacher, torch_net(4), data, alpha=1.0)) == wanted
    assert len(losses(_distilled(teacher, torch_net(4), [FIRST[:16], FIRST[16:]], alpha=1.0))) == 2
    with pytest.raises(DataError, match="where alpha is 1"):
        _distilled(teacher, torch_net(4), FIRST)


def test_two_inputs_without_targets() -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        """Looks at both."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.one(x) + self.two(y)

    x, y = CASES["perceptron"].x, CASES["perceptron"].x[:, :4]
    step = mp.Distill(Net().eval(), (x, y), alpha=1.0, **RECIPE)  # type: ignore[arg-type]
    example = (torch.from_numpy(x[:4]), torch.from_numpy(y[:4]))
    assert losses(mp.compress(Net().eval(), step, example=example))


def test_probabilities_and_logits_are_one(teachers: dict[str, mp.Model]) -> None:
    import torch
    from torch import nn

    soft = mp.transfer(torch_net(8, nn.Softmax(-1)), to="torch", example=torch.from_numpy(FIRST[:4]))
    told = [_distilled(teachers["torch"], torch_net(4)), _distilled(teachers["torch"], torch_net(4, nn.LogSoftmax(-1)))]
    told += [_distilled(soft, torch_net(4)), _distilled(soft, torch_net(4, nn.Softmax(-1)))]
    np.testing.assert_allclose([losses(each) for each in told], [losses(told[0])] * 4, rtol=1e-4)
    # The student speaks as the teacher does.
    sums = [each(FIRST).sum(-1) for each in told]
    assert all(np.allclose(each, 1, atol=1e-5) for each in sums[2:])
    assert not any(np.allclose(each, 1, atol=1e-2) for each in sums[:2])


def test_other_losses_are_distilled(teachers: dict[str, mp.Model]) -> None:
    import torch
    from torch import nn

    numbers = np.random.default_rng(1).standard_normal((32, 4)).astype(np.float32)
    assert losses(_distilled(teachers["torch"], torch_net(4), (FIRST, numbers), loss="mse"))
    yes = mp.transfer(torch_net(8, outputs=1), to="torch", example=torch.from_numpy(FIRST[:4]))
    told = [
        losses(_distilled(yes, student, (FIRST, Y > 1), loss="binary_cross_entropy"))
        for student in (torch_net(4, outputs=1), torch_net(4, nn.Sigmoid(), outputs=1))
    ]
    np.testing.assert_allclose(told[1], told[0], rtol=1e-4)


def test_sequences_are_distilled_on_every_backend() -> None:
    import torch
    from torch import nn

    case, told = CASES["transformer"], []
    torch.manual_seed(0)
    student = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 4)).eval()
    for backend in BACKENDS:
        step = mp.Distill(student, (case.x, case.y), features={"encoder": "0"}, **RECIPE)  # type: ignore[arg-type]
        told.append(losses(mp.compress(form("transformer", backend), step)))
    np.testing.assert_allclose(told[1:], [told[0]] * 2, rtol=1e-4)


FEATURES = {
    "images, first to first": ("torch", lambda: torch_net(4), {"2": "2"}),
    "images, last to first": ("keras", lambda: torch_net(4), {"act": "2"}),
    "images, first to last": ("onnx", lambda: keras_net(4), {"2": "act"}),
    "as many channels as rows": ("keras", lambda: torch_net(8), {"conv": "0"}),
    "vectors": ("torch", lambda: keras_net(4), {"4": "pool"}),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_values_inside_become_alike(kind: str, teachers: dict[str, mp.Model]) -> None:
    teacher, student, features = FEATURES[kind]
    made = _distilled(teachers[teacher], student(), features=features, feature_weight=10.0)
    plain = _distilled(teachers[teacher], student())
    assert losses(made)[0] > losses(plain)[0]
    assert losses(made)[1] < 0.95 * losses(made)[0]
    # The map between them is gone.
    assert set(made.parameters()) == set(plain.parameters())


def test_a_teacher_is_its_own_best_student(teachers: dict[str, mp.Model]) -> None:
    settings = {"epochs": 1, "learning_rate": 1e-12, "alpha": 1.0, "feature_weight": 10.0, "freeze": "bn"}
    for features in ({"act": "act"}, {"conv": "conv"}):
        x = (LAST, Y)
        made = _distilled(teachers["keras"], keras_net(8), features=features, validation=x, **settings)
        assert made.report.epochs[0][1][0].validation < 1e-6


def test_a_student_that_does_not_fit_is_refused(teachers: dict[str, mp.Model]) -> None:
    from torch import nn

    teacher = teachers["torch"]
    before = teacher(FIRST)
    two = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4)).eval()
    for student, told in (
        (torch_net(4, outputs=7), r"its output is .*\(batch, 7\), and the model's .*\(batch, 4\).*same sizes"),
        (two, "cannot be called with the model's inputs"),
    ):
        with pytest.raises(StepError, match=told):
            _distilled(teacher, student)
    for features, told in (
        ({"nope": "2"}, "in the teacher, names 'nope'"),
        ({"2": "nope"}, "in the student, names 'nope'"),
        ({"2": "5"}, "only their channels may differ"),
        ({"2": "5.weight"}, "no layer"),
    ):
        with pytest.raises(StepError, match=told):
            _distilled(teacher, torch_net(4), features=features)
    np.testing.assert_array_equal(teacher(FIRST), before)
    for settings, told in (
        ({"alpha": 1.1}, "alpha"), ({"temperature": 0}, "temperature"), ({"feature_weight": 0}, "feature_weight"),
        ({"student": None}, "student"), ({"data": None}, "data"),
    ):  # fmt: skip
        with pytest.raises(StepError, match=told):
            mp.Distill(**{"student": two, "data": FIRST, **settings})  # type: ignore[arg-type]


def test_ties_and_zeros_of_the_teacher_do_not_stay() -> None:
    import torch
    from torch import nn

    class Tied(nn.Module):
        """What goes in comes out by the same table."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.table(ids)))

    ids = CASES["transformer"].x
    teacher = mp.transfer(Tied().eval(), to="keras", example=torch.from_numpy(ids[:4]))
    assert teacher.aliases == {"out.weight": "table.weight"}
    student = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 11)).eval()
    made = mp.compress(teacher, mp.Prune(0.5), mp.Distill(student, (ids, ids)), mp.FineTune((ids, ids)))
    assert made.aliases == {}
    assert all((array != 0).all() for array in made.parameters().values())
    tuned = mp.compress(teacher, mp.FineTune((ids, ids), learning_rate=1e-2))
    assert tuned.aliases == teacher.aliases


def test_a_student_is_quantized(teachers: dict[str, mp.Model]) -> None:
    steps = (mp.Distill(torch_net(4), (LAST, Y)), mp.Quantize("int8", calibration=LAST))
    made = mp.compress(teachers["keras"], *steps)
    plain = mp.compress(teachers["keras"], steps[0])
    assert made.report.after.bytes < plain.report.after.bytes
    assert np.abs(made(LAST) - plain(LAST)).max() < 0.1 * np.ptp(plain(LAST))
