"""Every architecture of torchvision goes to Keras and comes home."""

from __future__ import annotations

import pytest

from tests.nets.architectures import TORCHVISION, VIDEO, torchvision_net
from tests.nets.vision import settled
from tests.zoo.crossing import draw, home, to_keras

QUICK = {"resnet18", "mobilenet_v2", "convnext_tiny", "vit_b_16"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xdist_group("zoo"), *([] if name in QUICK else [pytest.mark.zoo])])
        for name in TORCHVISION
    ],
)
def test_a_net_of_torchvision_goes_to_keras_and_comes_home(name: str) -> None:
    shape = TORCHVISION[name].shape
    net = settled(torchvision_net(name), draw(4 if name in VIDEO else 32, shape))
    home(net, to_keras(net, shape), shape)
