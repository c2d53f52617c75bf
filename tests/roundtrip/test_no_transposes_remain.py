"""A CNN of torch computes channels last in Keras, and nothing is transposed but its image, at the edge."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import modelport as mp
from tests.nets.vision import torchvision_models


def _resnet() -> Any:
    return torchvision_models().resnet18()


def _mobilenet() -> Any:
    return torchvision_models().mobilenet_v2(inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]])


def _convnext() -> Any:
    from torchvision.models.convnext import CNBlockConfig

    return torchvision_models().ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)])


def _efficientnet() -> Any:
    from torchvision.models.efficientnet import MBConvConfig

    config = partial(MBConvConfig, width_mult=1.0, depth_mult=1.0)
    return torchvision_models().EfficientNet([config(1, 3, 1, 32, 16, 1), config(6, 5, 2, 16, 24, 2)], dropout=0.2)


NETS = {"resnet": _resnet, "mobilenet": _mobilenet, "convnext": _convnext, "efficientnet": _efficientnet}
IMAGE = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype("float32")


def _transposes(net: Any) -> int:
    """How often TensorFlow reorders axes when it runs a Keras net.

    A Dense on an image is a tensordot of TensorFlow, whose transpose to the order that the image has moves nothing.
    """
    import tensorflow as tf

    signature = tf.TensorSpec((None, *net.input_shape[1:]), "float32")
    graph = tf.function(lambda x: net(x, training=False)).get_concrete_function(signature).graph
    orders = [tf.get_static_value(node.inputs[1]) for node in graph.get_operations() if node.type == "Transpose"]
    assert not graph.as_graph_def().library.function
    return sum(order is None or list(order) != sorted(order) for order in orders)


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_a_cnn_transposes_its_image_only_and_none_in_the_native_layout(make: Callable[[], Any]) -> None:
    exported = mp.transfer(make().eval(), to="onnx", example=IMAGE, check=False)
    as_source = mp.transfer(exported, to="keras", check=False)
    assert as_source.native.input_shape == (None, 3, 64, 64)
    assert _transposes(as_source.native) == 1
    native = mp.transfer(exported, to="keras", layout="native", check=False)
    assert native.native.input_shape == (None, 64, 64, 3)
    assert _transposes(native.native) == 0
