"""A transferred model trains like its source: statistics move, Dropout drops, weights change, losses fall."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import modelport as mp
from modelport.core.signature import leaves
from tests.nets import in_keras, in_torch

pytestmark = pytest.mark.xdist_group("roundtrip")


@pytest.fixture(scope="module")
def keras_cnn() -> mp.Model:
    return mp.transfer(in_torch.net("cnn"), to="keras", example=in_torch.example("cnn"))


@pytest.fixture(scope="module")
def torch_cnn() -> mp.Model:
    return mp.transfer(in_keras.net("cnn"), to="torch")


def test_batchnorm_statistics_move_in_keras_as_in_torch(keras_cnn: mp.Model) -> None:
    import torch

    net = in_torch.net("cnn")
    x = in_torch.example("cnn", 16)
    net.train()(x)
    keras_cnn.native(np.asarray(x), training=True)
    moved = keras_cnn.parameters()
    mean = net.state_dict()["bn1.running_mean"].numpy()
    np.testing.assert_allclose(moved["bn1.running_mean"], mean, rtol=1e-4, atol=1e-5)
    assert isinstance(x, torch.Tensor)


def test_batchnorm_statistics_move_in_torch_as_in_keras(torch_cnn: mp.Model) -> None:
    import torch

    net = in_keras.net("cnn")
    x = in_keras.example("cnn", 16)
    net(x, training=True)
    native = copy.deepcopy(torch_cnn.native).train()
    native(torch.from_numpy(x))
    expected = np.asarray(net.layers[2].moving_mean)
    mean = next(b for name, b in native.named_buffers() if name.endswith("running_mean"))
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)


def test_dropout_drops_in_keras_only_when_training(keras_cnn: mp.Model) -> None:
    x = np.asarray(in_torch.example("cnn", 4))
    assert np.array_equal(keras_cnn.native(x, training=False), keras_cnn.native(x, training=False))
    assert not np.array_equal(keras_cnn.native(x, training=True), keras_cnn.native(x, training=True))


def test_dropout_drops_in_torch_only_when_training(torch_cnn: mp.Model) -> None:
    import torch

    x = torch.from_numpy(in_keras.example("cnn", 4))
    net = copy.deepcopy(torch_cnn.native)
    assert torch.equal(net.eval()(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("kind", ["cnn", "lstm", "encoder", "embedding"])
def test_a_keras_result_fits(kind: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    moved = mp.transfer(in_torch.net(kind), to="keras", example=in_torch.example(kind))
    x = [np.asarray(part) for part in leaves((in_torch.example(kind, 32),))]
    target = np.arange(32) % 3
    moved.native.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = moved.native.fit(x[0] if len(x) == 1 else x, target, epochs=8, batch_size=16, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


@pytest.mark.parametrize("kind", in_keras.NETS)
def test_a_torch_result_has_every_parameter_in_its_optimizer(kind: str) -> None:
    import torch

    net = in_keras.net(kind)
    moved = mp.transfer(net, to="torch").native
    trainable = {name for name, p in moved.named_parameters() if p.requires_grad}
    extra_bias = {name for name in trainable if ".bias_hh_l0" in name and kind == "lstm"}
    assert len(trainable - extra_bias) == len(net.trainable_weights) + (2 if kind == "gru" else 0)
    assert torch.optim.SGD(moved.parameters(), lr=0.1).param_groups[0]["params"]
