"""`compare` takes what the user has: native models, handles and paths, with or without inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelport as mp
from modelport.core.report import ParityRow
from modelport.verbs.compare import measure
from tests.nets import in_keras, in_torch

pytestmark = pytest.mark.xdist_group("roundtrip")


class Pair(torch.nn.Module):
    """Takes its two inputs as one tuple, and one of them is not used in every output."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Linear(4, 3)
        self.right = torch.nn.Linear(5, 3)

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = pair
        return self.left(x), self.left(x) + self.right(y)


def _pair(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 4), torch.randn(batch, 5)


@pytest.fixture(scope="module")
def pair() -> tuple[Pair, mp.Model]:
    net = Pair().eval()
    return net, mp.transfer(net, to="keras", example=(_pair(2),))


def test_a_native_model_needs_no_inputs_beside_a_handle_that_knows_them(pair: Any) -> None:
    net, moved = pair
    report = mp.compare(net, moved)
    assert report.ok
    assert {row.batch for row in report.rows if row.kind == "output"} == {2, 3}
    assert {row.name for row in report.rows if row.kind == "gradient"} == set(net.state_dict())


@pytest.mark.parametrize("nested", [True, False])
def test_inputs_may_be_nested_as_the_native_call_or_in_order(pair: Any, nested: bool) -> None:
    net, moved = pair
    arrays = tuple(part.numpy() for part in _pair(5))
    assert mp.compare(net, moved, (arrays,) if nested else arrays).ok


def test_two_paths_can_be_compared(pair: Any, tmp_path: Path) -> None:
    net, moved = pair
    mp.save(net, tmp_path / "net.mport", example=(_pair(2),))
    mp.save(moved, tmp_path / "net.onnx")
    assert mp.compare(tmp_path / "net.mport", tmp_path / "net.onnx").ok


def test_two_native_models_can_be_compared() -> None:
    net = in_keras.net("encoder")
    moved = mp.transfer(net, to="torch").native
    tokens, mask = in_keras.example("encoder")
    assert mp.compare(net, mp.transfer(net, to="torch"), (tokens, mask)).ok
    with torch.no_grad():
        expected = moved(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(np.asarray(net([tokens, mask])), expected, atol=1e-5)


def test_a_changed_weight_is_found_and_named() -> None:
    net = in_torch.net("mlp")
    moved = mp.transfer(net, to="keras", example=in_torch.example("mlp"))
    net.net[4].bias.data[2] += 0.5
    report = mp.compare(net, moved)
    assert not report.ok
    assert [row.name for row in report.rows if row.kind == "output" and not row.ok] == ["output", "output"]


def test_a_transfer_beyond_the_tolerance_raises_with_the_report() -> None:
    with pytest.raises(mp.ParityError, match=r"tolerance=.*check=False") as caught:
        mp.transfer(in_torch.net("lstm"), to="keras", example=in_torch.example("lstm"), tolerance=1e-12)
    assert isinstance(caught.value.report, mp.ParityReport)
    assert caught.value.report.max_rel > 1e-12


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 2.0], 2.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([[1.0]], [1.0], np.inf),
    ],
)
def test_the_error_is_relative_to_the_largest_value(expected: Any, found: Any, error: float) -> None:
    row = measure("y", "output", 1, np.array(expected), np.array(found), 1e-5)
    assert isinstance(row, ParityRow)
    assert row.max_rel == error
    assert row.ok == (error == 0)


def test_other_classes_are_not_close() -> None:
    assert not measure("y", "output", 1, np.array([1, 2]), np.array([1, 3]), 1e9).ok


def test_chance_is_named_as_the_reason_for_a_difference() -> None:
    class Noisy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    with pytest.raises(mp.ParityError, match=r"draws random numbers \(RandomNormalLike\).*check=False"):
        mp.transfer(Noisy(), to="onnx", example=np.ones((2, 3), "float32"))
