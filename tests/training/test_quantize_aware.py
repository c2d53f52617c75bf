"""`Quantize(..., train=FineTune(...))`: floats learn with the rounding in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.compression.quantize.aware import with_rounding
from modelport.compression.quantize.inference import inference_form
from modelport.compression.quantize.run import quantize
from modelport.core import registry
from modelport.core.backend import Trainer
from modelport.core.errors import DataError, StepError
from modelport.graph.normal import normalize
from modelport.graph.signature import read_signature
from modelport.graph.weights import trainable
from modelport.verbs.subject import exported
from tests.training.small import BACKENDS, CASES, form

pytestmark = pytest.mark.xdist_group("training")

KINDS = ("images", "transformer")


def _quantized(name: str, **settings: Any) -> tuple[Any, Any, Any]:
    """A case's graph, its form for inference, and that in 8 bits."""
    graph = normalize(exported(form(name, "torch")).graph)
    step = mp.Quantize("int8", calibration=CASES[name].x, **settings)
    return graph, inference_form(graph), quantize(graph, step, read_signature(graph)).graph


def _run(backend: str, graph: Any, inputs: Any) -> dict[str, np.ndarray]:
    framework, signature = registry.backend(backend), read_signature(graph)
    return framework.run(framework.build(graph).native, signature.bind(inputs), signature)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_rounding_gives_what_the_quantized_graph_gives(name: str, per_channel: bool) -> None:
    _, floats, quantized = _quantized(name, per_channel=per_channel)
    wanted = _run("onnx", quantized, CASES[name].x)["output"]
    found = _run("torch", with_rounding(quantized, floats), CASES[name].x)["output"]
    away = np.abs(found - wanted)
    # A value between two steps may be rounded to either; it moves what comes after it by a little.
    assert np.mean(away < 1e-5 * np.abs(wanted).max()) > 0.8
    assert away.max() < np.ptp(wanted) / 64


@pytest.mark.parametrize("backend", ["torch", "keras"])
@pytest.mark.parametrize("name", KINDS)
def test_gradients_pass_the_rounding(backend: str, name: str) -> None:
    _, floats, quantized = _quantized(name)
    rounded, framework = with_rounding(quantized, floats), registry.backend(backend)
    assert isinstance(framework, Trainer)
    inputs = read_signature(floats).bind(CASES[name].x)
    slopes = {}
    weighted = np.broadcast_to(np.arange(1, 5, dtype=np.float32), _run("onnx", floats, CASES[name].x)["output"].shape)
    for label, graph in (("rounded", rounded), ("floats", floats)):
        found = framework.gradients(framework.build(graph).native, inputs, {"output": weighted}, read_signature(graph))
        slopes[label] = found
    assert set(trainable(rounded)) == set(trainable(floats))
    for key, exact in slopes["floats"].items():
        size = np.linalg.norm(exact)
        if size > 1e-3:
            assert np.sum(exact * slopes["rounded"][key]) > 0.9 * size * np.linalg.norm(slopes["rounded"][key]) > 0, key


ROWS = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32)
CLASSES = (ROWS @ np.random.default_rng(1).standard_normal((6, 3))).argmax(-1)
COARSE = {"calibration": ROWS, "per_channel": False}


