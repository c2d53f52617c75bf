"""A net, what it became in Keras and what came home have the same gradients and learn the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from tests.nets.architectures import CLASSIFICATION, TIMM, timm_net, torchvision_net
from tests.nets.vision import settled
from tests.zoo.crossing import draw

pytestmark = [pytest.mark.zoo, pytest.mark.xdist_group("zoo")]

NETS = (
    "efficientnet_b0",
    "mobilenet_v3_small",
    "resnet18",
    "squeezenet1_1",
    "convnext_atto",
    "fasternet_t0",
    "levit_128s",
    "mobilevit_xxs",
    "pvt_v2_b0",
    "regnety_002",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
)
STEPS, RATE, BATCH = 10, 1e-3, 4


def without_chance(net: Any) -> Any:
    """A torch net that drops nothing in training."""
    import torch

    for module in net.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    return net


def batches(shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((BATCH, *shape)).astype("float32"), rng.integers(0, 10, BATCH)) for _ in range(STEPS)
    ]


def losses_in_torch(net: Any, shape: tuple[int, ...]) -> list[float]:
    import torch

    optimizer, losses = torch.optim.SGD(net.train().parameters(), lr=RATE), []
    for x, target in batches(shape):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(target))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def losses_in_keras(net: Any, shape: tuple[int, ...]) -> list[float]:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(RATE), loss, run_eagerly=True)
    return [float(net.train_on_batch(x, target)) for x, target in batches(shape)]


@pytest.mark.parametrize("name", NETS)
def test_gradients_and_ten_steps_are_the_same_everywhere(name: str) -> None:
    shape = (CLASSIFICATION | TIMM)[name].shape
    make = torchvision_net if name in CLASSIFICATION else timm_net
    net = settled(without_chance(make(name)), draw(4, shape))
    moved = mp.transfer(net, to="keras", example=draw(2, shape), check=False)
    home = mp.transfer(moved, to="torch", check=False)
    for other in (moved, home):
        report = mp.compare(net, other, draw(2, shape))
        assert report.ok, report
        assert len([row for row in report.rows if row.kind == "gradient"]) == len(list(net.parameters()))
    curves = losses_in_torch(net, shape), losses_in_keras(moved.native, shape), losses_in_torch(home.native, shape)
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-3)
