"""The families of timm go to Keras and come home."""

from __future__ import annotations

import pytest

from tests.nets.architectures import TIMM, timm_net
from tests.nets.vision import settled
from tests.zoo.crossing import TOLERANCE, draw, home, to_keras

ROUNDED = {"inception_v4": 1e-3}
"""How far apart float32 outputs may be, of the largest one, where 1e-4 is less than what float32 itself leaves open.

Behind 149 random kernels with a BatchNorm each, torch in float32 is 4e-4 from torch in float64 for a single image. Two
results in float32 may be twice that apart.
"""
QUICK = {"convnext_atto", "fasternet_t0", "vit_tiny_patch16_224"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xdist_group("zoo"), *([] if name in QUICK else [pytest.mark.zoo])])
        for name in TIMM
    ],
)
def test_a_net_of_timm_goes_to_keras_and_comes_home(name: str) -> None:
    shape = TIMM[name].shape
    net = settled(timm_net(name), draw(32, shape))
    home(net, to_keras(net, shape, ROUNDED.get(name, TOLERANCE)), shape)