@pytest.fixture(scope="module")
def uneven() -> Any:
    """A net that has learned, with neurons of very different size: one scale for all of them leaves little of most."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    learned = mp.compress(net, mp.FineTune((ROWS, CLASSES), epochs=15, learning_rate=1e-2)).native
    sizes = torch.logspace(-1.75, 1.75, 16)[torch.randperm(16)]
    state = {key: tensor.clone() for key, tensor in learned.state_dict().items()}
    state["0.weight"] *= sizes[:, None]
    state["0.bias"] *= sizes
    state["2.weight"] /= sizes
    net.load_state_dict(state)
    return mp.transfer(net, to="torch", example=torch.from_numpy(ROWS[:4]))


def _cross_entropy(model: mp.Model) -> float:
    logits = model(ROWS)
    shifted = logits - logits.max(-1, keepdims=True)
    said = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return float(-said[np.arange(len(ROWS)), CLASSES].mean())


@pytest.mark.parametrize("backend", ["keras", "onnx"])
def test_training_with_the_rounding_wins_back_what_it_costs(backend: str, uneven: mp.Model) -> None:
    model = uneven if backend == "torch" else mp.transfer(uneven, to=backend, tolerance=1e-3)
    before = {name: array.copy() for name, array in model.parameters().items()}
    plain = mp.compress(model, mp.Quantize("int8", **COARSE))
    train = mp.FineTune((ROWS, CLASSES), epochs=4, learning_rate=3e-3)
    aware = mp.compress(model, mp.Quantize("int8", train=train, **COARSE))
    assert aware.backend == backend
    assert _cross_entropy(plain) > 4 * _cross_entropy(model)
    assert _cross_entropy(aware) < 0.85 * _cross_entropy(plain)
    ((step, epochs),) = aware.report.epochs
    assert "train=FineTune" in step
    assert epochs[-1].loss < epochs[0].loss
    # What the last epoch measured is near what the quantized model gives.
    assert _cross_entropy(aware) == pytest.approx(epochs[-1].loss, rel=0.15)
    assert all(np.array_equal(model.parameters()[name], array) for name, array in before.items())


def _is_zero(model: mp.Model) -> dict[str, int]:
    """How many integers of each weight in 8 bits are 0."""
    from onnx import numpy_helper

    arrays = {each.name: numpy_helper.to_array(each) for each in model.native.graph.initializer}
    found = {name.removesuffix("_quantized"): array for name, array in arrays.items() if array.dtype == np.int8}
    return {name: int((array == 0).sum()) for name, array in found.items() if array.ndim > 1}


def test_zeros_of_pruned_weights_stay() -> None:
    model, case = form("images", "onnx"), CASES["images"]
    pruned = mp.compress(model, mp.Prune(0.6)).parameters()
    train = mp.FineTune((case.x, case.y), epochs=3, learning_rate=1e-2)
    aware = _is_zero(mp.compress(model, mp.Prune(0.6), mp.Quantize("int8", calibration=case.x, train=train)))
    free = _is_zero(mp.compress(model, mp.Quantize("int8", calibration=case.x, train=train)))
    for name in ("0.weight", "3.weight", "7.weight"):
        assert aware[name] >= (pruned[name] == 0).sum() > free[name]


@pytest.mark.parametrize(("loss", "width"), [("cross_entropy", 3), ("binary_cross_entropy", 1)])
def test_a_softmax_at_the_end_is_still_found(loss: str, width: int) -> None:
    import torch
    from torch import nn

    losses = []
    targets = CLASSES if width == 3 else CLASSES > 0
    for tail in ((), (nn.Softmax(-1) if width == 3 else nn.Sigmoid(),)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, width), *tail).eval()
        train = mp.FineTune((ROWS, targets), loss=loss)  # type: ignore[arg-type]
        made = mp.compress(net, mp.Quantize("int8", calibration=ROWS, train=train))
        losses.append(made.report.epochs[0][1][0].loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_one_recipe_gives_one_loss_on_every_backend() -> None:
    case, losses = CASES["recurrent"], []
    step = mp.Quantize("int8", calibration=case.x, train=mp.FineTune((case.x, case.y), epochs=2))
    for backend in BACKENDS:
        losses.append([each.loss for each in mp.compress(form("recurrent", backend), step).report.epochs[0][1]])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-3)


def test_a_frozen_layer_has_the_integers_that_it_had() -> None:
    from onnx import numpy_helper

    model, case = form("images", "onnx"), CASES["images"]
    train = mp.FineTune((case.x, case.y), epochs=1, learning_rate=1e-2, freeze=("3",))
    made = [mp.compress(model, mp.Quantize("int8", calibration=case.x, train=each)) for each in (None, train)]
    plain, aware = ({each.name: numpy_helper.to_array(each) for each in one.native.graph.initializer} for one in made)
    for name in ("3.weight_quantized", "7.weight_quantized"):
        assert np.array_equal(plain[name], aware[name]) == name.startswith("3"), name


def test_training_without_calibration_is_refused() -> None:
    with pytest.raises(StepError, match="calibration="):
        mp.Quantize("int8", train=mp.FineTune((ROWS, CLASSES)))


def test_bad_data_to_train_on_are_refused(uneven: mp.Model) -> None:
    before = uneven(ROWS)
    with pytest.raises(DataError, match="classes 0 to 2"):
        mp.compress(uneven, mp.Quantize("int8", train=mp.FineTune((ROWS, CLASSES + 1)), **COARSE))
    with pytest.raises(StepError, match="'nowhere'"):
        mp.compress(uneven, mp.Quantize("int8", train=mp.FineTune((ROWS, CLASSES), freeze="nowhere"), **COARSE))
    np.testing.assert_array_equal(uneven(ROWS), before)
