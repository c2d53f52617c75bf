"""Every layer of Keras goes to torch and home: outputs at two batch sizes and lengths, and all the names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core import registry
from tests.nets.keras_layers import CASES, REFUSED, inputs_of, model_of

pytestmark = [pytest.mark.zoo, pytest.mark.xdist_group("keras layers")]

LOOSE = {"Resizing bicubic": 1e-3, "GroupNormalization far from zero": 2e-3}
"""See `tests/backends/keras/test_export_layers.py`, which shows why."""

SIZES = ((1, 9), (3, 6))


def _inputs(case: str) -> list[dict[str, np.ndarray]]:
    sample_rate = 8 if CASES[case].shape[-1:] == (1,) else 1
    return [inputs_of(case, batch, length * sample_rate) for batch, length in SIZES]


def _outputs(model: mp.Model, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    inputs = dict(zip((spec.name for spec in model.signature.inputs), arrays.values(), strict=True))
    return list(registry.backend(model.backend).run(model.native, inputs, model.signature).values())


def _assert_same(expected: list[np.ndarray], found: list[np.ndarray], tolerance: float) -> None:
    for left, right in zip(expected, found, strict=True):
        assert (left.shape, left.dtype.kind) == (right.shape, right.dtype.kind)
        if left.dtype.kind in "biu":
            np.testing.assert_array_equal(right, left)
        else:
            np.testing.assert_allclose(right, left, rtol=0, atol=tolerance * max(np.abs(left).max(initial=0), 1e-30))


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_a_layer_goes_to_torch_and_home(case: str) -> None:
    import keras

    keras.backend.clear_session()
    model, inputs, tolerance = model_of(case), _inputs(case), LOOSE.get(case, 1e-4)
    example: Any = _inputs(case)[1]["x"]
    source = mp.transfer(model, device="cpu", example=example, check=False)
    expected = [_outputs(source, arrays) for arrays in inputs]
    there = mp.transfer(model, to="torch", example=example, check=False)
    for arrays, outputs in zip(inputs, expected, strict=True):
        _assert_same(outputs, _outputs(there, arrays), tolerance)
    home = mp.transfer(there, to="keras", check=False)
    for arrays, outputs in zip(inputs, expected, strict=True):
        _assert_same(outputs, _outputs(home, arrays), tolerance)
    assert set(home.parameters()) == set(source.parameters())
