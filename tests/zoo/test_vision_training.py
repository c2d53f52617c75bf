"""A net, what it became in Keras and what came home have the same gradients and learn the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest

import modelport as mp
from tests.nets.architectures import CLASSIFICATION, TIMM, timm_net, torchvision_net
from tests.nets.vision import settled
from tests.zoo.crossing import draw

pytestmark = [pytest.mark.zoo, pytest.mark.xdist_group("zoo")]

NETS = {
    "efficientnet_b0": 1e-4,
    "mobilenet_v3_small": 1e-2,
    "resnet18": 1e-4,
    "squeezenet1_1": 1e-3,
    "convnext_atto": 1e-3,
    "fasternet_t0": 1e-3,
    "levit_128s": 1e-4,
    "mobilevit_xxs": 1e-3,
    "pvt_v2_b0": 1e-3,
    "regnety_002": 1e-3,
    "swin_tiny_patch4_window7_224": 1e-3,
    "vit_tiny_patch16_224": 1e-3,
}
"""The step size for each: so large that the loss falls, and so small that rounding does not grow beyond the tolerance.

An untrained net with BatchNorm is chaotic. In torch alone, the losses of ResNet-18 in float32 are 3e-3 from those in
float64 at ten times its step size here; and the gradients of an EfficientNet-B0 that was settled on 16 images are 2e-2
apart, on 32 images 2e-4.
"""
STEPS, BATCH = 10, 4


def without_chance(net: Any) -> Any:
    """A torch net that drops nothing in training."""
    import torch

    for module in net.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0
    return net


def batches(shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two batches in turn."""
    rng = np.random.default_rng(0)
    two = [(draw(BATCH, shape), rng.integers(0, 10, BATCH)), (draw(BATCH + 1, shape)[1:], rng.integers(0, 10, BATCH))]
    return islice(cycle(two), STEPS)


def losses_in_torch(net: Any, shape: tuple[int, ...], rate: float) -> list[float]:
    import torch

    optimizer, losses = torch.optim.SGD(net.train().parameters(), lr=rate), []
    for x, target in batches(shape):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(target))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def losses_in_keras(net: Any, shape: tuple[int, ...], rate: float) -> list[float]:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(rate), loss, run_eagerly=True)
    return [float(net.train_on_batch(x, target)) for x, target in batches(shape)]


@pytest.mark.parametrize("name", NETS)
def test_gradients_and_ten_steps_are_the_same_everywhere(name: str) -> None:
    shape, rate = (CLASSIFICATION | TIMM)[name].shape, NETS[name]
    make = torchvision_net if name in CLASSIFICATION else timm_net
    net = settled(without_chance(make(name)), draw(32, shape))
    moved = mp.transfer(net, to="keras", example=draw(2, shape), check=False)
    home = mp.transfer(moved, to="torch", check=False)
    for other in (moved, home):
        report = mp.compare(net, other, draw(2, shape))
        assert report.ok, report
        assert len([row for row in report.rows if row.kind == "gradient"]) == len(list(net.parameters()))
    expected = losses_in_torch(net, shape, rate)
    assert expected[-2] < 0.99 * expected[0]
    np.testing.assert_allclose(losses_in_keras(moved.native, shape, rate), expected, rtol=1e-3)
    np.testing.assert_allclose(losses_in_torch(home.native, shape, rate), expected, rtol=1e-3)
