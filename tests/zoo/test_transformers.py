"""The model types of Hugging Face go to Keras and come home, for batches and sequences of any size."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import modelport as mp
from modelport.core.signature import leaves
from tests.nets.transformers_nets import NETS, REFUSED, dynamic, example, net
from tests.zoo.crossing import TOLERANCE, assert_close, state, trainable

QUICK = {"bert", "gpt2", "llama"}
CUSTOM = {"sew"}
"""Cut to the shorter of two lengths that are rounded otherwise: only the run tells which, in a layer of modelport."""

SIZES = ((3, 3), (1, 1))
"""Rows, and how much longer than the example every sequence is."""


def _outputs(model: Any, inputs: dict[str, np.ndarray], names: set[str]) -> list[np.ndarray]:
    """What a torch model returns under some names, in order."""
    import torch

    with torch.no_grad():
        returned = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    return [tensor.numpy() for tensor in leaves({key: returned[key] for key in returned if key in names})]


def _assert_same(model: Any, moved: mp.Model, name: str) -> None:
    for rows, longer in SIZES:
        inputs = example(name, rows, longer)
        expected = _outputs(model, inputs, set(moved.signature.returns))
        found = [np.asarray(value) for value in leaves(moved(inputs))]
        # A loss is one number, and has no spread to look at.
        several = [place for place, value in enumerate(expected) if value.size > 1]
        assert_close([found[place] for place in several], [expected[place] for place in several])
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xdist_group("zoo"), *([] if name in QUICK else [pytest.mark.zoo])])
        for name in sorted(NETS.keys() - REFUSED.keys())
    ],
)
def test_a_model_of_transformers_goes_to_keras_and_comes_home(name: str) -> None:
    model = net(name)
    moved = mp.transfer(model, to="keras", example=example(name), dynamic=dynamic(name), check=False)
    kinds = {note.kind for note in moved.report.notes}
    assert "fallback" not in kinds
    assert ("custom" in kinds) == (name in CUSTOM)
    named = {axis for axes in dynamic(name).values() for axis in ([axes] if isinstance(axes, str) else axes.values())}
    assert {"batch", *named} <= {dim for spec in moved.signature.inputs for dim in spec.shape or ()}
    _assert_same(model, moved, name)
    arrived = mp.transfer(moved, to="torch", check=False)
    _assert_same(model, arrived, name)
    before, after = state(model), arrived.parameters()
    after |= {alias: after[kept] for alias, kept in arrived.aliases.items()}
    assert set(after) == set(before)
    assert [key for key in before if not np.array_equal(after[key], before[key])] == []
    assert trainable(arrived.native) == trainable(model)


@pytest.mark.zoo
@pytest.mark.xdist_group("zoo")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_told_by_its_line(name: str) -> None:
    _, line = REFUSED[name]
    with pytest.raises((mp.UnsupportedModelError, mp.UnsupportedOpError)) as error:
        mp.transfer(net(name), to="keras", example=example(name), dynamic=dynamic(name))
    assert re.search(rf"at \S+\.py:\d+: .*{re.escape(line)}", str(error.value)), error.value
