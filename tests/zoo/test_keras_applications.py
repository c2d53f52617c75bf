"""Every net of `keras.applications` goes to torch and home."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from tests.nets.vision import settled_keras

pytestmark = [pytest.mark.zoo, pytest.mark.xdist_group("keras applications")]

SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
"""The sides of the smallest images that some nets take; the others take 32."""

ROUNDED = {"ResNet152": 4e-4}
"""How far apart float32 outputs may be, of the largest one, where 1e-4 is less than what float32 itself leaves open.

Behind 155 random kernels Keras in float32 is 2e-4 from float64. Two results in float32 may be twice that apart.
"""

NAMES = """
    ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge DenseNet121 DenseNet169 DenseNet201
    EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6
    EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2L
    EfficientNetV2M EfficientNetV2S InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 MobileNetV3Large
    MobileNetV3Small NASNetLarge NASNetMobile ResNet101 ResNet101V2 ResNet152 ResNet152V2 ResNet50 ResNet50V2
    VGG16 VGG19 Xception
"""


def _images(name: str, batch: int) -> np.ndarray:
    side = SMALLEST.get(name, 32)
    # These scale what they are given, from 0 to 255.
    scales = any(kind in name for kind in ("EfficientNet", "ConvNeXt", "MobileNetV3"))
    rng = np.random.default_rng(batch)
    shape = (batch, side, side, 3)
    return (rng.uniform(0, 255, shape) if scales else rng.standard_normal(shape)).astype("float32")


def _net(name: str) -> Any:
    """A net with random weights whose outputs neither vanish nor explode."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    side = SMALLEST.get(name, 32)
    make = getattr(keras.applications, name)
    net = make(weights=None, input_shape=(side, side, 3), classes=10, classifier_activation=None)
    settled_keras(net, _images(name, 16))
    for layer in net._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            # The last stages see 16 pixels: a channel that happens to vary little there would amplify rounding.
            variance = np.asarray(layer.moving_variance)
            layer.moving_variance.assign(np.maximum(variance, variance.mean()))
    return net


def test_no_application_is_missing() -> None:
    import keras

    found = {name for name in dir(keras.applications) if callable(getattr(keras.applications, name))}
    assert found == set(NAMES.split())


@pytest.mark.parametrize("name", NAMES.split())
def test_an_application_goes_to_torch_and_home(name: str) -> None:
    net = _net(name)
    tolerance = ROUNDED.get(name, 1e-4)
    there = mp.transfer(net, to="torch", check=False)
    home = mp.transfer(there, to="keras", check=False)
    for batch in (1, 3):
        images = _images(name, batch)
        expected = np.asarray(net(images, training=False))
        assert expected.std() > 1e-2 * np.abs(expected).max()
        for moved in (there, home):
            found = moved(images)
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    assert set(home.parameters()) == set(there.parameters())
    assert set(there.parameters()) >= set(mp.transfer(net, device="cpu", check=False).parameters())
