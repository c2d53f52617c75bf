"""Keras on TensorFlow as a backend; importing this imports neither."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.core.backend import Built, Exported, FileFormat, Opened, Support
from modelport.core.errors import MissingBackendError
from modelport.core.signature import Arrays, Signature
from modelport.core.training import Batch, Epoch, Plan

if TYPE_CHECKING:
    from modelport.core.backend import Graph


def require_tensorflow() -> None:
    """Make sure that Keras computes with TensorFlow; call it before the first import of Keras.

    Raises:
        MissingBackendError: Keras is set up, or already imported, with another backend.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        chosen = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    else:
        chosen = keras.config.backend() if hasattr(keras, "config") else keras.backend.backend()
    if chosen != "tensorflow":
        raise MissingBackendError(
            f"Keras computes with {chosen!r} in this process, modelport needs TensorFlow: set the environment variable "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )


def _detect(name: str) -> Any:
    def detect(path: Path) -> bool:
        from modelport.backends.keras import files

        return bool(getattr(files, f"is_{name}")(path))

    return detect


def _open(name: str) -> Any:
    def open_(path: Path) -> Opened:
        require_tensorflow()
        from modelport.backends.keras import files

        return getattr(files, f"open_{name}")(path)

    return open_


def _write(name: str) -> Any:
    def write(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
        require_tensorflow()
        from modelport.backends.keras import files

        getattr(files, f"write_{name}")(native, path, signature, example)

    return write


def _unsafe(name: str) -> Any:
    def unsafe(path: Path) -> str:
        from modelport.backends.keras import files

        return str(getattr(files, f"unsafe_{name}")(path))

    return unsafe


def _read_weights(path: Path) -> Arrays:
    from modelport.backends.keras import files

    return files.read_weights(path)


class KerasBackend:
    """Keras models, and TensorFlow's own modules and SavedModels as a source."""

    name = "keras"
    aliases = ("tensorflow", "tf")
    modules = ("keras", "tensorflow")
    channels_last = True
    formats: tuple[FileFormat, ...] = (
        FileFormat("keras", (".keras",), _detect("keras"), _open("keras"), _write("keras"), unsafe=_unsafe("keras")),
        FileFormat("h5", (".h5", ".hdf5"), _detect("h5"), _open("h5"), _write("h5"), unsafe=_unsafe("h5")),
        FileFormat(
            "weights.h5",
            (".weights.h5", ".h5"),
            _detect("weights"),
            write=_write("weights"),
            read_weights=_read_weights,
        ),
        FileFormat(
            "savedmodel",
            (),
            _detect("savedmodel"),
            _open("savedmodel"),
            _write("savedmodel"),
            unsafe=_unsafe("savedmodel"),
        ),
    )

    def owns(self, native: Any) -> bool:
        """Whether an object is a Keras layer or model, a `tf.Module` or a restored SavedModel; imports nothing."""
        keras, tensorflow = sys.modules.get("keras"), sys.modules.get("tensorflow")
        if keras is not None and hasattr(keras, "Layer") and isinstance(native, keras.Layer):
            return True
        if tensorflow is None or not hasattr(tensorflow, "Module"):
            return False
        restored = type(native).__module__.startswith("tensorflow.") and hasattr(native, "signatures")
        return isinstance(native, tensorflow.Module) or restored

    def signature(self, native: Any, example: Any = None) -> Signature:
        """See `Backend.signature`; `modelport.backends.keras.run.signature` says how names are found."""
        require_tensorflow()
        from modelport.backends.keras.run import signature

        return signature(native, example)

    def flatten(self, native: Any, example: Any, signature: Signature) -> Arrays:
        """See `Backend.flatten`."""
        from modelport.backends.keras.run import flatten

        return flatten(native, example, signature)

    def export(self, native: Any, example: Arrays, signature: Signature) -> Exported:
        """See `Backend.export`."""
        require_tensorflow()
        from modelport.backends.keras.export import export

        return export(native, example, signature)

    def build(self, graph: Graph) -> Built:
        """See `Backend.build`."""
        require_tensorflow()
        from modelport.backends.keras.build import build

        return build(graph)

    def run(self, native: Any, inputs: Arrays, signature: Signature) -> Arrays:
        """See `Backend.run`."""
        require_tensorflow()
        from modelport.backends.keras.run import run

        return run(native, inputs, signature)

    def parameters(self, native: Any) -> Arrays:
        """See `Backend.parameters`."""
        from modelport.backends.keras.parameters import parameters

        return parameters(native)

    def assign(self, native: Any, parameters: Mapping[str, Any]) -> None:
        """See `Backend.assign`."""
        from modelport.backends.keras.parameters import assign

        assign(native, parameters)

    def place(self, native: Any, device: str) -> Any:
        """See `Backend.place`."""
        require_tensorflow()
        from modelport.backends.keras.device import place

        return place(native, device)

    def gradients(self, native: Any, inputs: Arrays, cotangents: Arrays, signature: Signature) -> Arrays:
        """See `Trainer.gradients`."""
        require_tensorflow()
        from modelport.backends.keras.train import gradients

        return gradients(native, inputs, cotangents, signature)

    def fit(
        self,
        native: Any,
        batches: Callable[[int], Iterable[Batch]],
        plan: Plan,
        signature: Signature,
        on_epoch: Callable[[Epoch], bool],
    ) -> tuple[Epoch, ...]:
        """See `Trainer.fit`."""
        require_tensorflow()
        from modelport.backends.keras.train import fit

        return fit(native, batches, plan, signature, on_epoch)

    def support(self, op_type: str, domain: str = "", *, text: bool = False) -> Support:
        """See `Backend.support`."""
        from modelport.backends.keras.support import support

        return support(op_type, domain, text=text)


BACKEND = KerasBackend()
