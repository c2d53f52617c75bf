"""Attention crosses as one operator, trains with its dropout, and comes home with its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import modelport as mp

X = np.random.default_rng(0).standard_normal((2, 6, 16)).astype("float32")


class Attention(nn.Module):
    def __init__(self, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.causal, self.dropout = causal, dropout

    def forward(self, x: Any) -> Any:
        q, k, v = (f(x).unflatten(2, (4, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=rate)
        return self.out(y.transpose(1, 2).flatten(2))


def _calls(module: Any) -> list[Any]:
    return [node for node in module.graph.nodes if node.target is F.scaled_dot_product_attention]


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_torchs_own_function_again_after_a_way_through_keras(causal: bool) -> None:
    torch.manual_seed(0)
    net = Attention(causal).eval()
    there = mp.transfer(net, to="keras", example=X, dynamic=None if causal else {1: "steps"})
    assert not [note for note in there.report.notes if note.kind in ("fallback", "custom")]
    longer = np.random.default_rng(1).standard_normal((3, 6 if causal else 9, 16)).astype("float32")
    expected = net(torch.from_numpy(longer)).detach().numpy()
    np.testing.assert_allclose(there(longer), expected, atol=1e-5)
    home = mp.transfer(there, to="torch")
    assert len(_calls(home.native)) == 1
    np.testing.assert_allclose(home(longer), expected, atol=1e-5)
    assert set(home.parameters()) == set(net.state_dict())
    assert mp.compare(net, there, X).ok


def test_its_dropout_drops_in_training_only_wherever_it_goes() -> None:
    torch.manual_seed(0)
    net = Attention(dropout=0.5).eval()
    there = mp.transfer(net, to="keras", example=X)
    (layer,) = [layer for layer in there.native.layers if type(layer).__name__ == "Dropout"]
    assert layer.rate == pytest.approx(0.5)
    assert not np.allclose(there.native(X, training=True), there.native(X, training=False))
    home: Any = mp.transfer(there, to="torch").native
    (call,) = _calls(home)
    assert "dropout_p" in call.kwargs
    x = torch.from_numpy(X)
    with torch.no_grad():
        torch.testing.assert_close(home(x), net(x), atol=1e-5, rtol=1e-5)
        home.train()
        assert not torch.allclose(home(x), home(x))
    again = mp.transfer(home.eval(), to="keras", example=X)
    (layer,) = [layer for layer in again.native.layers if type(layer).__name__ == "Dropout"]
    assert layer.rate == pytest.approx(0.5)


def test_torchs_own_attention_keeps_its_packed_projection_a_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.attention(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    net = Net().eval()
    there = mp.transfer(net, to="keras", example=X)
    kinds = {layer.name: type(layer).__name__ for layer in there.native.layers}
    assert kinds["attention.in_proj_"] == "Dense"
    assert not [name for name in kinds if "weight" in name]
    home = mp.transfer(there, to="torch")
    assert set(home.parameters()) == set(there.parameters()) == set(net.state_dict())
    assert len(_calls(home.native)) == 1
    assert mp.compare(net, home, X).ok


def test_a_causal_attention_of_keras_for_any_length_is_one_call_in_torch() -> None:
    import keras

    x = keras.Input((None, 6), name="x")
    net = keras.Model(x, keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    (call,) = _calls(mp.transfer(net, to="torch").native)
    assert call.kwargs == {"is_causal": True}
