"""Where a Keras model's variables are."""

from __future__ import annotations

from typing import Any

from modelport.backends.keras.structure import is_keras
from modelport.core.errors import DataError, UnsupportedModelError


def place(native: Any, device: str) -> Any:
    """The model with its variables on a device.

    A TensorFlow variable stays where it was made, so a model that is elsewhere is made anew from its configuration,
    on the device, and takes the weights over; one that is there already is returned as it is.

    Args:
        native: a Keras model.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`.

    Raises:
        DataError: there is no such device here.
        UnsupportedModelError: the model is elsewhere and has no configuration to be made from.
    """
    import keras
    import tensorflow as tf

    name = _tensorflow_name(device)
    if all(_is_on(variable, name) for variable in native.variables):
        return native
    problem = (
        f"{type(native).__name__} cannot be moved to {device!r}: TensorFlow variables stay where they were made, and "
        f"it cannot be made anew from a configuration. Make it under tf.device({name!r})."
    )
    if not is_keras(native):
        raise UnsupportedModelError(problem)
    with tf.device(name):
        try:
            copy = keras.models.clone_model(native) if isinstance(native, keras.Model) else None
        except (NotImplementedError, TypeError, ValueError) as error:
            raise UnsupportedModelError(problem) from error
        if copy is None or len(copy.weights) != len(native.weights):
            raise UnsupportedModelError(problem)
        for target, source in zip(copy.variables, native.variables, strict=True):
            target.assign(source.numpy())
            target.trainable = source.trainable
    return copy


def _tensorflow_name(device: str) -> str:
    """`"cuda:1"` as `"GPU:1"`, checked against the devices that exist."""
    import tensorflow as tf

    kind, _, index = device.partition(":")
    wanted = f"{({'cuda': 'GPU'}).get(kind.lower(), kind.upper())}:{index or 0}"
    known = [d.name.split("device:")[1] for d in tf.config.list_logical_devices()]
    if wanted not in known:
        ours = ", ".join(repr(name.lower().replace("gpu", "cuda")) for name in known)
        raise DataError(f"there is no device {device!r} for TensorFlow here: there are {ours}.")
    return wanted


def _is_on(variable: Any, name: str) -> bool:
    device = getattr(variable, "value", variable).device
    return device == "" or device.endswith(name)
