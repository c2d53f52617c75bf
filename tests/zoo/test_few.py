"""Real architectures cross to the other framework with parity and a dynamic batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from tests.nets.vision import settled, settled_keras, torchvision_models

pytestmark = pytest.mark.xdist_group("zoo")

TORCHVISION = ("resnet18", "mobilenet_v2", "convnext_tiny", "vit_b_16")
APPLICATIONS = {"MobileNetV2": 96, "ResNet50": 64, "ConvNeXtTiny": 64, "EfficientNetB0": 64}


def _image(batch: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *shape)).astype("float32")


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_torchvision_net_goes_to_keras(name: str) -> None:
    import torch

    torch.manual_seed(0)
    size = 224 if name.startswith("vit") else 64
    net = settled(getattr(torchvision_models(), name)(weights=None), _image(4, 3, size, size))
    moved = mp.transfer(net, to="keras", example=_image(2, 3, size, size))
    assert not [note for note in moved.report.notes if note.kind == "fallback"]
    for batch in (1, 3):
        with torch.inference_mode():
            expected = net(torch.from_numpy(_image(batch, 3, size, size))).numpy()
        assert expected.std() > 1e-3
        found = np.asarray(moved.native(_image(batch, 3, size, size), training=False))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert {k for k in net.state_dict() if not k.endswith("num_batches_tracked")} == set(moved.parameters())


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_keras_application_goes_to_torch(name: str) -> None:
    import keras
    import torch

    keras.utils.set_random_seed(0)
    size = APPLICATIONS[name]
    application: Any = getattr(keras.applications, name)
    net = application(weights=None, input_shape=(size, size, 3), classes=50, classifier_activation=None)
    settled_keras(net, _image(4, size, size, 3))
    moved = mp.transfer(net, to="torch")
    assert not [note for note in moved.report.notes if note.kind == "fallback"]
    for batch in (1, 3):
        image = _image(batch, size, size, 3)
        expected = np.asarray(net(image, training=False))
        assert expected.std() > 1e-3
        with torch.inference_mode():
            found = moved.native(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    trainable = [p for p in moved.native.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trainable) == sum(int(np.prod(w.shape)) for w in net.trainable_weights)
