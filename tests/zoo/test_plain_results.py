"""Larger results are plain too: torch results under every exporter and compiler, Keras results on every engine."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelport as mp
from tests.nets import in_keras, in_torch
from tests.nets.vision import torchvision_models
from tests.roundtrip import test_plain_keras as plain_keras

pytestmark = pytest.mark.zoo

TORCH_NETS = ("resnet18", "mobilenet_v2", "vit", "encoder", "lstm", "gru", "residual")


def torch_net(kind: str) -> tuple[torch.nn.Module, Any]:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    if kind == "vit":
        net = torchvision_models().VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5)
        return net.eval(), image
    if kind in ("resnet18", "mobilenet_v2"):
        return getattr(torchvision_models(), kind)(num_classes=10).eval(), image
    return in_torch.net(kind), in_torch.example(kind)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras files of every torch net, under their names without dots too."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("plain")

    for kind in TORCH_NETS:
        net, example = torch_net(kind)
        model = mp.transfer(net, to="keras", example=example)
        named = model.signature.bind(example)
        arrays = [tf.constant(named[spec.name]) for spec in model.signature.inputs]
        inputs = arrays[0] if len(arrays) == 1 else arrays
        model.native.save(folder / f"{kind}.keras")
        twin = keras.models.clone_model(model.native, clone_function=plain_keras.without_dots)
        twin.set_weights(model.native.get_weights())
        twin.save(folder / f"{kind}_renamed.keras")
        for name in (kind, f"{kind}_renamed"):
            np.savez(folder / f"{name}.npz", *arrays, output=np.asarray(model.native(inputs, training=False)))
    return folder


def test_every_net_opens_and_fits_on_tensorflow(files: Path) -> None:
    plain_keras.elsewhere(files, "tensorflow", "modelport,torch,onnx,onnx_ir", *TORCH_NETS, fit=True)


def test_every_net_opens_and_fits_on_jax(files: Path) -> None:
    plain_keras.elsewhere(files, "jax", "modelport,tensorflow,torch", *TORCH_NETS, fit=True)


def test_every_net_opens_and_fits_on_torch_once_no_name_has_a_dot(files: Path) -> None:
    plain_keras.elsewhere(files, "torch", "modelport,jax", *(f"{kind}_renamed" for kind in TORCH_NETS), fit=True)


@pytest.mark.parametrize("kind", ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny"])
def test_an_application_of_keras_exports_and_compiles_in_torch(kind: str, tmp_path: Path) -> None:
    import keras

    source = getattr(keras.applications, kind)(weights=None, input_shape=(32, 32, 3), classes=10)
    example = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    module = mp.transfer(source, to="torch", example=example).native
    x = torch.from_numpy(np.concatenate([example, example[:1]]))
    with torch.no_grad():
        want = module(x)

    any_batch = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (x[:2],), dynamic_shapes=any_batch)
    torch.testing.assert_close(program.module()(x), want, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-5)
    path = tmp_path / "again.onnx"
    torch.onnx.export(module, (x[:2],), path, dynamo=True, dynamic_shapes=any_batch, verbose=False)
    again = mp.load(path)(x.numpy())
    np.testing.assert_allclose(again, want.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="inductor is tried on Linux only")
def test_inductor_compiles_a_cnn() -> None:
    example = in_keras.example("cnn")
    module = mp.transfer(in_keras.net("cnn"), to="torch", example=example).native
    x = torch.from_numpy(np.asarray(example))
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(module)(x), module(x), rtol=1e-4, atol=1e-5)
