"""`layout="native"`: images in the layout of the framework that a model arrives in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelport as mp

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 12, 10)).astype("float32")


def _net() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Net(nn.Module):
        """Returns an image and a number of classes."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
            self.mask = nn.Conv2d(6, 2, 1)
            self.head = nn.Linear(6, 4)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.body(image)
            return self.mask(x), self.head(x.mean((2, 3)))

    return Net().eval()


def test_a_torch_net_takes_channels_last_in_keras_and_comes_home() -> None:
    import torch

    net = _net()
    moved = mp.transfer(net, to="keras", example=IMAGE, layout="native")
    assert moved.native.input_shape == (None, 12, 10, 3)
    assert moved.signature.inputs[0].shape == ("batch", 12, 10, 3)
    assert moved.signature.outputs[0].shape == ("batch", 12, 10, 2)
    assert {note.where for note in moved.report.notes if note.kind == "layout"} == {"image", "output_0"}
    assert moved.report.parity.ok
    assert len({row.batch for row in moved.report.parity.rows}) == 2
    image = np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1))
    mask, classes = moved(image)
    with torch.inference_mode():
        expected = [output.numpy() for output in net(torch.from_numpy(IMAGE))]
    np.testing.assert_allclose(mask.transpose(0, 3, 1, 2), expected[0], atol=1e-5)
    np.testing.assert_allclose(classes, expected[1], atol=1e-5)
    assert not any("transpose" in type(operation).__name__.lower() for operation in moved.native.operations)

    home = mp.transfer(moved, to="torch", layout="native")
    assert home.signature.inputs[0].shape == ("batch", 3, 12, 10)
    assert not any(node.target is torch.permute for node in home.native.graph.nodes)
    np.testing.assert_allclose(home(IMAGE)[0], expected[0], atol=1e-5)
    assert set(home.parameters()) == set(net.state_dict()) - {"body.1.num_batches_tracked"}


def test_a_bundle_opens_in_the_native_layout(tmp_path: Path) -> None:
    mp.save(_net(), tmp_path / "net.mport", example=IMAGE)
    as_saved = mp.load(tmp_path / "net.mport", backend="keras")
    native = mp.load(tmp_path / "net.mport", backend="keras", layout="native")
    assert as_saved.native.input_shape == (None, 3, 12, 10)
    assert native.native.input_shape == (None, 12, 10, 3)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(mp.DataError, match="NHWC"):
        mp.transfer(_net(), to="keras", example=IMAGE, layout="NHWC")  # type: ignore[arg-type]
