"""One tensor with two names: it is one tensor on the way, and has both names at home."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import modelport as mp

pytestmark = pytest.mark.xdist_group("roundtrip")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embedding(ids)))


@pytest.fixture(scope="module")
def net() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


EXAMPLE = torch.arange(6).reshape(2, 3)


@pytest.mark.parametrize("way", ["onnx", "keras", "torch"])
def test_tied_weights_come_home_under_both_names(net: Tied, way: str) -> None:
    home = mp.transfer(mp.transfer(net, to=way, example=EXAMPLE), to="torch")
    assert set(home.native.state_dict()) == {"embedding.weight", "head.weight"}
    assert len(list(home.native.parameters())) == 1
    Tied().load_state_dict(home.native.state_dict(), strict=True)
    assert mp.compare(net, home).ok


def test_a_framework_that_keeps_one_name_has_the_gradient_of_both(net: Tied) -> None:
    report = mp.compare(net, mp.transfer(net, to="keras", example=EXAMPLE))
    assert report.ok, report
    assert [row.name for row in report.rows if row.kind == "gradient"] == ["embedding.weight"]


def test_tied_weights_trained_in_keras_go_into_the_own_class(net: Tied, tmp_path: Path) -> None:
    moved = mp.transfer(net, to="keras", example=EXAMPLE)
    assert len(moved.native.trainable_weights) == 1
    mp.save(moved, tmp_path / "tied.mport")
    fresh = Tied()
    mp.load(tmp_path / "tied.mport", into=fresh)
    assert torch.equal(fresh.head.weight, net.head.weight)
    assert fresh.head.weight is fresh.embedding.weight
