"""A model of Hugging Face, what it became in Keras and what came home have the same gradients and learn the same."""

from __future__ import annotations

import numpy as np
import pytest

import modelport as mp
from modelport.core.signature import leaves
from tests.nets.transformers_nets import dynamic, example, net

pytestmark = [pytest.mark.zoo, pytest.mark.xdist_group("zoo")]

NAMES = ("bert", "deberta-v2", "gpt2", "llama", "t5", "bart", "wav2vec2", "vit")
STEPS, RATE = 10, 0.05


def _batches(name: str) -> list[tuple[dict[str, np.ndarray], np.random.Generator]]:
    return [(example(name, 2 + step % 2, step % 3), np.random.default_rng(step)) for step in range(STEPS)]


def _losses_in_torch(model: mp.Model, name: str) -> list[float]:
    """Ten steps in inference mode, which drops nothing."""
    import torch

    from modelport.backends.torch.run import tensors_of

    optimizer, losses = torch.optim.SGD(model.native.eval().parameters(), lr=RATE), []
    for inputs, rng in _batches(name):
        call = tensors_of(inputs, model.signature, torch.device("cpu"))
        optimizer.zero_grad()
        first = next(leaves(dict(model.native(*call.args, **call.kwargs))))
        loss = torch.mean((first - torch.from_numpy(rng.standard_normal(first.shape).astype("float32"))) ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _losses_in_keras(model: mp.Model, name: str) -> list[float]:
    import keras
    import tensorflow as tf

    optimizer, losses = keras.optimizers.SGD(RATE), []
    for inputs, rng in _batches(name):
        given = [inputs[spec.name] for spec in model.signature.inputs]
        with tf.GradientTape() as tape:
            first = next(leaves(model.native(given if len(given) > 1 else given[0], training=False)))
            loss = tf.reduce_mean((first - rng.standard_normal(first.shape).astype("float32")) ** 2)
        variables = model.native.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_ten_steps_are_the_same_everywhere(name: str) -> None:
    settings = {"example": example(name), "dynamic": dynamic(name), "check": False}
    source = mp.transfer(net(name), device="cpu", **settings)
    moved = mp.transfer(source, to="keras", check=False)
    home = mp.transfer(moved, to="torch", check=False)
    for other in (moved, home):
        report = mp.compare(source, other, example(name))
        assert report.ok, report
        told = {row.name for row in report.rows if row.kind == "gradient"}
        assert told >= {parameter for parameter, _ in source.native.named_parameters()}
    curves = _losses_in_torch(source, name), _losses_in_keras(moved, name), _losses_in_torch(home, name)
    assert len(set(curves[0])) == STEPS
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)
    np.testing.assert_allclose(curves[2], curves[0], rtol=1e-3)
