"""A torch net goes to Keras and comes home: what must hold at each stop."""

from __future__ import annotations

from typing import Any

import numpy as np

import modelport as mp
from modelport.core.signature import leaves

TOLERANCE = 1e-4
COUNTER = "num_batches_tracked"
"""What torch's BatchNorm counts, and only reads where it averages over all batches; no other framework has it."""


def draw(batch: int, shape: tuple[int, ...]) -> np.ndarray:
    """Images or videos that differ in colour and contrast, as real ones do.

    Means over images of plain noise hardly differ, and a BatchNorm behind such a mean would blow up the rounding.
    """
    rng = np.random.default_rng(batch)
    per_image = (batch, shape[0], *[1] * (len(shape) - 1))
    noise = rng.standard_normal((batch, *shape)) * rng.uniform(0.5, 1.5, per_image)
    return (noise + rng.standard_normal(per_image)).astype("float32")


def outputs(net: Any, x: np.ndarray) -> list[np.ndarray]:
    """The outputs of a torch net in inference mode, in order."""
    import torch

    with torch.no_grad():
        return [value.numpy() for value in leaves((net(torch.from_numpy(x)),))]


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert theirs.std() > 1e-3 * np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def state(net: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in net.state_dict().items() if not name.endswith(COUNTER)}


def doubled_biases(net: Any) -> set[str]:
    """The second biases of LSTMs: Keras keeps the sum of the two, so that it comes home as the first."""
    import torch

    cells = {name: cell for name, cell in net.named_modules() if isinstance(cell, (torch.nn.LSTM, torch.nn.RNN))}
    return {f"{name}.{key}" for name, cell in cells.items() for key, _ in cell.named_parameters() if "bias_hh" in key}


def trainable(net: Any) -> set[str]:
    return {name for name, tensor in net.named_parameters(remove_duplicate=False) if tensor.requires_grad}


def to_keras(net: Any, shape: tuple[int, ...], tolerance: float = TOLERANCE) -> mp.Model:
    """The net in Keras: native layers, the same outputs at any batch size, every parameter trainable."""
    moved = mp.transfer(net, to="keras", example=draw(2, shape), check=False)
    assert not [note for note in moved.report.notes if note.kind == "fallback"]
    for batch in (1, 3):
        x = draw(batch, shape)
        assert_close([np.asarray(y) for y in leaves((moved.native(x, training=False),))], outputs(net, x), tolerance)
    assert set(moved.parameters()) | set(moved.aliases) == set(state(net))
    kept = [p for name, p in net.named_parameters() if p.requires_grad and name not in doubled_biases(net)]
    expected = sum(parameter.numel() for parameter in kept)
    assert sum(int(np.prod(weight.shape)) for weight in moved.native.trainable_weights) == expected
    return moved


def home(net: Any, moved: mp.Model, shape: tuple[int, ...]) -> mp.Model:
    """The net back in torch: the same outputs at any batch size, every name and value as it left."""
    arrived = mp.transfer(moved, to="torch", check=False)
    native = arrived.native.eval()
    for batch in (1, 3):
        x = draw(batch, shape)
        assert_close(outputs(native, x), outputs(net, x))
    before, after = state(net), state(native)
    assert set(after) == set(before)
    for name in doubled_biases(net):
        first = name.replace("bias_hh", "bias_ih")
        before[first], before[name] = before[first] + before[name], np.zeros_like(before[name])
    assert [name for name in before if not np.array_equal(after[name], before[name])] == []
    assert trainable(native) == trainable(net)
    return arrived
