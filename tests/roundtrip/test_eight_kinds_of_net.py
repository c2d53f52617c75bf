"""Each kind of net, written natively on either side, through every way and home again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.signature import leaves
from tests.nets import in_keras, in_torch

OUTPUT = 1e-5
GRADIENT = 1e-4
BATCHES = (1, 2, 7)

KINDS = tuple(in_torch.NETS)
pytestmark = pytest.mark.xdist_group("roundtrip")


def _numpy(example: Any) -> Any:
    """The example as `Model.__call__` takes it: arrays in order, or by name."""
    if isinstance(example, dict):
        return {key: np.asarray(value) for key, value in example.items()}
    return tuple(np.asarray(value) for value in leaves((example,)))


def assert_same_outputs(source: Any, result: mp.Model, nets: Any, kind: str) -> None:
    for batch in BATCHES:
        report = mp.compare(source, result, _numpy(nets.example(kind, batch)), gradients=False, tolerance=OUTPUT)
        assert report.ok, report


def assert_same_gradients(source: Any, result: mp.Model, nets: Any, kind: str) -> None:
    example = _numpy(nets.example(kind, 2))
    report = mp.compare(source, result, example, tolerance=OUTPUT, gradient_tolerance=GRADIENT)
    assert report.ok, report
    assert any(row.kind == "gradient" for row in report.rows)


@pytest.fixture(scope="module", params=KINDS)
def torch_way(request: pytest.FixtureRequest) -> tuple[str, Any, mp.Model, mp.Model, mp.Model]:
    """A torch net as ONNX, as Keras, and as torch again by way of Keras."""
    kind = request.param
    net = in_torch.net(kind)
    source = mp.transfer(net, to="onnx", example=in_torch.example(kind))
    there = mp.transfer(net, to="keras", example=in_torch.example(kind))
    return kind, net, source, there, mp.transfer(there, to="torch")


@pytest.fixture(scope="module", params=KINDS)
def keras_way(request: pytest.FixtureRequest) -> tuple[str, Any, mp.Model, mp.Model, mp.Model]:
    """A Keras net as ONNX, as torch, and as Keras again by way of torch."""
    kind = request.param
    net = in_keras.net(kind)
    there = mp.transfer(net, to="torch")
    return kind, net, mp.transfer(net, to="onnx"), there, mp.transfer(there, to="keras")


def test_a_torch_net_keeps_its_outputs_at_every_batch_size(torch_way: Any) -> None:
    kind, net, as_onnx, there, back = torch_way
    source = mp.transfer(net, to="torch", example=in_torch.example(kind), check=False)
    for result in (as_onnx, there, back):
        assert_same_outputs(source, result, in_torch, kind)


def test_a_torch_net_keeps_its_gradients(torch_way: Any) -> None:
    kind, net, _, there, back = torch_way
    source = mp.transfer(net, device="cpu", example=in_torch.example(kind), check=False)
    for result in (there, back):
        assert_same_gradients(source, result, in_torch, kind)


def test_torch_weights_go_home_with_every_key_matched(torch_way: Any) -> None:
    kind, net, _, _, back = torch_way
    expected = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in back.native.state_dict().items()} == expected
    fresh = type(net)()
    outcome = fresh.load_state_dict(back.native.state_dict(), strict=True)
    assert not outcome.missing_keys
    assert not outcome.unexpected_keys
    assert_same_outputs(
        mp.transfer(fresh.eval(), device="cpu", example=in_torch.example(kind), check=False), back, in_torch, kind
    )


def test_a_keras_net_keeps_its_outputs_at_every_batch_size(keras_way: Any) -> None:
    kind, net, as_onnx, there, back = keras_way
    for result in (as_onnx, there, back):
        assert_same_outputs(net, result, in_keras, kind)


def test_a_keras_net_keeps_its_gradients(keras_way: Any) -> None:
    kind, net, _, there, back = keras_way
    for result in (there, back):
        assert_same_gradients(net, result, in_keras, kind)


def _dotted(model: Any) -> dict[str, tuple[int, ...]]:
    """Variable paths relative to the model: a Sequential writes its own name before them."""
    weights = [w for w in model.weights if "seed_generator" not in w.path]
    return {w.path.removeprefix(f"{model.name}/").replace("/", "."): tuple(w.shape) for w in weights}


def test_keras_weights_go_home_with_every_name_and_shape(keras_way: Any) -> None:
    kind, net, _, there, back = keras_way
    assert set(back.parameters()) == set(mp.transfer(net, device="cpu", check=False).parameters())
    assert _dotted(back.native) == _dotted(net)
    fresh = in_keras.NETS[kind]()
    from modelport.core import registry

    registry.backend("keras").assign(fresh, there.parameters())
    assert_same_outputs(net, mp.transfer(fresh, device="cpu", check=False), in_keras, kind)
