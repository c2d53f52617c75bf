"""Nets of keras.applications cross to torch with parity and a dynamic batch; those of torch are in test_torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from tests.nets.vision import settled_keras

pytestmark = pytest.mark.xdist_group("zoo")

APPLICATIONS = {"MobileNetV2": 96, "ResNet50": 64, "ConvNeXtTiny": 64, "EfficientNetB0": 64}


def _image(batch: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *shape)).astype("float32")


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
