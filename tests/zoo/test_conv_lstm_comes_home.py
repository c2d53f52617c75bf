"""Convolutional LSTMs of one and three dimensions go to torch as loops and come home."""

from __future__ import annotations

import pytest

from tests.roundtrip.test_control_flow_comes_home import goes_and_comes_home

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize("rank", [1, 3])
def test_a_convolutional_lstm_goes_to_torch_and_home(rank: int) -> None:
    from keras import layers

    layer = {1: layers.ConvLSTM1D, 3: layers.ConvLSTM3D}[rank]
    goes_and_comes_home((None, *[4] * rank, 2), [layer(2, 3), layers.Flatten(), layers.Dense(2)])
