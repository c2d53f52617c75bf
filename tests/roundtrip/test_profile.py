"""`profile` on every framework: known nets, one net everywhere, and what the report says."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

import modelport as mp
from tests.nets import in_keras, in_onnx, in_torch
from tests.nets.vision import torchvision_models

pytestmark = pytest.mark.xdist_group("profile")

KNOWN = {
    "resnet50": (4_089_184_256, 25_557_032),
    "mobilenet_v2": (300_774_272, 3_504_872),
    "vit_b_16": (17_563_828_224, 86_567_656),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_net_has_its_published_costs(name: str) -> None:
    models = torchvision_models()
    net = getattr(models, name)(weights=None).eval()
    report = mp.profile(net, example=np.zeros((2, 3, 224, 224), "float32"), runs=2)
    assert (report.macs, report.parameters) == KNOWN[name]
    table = models.get_model_weights(name).DEFAULT.meta
    assert (round(report.macs / 1e9, 3), report.parameters) == (table["_ops"], table["num_params"])
    assert not report.uncounted
    assert report.inputs == {"x": "float32(1, 3, 224, 224)"}


@pytest.mark.parametrize("kind", in_torch.NETS)
def test_a_net_costs_the_same_in_every_framework(kind: str) -> None:
    net, example = in_torch.net(kind), in_torch.example(kind)
    report = mp.profile(net, example=example, runs=2)
    assert report.parameters == sum(p.numel() for p in net.parameters())
    for backend in ("keras", "onnx"):
        there = mp.profile(mp.transfer(net, example=example, to=backend, check=False), runs=2)
        assert (there.macs, there.parameters, there.bytes) == (report.macs, report.parameters, report.bytes)
        assert there.backend == backend
        assert not there.uncounted


@pytest.mark.parametrize("kind", ["cnn", "residual"])
def test_a_keras_net_has_the_parameters_that_keras_trains(kind: str) -> None:
    net = in_keras.net(kind)
    report = mp.profile(net, runs=2)
    assert report.parameters == sum(int(np.prod(v.shape)) for v in net.trainable_variables)
    assert report.bytes == 4 * net.count_params()


@pytest.mark.parametrize("kind", ["cnn", "lstm", "encoder"])
def test_operations_grow_with_the_batch(kind: str) -> None:
    net, example = in_torch.net(kind), in_torch.example(kind)
    one, many = (mp.profile(net, example=example, batch=rows, runs=2) for rows in (None, 5))
    assert many.macs == 5 * one.macs
    assert many.parameters == one.parameters


def test_latency_is_measured_on_the_model_s_own_backend() -> None:
    report = mp.profile(in_onnx.net(), runs=7)
    assert report.backend == "onnx"
    assert report.runs == 7
    assert 0 < report.latency_ms <= report.latency_p95_ms


def test_the_table_has_the_dearest_layers_first_and_all_sums() -> None:
    report = mp.profile(in_torch.net("cnn"), example=in_torch.example("cnn"), runs=2)
    assert [layer.name for layer in report.layers[:3]] == ["conv1", "bn1", "relu"]
    lines = str(report).splitlines()
    rows = [line.split()[0] for line in lines[4:6]]
    assert rows == ["conv2", "conv1"]
    assert "parameters   3,994 (16.2 kB)" in lines
    assert "MACs         132 k (FLOPs 275 k)" in lines


def test_the_report_is_json() -> None:
    report = mp.profile(in_onnx.net(), runs=2)
    data = json.loads(json.dumps(report.to_json()))
    assert data["macs"] == sum(layer["macs"] for layer in data["layers"]) == 64 * 32
    assert data["parameters"] == 64 * 32 + 64 + 9
    assert data["layers"][0]["operators"] == ["Gemm"]


def _fixed(rows: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["y", "i"], name="best")],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [rows, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, 2])],
        [onnx.numpy_helper.from_array(np.array([2]), "k")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_what_has_no_rule_is_printed() -> None:
    report = mp.profile(_fixed(3), runs=2)
    assert report.inputs == {"x": "float32(3, 8)"}
    assert "not counted: best (TopK): its operator has no rule" in str(report).splitlines()


def test_a_batch_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(mp.SignatureError, match=r"batch=5, but the model's first axis is always 3.*dynamic="):
        mp.profile(_fixed(3), batch=5)


@pytest.mark.parametrize("wrong", [{"runs": 1}, {"batch": 0}])
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(mp.DataError, match="at least"):
        mp.profile(in_onnx.net(), **wrong)
