"""Parameters go in and out of a torch model by the names of its state dict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from modelport.backends.torch import BACKEND
from modelport.core.errors import DataError


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out, self.norm = nn.Embedding(10, 4), nn.Linear(4, 10), nn.BatchNorm1d(10)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.out(self.embed(ids)))


def test_parameters_are_the_state_dict_without_batch_counters() -> None:
    net = Tied()
    found = BACKEND.parameters(net)
    assert set(found) == {key for key in net.state_dict() if not key.endswith("num_batches_tracked")}
    found["out.bias"][:] = 7
    assert not bool((net.out.bias == 7).any())


def test_assigning_is_in_place_so_an_optimizer_goes_on() -> None:
    net = Tied()
    before = {name: tensor.data_ptr() for name, tensor in net.named_parameters()}
    BACKEND.assign(net, {name: np.full(array.shape, 2, array.dtype) for name, array in BACKEND.parameters(net).items()})
    assert {name: tensor.data_ptr() for name, tensor in net.named_parameters()} == before
    assert all(bool((tensor == 2).all()) for tensor in net.parameters())
    assert bool((net.norm.running_var == 2).all())


@pytest.mark.parametrize("alias", ["embed.weight", "out.weight"])
def test_a_tied_tensor_may_be_given_under_either_name(alias: str) -> None:
    net = Tied()
    given = BACKEND.parameters(net)
    given = {name: array for name, array in given.items() if name not in ("embed.weight", "out.weight")}
    BACKEND.assign(net, {**given, alias: np.full((10, 4), 3, "float64")})
    assert bool((net.embed.weight == 3).all())


def test_a_state_dict_of_the_net_itself_fits_with_its_counters() -> None:
    net, other = Tied(), Tied()
    BACKEND.assign(net, other.state_dict())
    np.testing.assert_array_equal(net.out.bias.detach(), other.out.bias.detach())


def test_every_misfit_is_named_and_nothing_changes() -> None:
    net = Tied()
    before = BACKEND.parameters(net)
    given = {name: array + 1 for name, array in before.items()}
    given["embed.weight"] = given["embed.weight"] + 1
    given["out.bias"] = given["out.bias"][:3]
    given["norm.weight"] = given["norm.weight"].astype("int64")
    del given["norm.bias"]
    given["head.weight"] = np.ones(3)
    with pytest.raises(DataError) as error:
        BACKEND.assign(net, given)
    for part in ("'out.bias' has shape (3,)", "'norm.weight' has dtype", "two values", "norm.bias", "head.weight"):
        assert part in str(error.value)
    for name, array in BACKEND.parameters(net).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_program_shares_its_parameters_with_what_runs() -> None:
    program = torch.export.export(nn.Linear(3, 2), (torch.ones(2, 3),))
    signature = BACKEND.signature(program)
    zeros = {name: np.zeros_like(array) for name, array in BACKEND.parameters(program).items()}
    BACKEND.run(program, {"input": np.ones((2, 3), "float32")}, signature)
    BACKEND.assign(program, zeros)
    assert not BACKEND.run(program, {"input": np.ones((2, 3), "float32")}, signature)["output"].any()
