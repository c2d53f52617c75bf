"""Networks as people write them go to Keras and come home, without a fallback and with their names."""

from __future__ import annotations

import pytest
import torch

import modelport as mp
from tests.nets.handwritten import WRITTEN
from tests.zoo.crossing import doubled_biases, state, trainable

pytestmark = pytest.mark.xdist_group("zoo")

QUICK = {"spatial transformer", "recommender", "rotary attention"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.zoo) for name in WRITTEN]
)
def test_a_handwritten_net_goes_to_keras_and_comes_home(name: str) -> None:
    torch.manual_seed(0)
    net = WRITTEN[name].make().eval()
    there = mp.transfer(net, to="keras", example=WRITTEN[name].example(), dynamic=WRITTEN[name].dynamic)
    assert not [note for note in there.report.notes if note.kind in ("fallback", "custom")]
    home = mp.transfer(there, to="torch")
    assert set(state(home.native)) == set(state(net))
    assert trainable(home.native) == trainable(net)
    kept = [p for p_name, p in net.named_parameters() if p_name not in doubled_biases(net)]
    assert sum(w.numpy().size for w in there.native.trainable_weights) == sum(p.numel() for p in kept)
