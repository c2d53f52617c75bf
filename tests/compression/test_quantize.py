"""`Quantize`: the same recipe and the same result on every framework, and what it says of what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import modelport as mp
from modelport.compression.quantize.fold_norms import fold_norms
from modelport.core.model import Model
from modelport.graph.normal import normalize
from modelport.graph.weights import roles
from modelport.verbs.subject import exported, subject

pytestmark = pytest.mark.xdist_group("compress")

IMAGES = np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype("float32")
TOKENS = np.random.default_rng(1).integers(0, 200, (24, 12))


def _convolutions() -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.norm(self.first(x)))

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), Block(), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    net.train()(torch.from_numpy(IMAGES))
    return net.eval()


def _attention() -> Any:
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(200, 32)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
            self.head = nn.Linear(32, 5)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(self.embedding(ids)).mean(1))

    torch.manual_seed(0)
    return Encoder().eval()


NETS = {"convolutions": (_convolutions, IMAGES), "attention": (_attention, TOKENS)}


@pytest.fixture(scope="module", params=NETS)
def net(request: pytest.FixtureRequest) -> tuple[Model, np.ndarray]:
    make, data = NETS[request.param]
    return subject(make(), example=_torch(data)), data


def _torch(data: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(data[:4])


def _snr(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def test_the_same_recipe_has_the_same_result_in_every_framework(net: tuple[Model, np.ndarray]) -> None:
    model, data = net
    expected = model(data)
    results = {}
    for backend in ("torch", "keras", "onnx"):
        start = mp.transfer(model, to=backend)
        before = {name: array.copy() for name, array in start.parameters().items()}
        small = mp.compress(start, mp.Quantize("int8", calibration=data))
        assert small.backend == backend
        results[backend] = small(data)
        assert _snr(expected, results[backend]) > 25
        assert small.report.after.bytes < 0.45 * small.report.before.bytes
        after = start.parameters()
        assert all(np.array_equal(after[name], array) for name, array in before.items())
    step = np.ptp(expected) / 255
    for found in results.values():
        np.testing.assert_allclose(found, results["onnx"], rtol=0, atol=step)


def test_weights_are_stored_in_one_byte(net: tuple[Model, np.ndarray]) -> None:
    model, data = net
    small = mp.compress(mp.transfer(model, to="onnx"), mp.Quantize(calibration=data))
    weights = [tensor for tensor in small.native.graph.initializer if len(tensor.dims) > 1]
    kinds = {tensor.data_type for tensor in weights if np.prod(tensor.dims) > 1000}
    assert kinds <= {ir.DataType.INT8, ir.DataType.UINT8}
    stored = {tensor.name: tensor for tensor in small.native.graph.initializer}
    zeros = [
        node.input[2]
        for node in small.native.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored and len(node.input) > 2
    ]
    assert all(onnx.numpy_helper.to_array(stored[name]).any() for name in zeros)
    assert not {"BatchNormalization", "Dropout"} & {node.op_type for node in small.native.graph.node}


@pytest.mark.parametrize("backend", ["torch", "keras", "onnx"])
def test_a_compressed_model_is_saved_and_loaded(net: tuple[Model, np.ndarray], backend: str, tmp_path: Path) -> None:
    model, data = net
    small = mp.compress(mp.transfer(model, to="onnx"), mp.Quantize(calibration=data))
    small.save(tmp_path / "small.mport")
    loaded = mp.load(tmp_path / "small.mport", backend=backend)
    assert "compress" in [event["verb"] for event in loaded.history]
    expected = small(data)
    np.testing.assert_allclose(loaded(data), expected, rtol=0, atol=np.ptp(expected) / 255)


def test_without_data_matrix_products_measure_their_own_ranges(net: tuple[Model, np.ndarray]) -> None:
    model, data = net
    small = mp.compress(mp.transfer(model, to="onnx"), mp.Quantize())
    operators = [node.op_type for node in small.native.graph.node]
    assert "MatMulInteger" in operators
    assert 20 < _snr(model(data), small(data)) < 80
    left = dict(small.report.alone)
    assert all("calibration=" in left[name] for name in left if "Conv" in left[name])
    assert ("ConvInteger" in operators) is False


def test_what_is_excluded_stays_as_it_was() -> None:
    small = mp.compress(_convolutions(), mp.Quantize(calibration=IMAGES, exclude=("3", "7")), example=_torch(IMAGES))
    assert dict(small.report.alone) == {"3.first": "it is excluded", "7": "it is excluded"}
    names = set(small.parameters())
    assert {"3.first.weight", "7.weight"} <= names
    assert "0.weight" not in names


def test_the_report_says_what_it_cost() -> None:
    small = mp.compress(
        _convolutions(),
        mp.Quantize(calibration=IMAGES),
        example=_torch(IMAGES),
        evaluate=lambda m: float(m(IMAGES).mean()),
    )
    report = small.report
    text = str(report)
    assert "torch simulates int8" in text
    assert 'transfer(model, to="onnx")' in text
    assert (report.latency_ratio > 1.02) == report.slower == ("slower: a call takes" in text)
    assert report.before.score != report.after.score
    assert report.before.score == pytest.approx(float(subject(_convolutions(), example=_torch(IMAGES))(IMAGES).mean()))
    (row,) = report.agreement
    assert row.snr_db > 25
    assert row.top1 is not None
    assert small.history[-1]["steps"] == [mp.Quantize(calibration=IMAGES).to_json()]


def test_a_norm_becomes_part_of_its_layer() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6), nn.Flatten(),
        nn.Linear(6 * 15 * 15, 8), nn.BatchNorm1d(8),
    )  # fmt: skip
    for _ in range(3):
        net.train()(torch.from_numpy(IMAGES) * 3 + 1)
    model = subject(net.eval(), example=_torch(IMAGES))
    graph = normalize(exported(model).graph)
    assert fold_norms(graph) == 3
    assert list(roles(graph)) == ["0.weight", "2.weight", "2.bias", "5.weight", "5.bias", "0.bias"]
    folded = subject(ir.to_proto(graph))
    np.testing.assert_allclose(folded(IMAGES), model(IMAGES), rtol=0, atol=1e-5 * np.abs(model(IMAGES)).max())


def test_a_weight_that_two_layers_share_keeps_its_norms() -> None:
    import torch
    from torch import nn

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(self.conv(x)) + self.two(self.conv(x * 2))

    graph = normalize(exported(subject(Shared().eval(), example=_torch(IMAGES))).graph)
    assert fold_norms(graph) == 0


@pytest.mark.parametrize(("data", "told"), [
    (IMAGES[:0], "empty"),
    (np.full((2, 3, 16, 16), np.nan, "float32"), "NaN"),
    (IMAGES[:, :2], "do not fit the model"),
    (IMAGES[0, 0], "do not fit the model"),
])  # fmt: skip
def test_bad_calibration_data_say_what_is_wrong(data: np.ndarray, told: str) -> None:
    with pytest.raises(mp.DataError, match=told):
        mp.compress(_convolutions(), mp.Quantize(calibration=data), example=_torch(IMAGES))


@pytest.mark.parametrize(("settings", "told"), [
    ({"precision": "int3"}, "'int8', 'uint8'"),
    ({"method": "guess"}, "'minmax', 'entropy', 'percentile'"),
])  # fmt: skip
def test_a_step_that_makes_no_sense_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(mp.StepError, match=told):
        mp.Quantize(**settings)


def test_compress_needs_a_step_that_it_can_do() -> None:
    import torch

    with pytest.raises(mp.StepError, match="needs a step"):
        mp.compress(_convolutions(), example=_torch(IMAGES))
    with pytest.raises(mp.StepError, match="is no step"):
        mp.compress(_convolutions(), "int8", example=_torch(IMAGES))  # type: ignore[arg-type]
    with pytest.raises(mp.StepError, match="no layer that it can quantize"):
        mp.compress(torch.nn.ReLU(), mp.Quantize(), example=_torch(IMAGES))
    with pytest.raises(mp.StepError, match="1: Conv needs calibration="):
        mp.compress(
            torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(3, 4, 3)), mp.Quantize(), example=_torch(IMAGES)
        )


def test_an_exclusion_of_nothing_is_refused() -> None:
    step = mp.Quantize(calibration=IMAGES, exclude=("heads",))
    with pytest.raises(mp.StepError, match=r"Quantize: exclude names 'heads'.*its weights are 0\.weight, 0\.bias"):
        mp.compress(_convolutions(), step, example=_torch(IMAGES))


def test_a_step_prints_as_it_is_written() -> None:
    step = mp.Quantize("uint8", calibration=IMAGES, exclude=("head",))
    assert str(step) == "Quantize(precision=uint8, calibration=…, exclude=('head',))"
