"""Open a bundle or a framework's own file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.core import registry
from modelport.core.backend import Backend, Opened
from modelport.core.errors import FormatError, IntegrityError, ModelPortError, SignatureError
from modelport.core.model import Event, Model
from modelport.core.signature import Arrays, Signature
from modelport.trust.policy import admit
from modelport.verbs.formats import BUNDLE, JOBLIB, Identified, identify, target_of

__all__ = ["identify", "load", "target_of"]

if TYPE_CHECKING:
    from modelport.verbs.transfer import Layout

_LARGEST_EXAMPLE = 1 << 26
"""How many elements the example inputs that are drawn for a bundle may have."""


def load(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    into: Any = None,
    format: str | None = None,
    trust: bool = False,
    example: Any = None,
    device: str | None = None,
    layout: Layout = "source",
    check: bool = True,
) -> Model:
    """Open a model: a bundle, or a framework's own file.

    Nothing in the file is run: what could run code is refused. A bundle's files are checked against its manifest and
    then mapped, so that opening copies no weights.

    Args:
        path: a path, or a URL that fsspec knows.
        backend: where the model shall be: `"torch"`, `"keras"`, `"onnx"` or a plug-in's name. A bundle opens on ONNX
            Runtime where nothing is said, a framework's own file on that framework; on another one it is transferred.
        into: a model of your own, of any backend: its weights are set by name, and it is the `native` of the result.
        format: the format's name (`"onnx"`, `"pt2"`, …), where the suffix does not say it.
        trust: whether a file that could run code (a pickle, TorchScript, a Lambda layer) may do so.
        example: inputs in the native call's nesting, for files that do not tell their inputs.
        device: where it shall run: `"cpu"`, `"cuda"`, `"cuda:1"`.
        layout: of images where the model is transferred to `backend`, see `transfer`.
        check: whether a transfer to `backend` proves parity.

    Returns:
        A `Model`. With `into` it has your model's own signature, or the file's where the framework does not know it
        (PyTorch) and there is no `example`; a weights-only file then leaves it empty.

    Raises:
        FormatError: the format is not known, holds weights only and `into` is missing, or is newer than this modelport;
            as a `FileNotFoundError` too, where there is nothing at the path.
        IntegrityError: the file is damaged, truncated or altered.
        UntrustedFileError: opening it could run code from it, or it reads files outside of its directory.
        MissingBackendError: a framework that it needs is not installed.
        SignatureError: the file does not tell its inputs and no example is given.
        DataError: the weights do not fit `into`, or there is no such device.
        ParityError: the outputs changed on the way to `backend`.

    Example:
        >>> model = mp.load("resnet.mport", backend="keras")    # doctest: +SKIP
    """
    from modelport.bundle.remote import fetched

    if backend is not None:
        registry.backend(backend)
    with fetched(path) as file:
        _exists(file)
        found = identify(file, format)
        admit(file, found.format, trust=trust)
        if into is not None:
            model = _into(found, file, into, example)
        elif found.weights_only:
            raise FormatError(
                f"{path} holds weights and no program ({found.name}): pass the model that they belong to as into=, or "
                "save the whole model as .mport."
            )
        else:
            model = _open(found, file, example)
    return _brought(model, None if into is not None else backend, device, layout, check)


def _exists(path: Path) -> None:
    from modelport.bundle.files import MissingFileError, recover

    if not recover(path):
        raise MissingFileError(f"there is no file or directory {path}: check the path.")


def _brought(model: Model, backend: str | None, device: str | None, layout: Layout, check: bool) -> Model:
    target = model.backend if backend is None else registry.backend(backend).name
    if target == model.backend and device is None:
        return model
    from modelport.verbs.transfer import transfer

    to = None if target == model.backend else target
    return transfer(model, to=to, device=device, layout=layout, check=check and to is not None)


def _open(found: Identified, path: Path, example: Any) -> Model:
    if found.format is BUNDLE:
        return _open_bundle(path, example)
    if found.format is JOBLIB:
        import joblib

        native = _read(lambda: joblib.load(path), path, found.name)
        return _wrapped(registry.owner(native), Opened(native), path, found.name, example)
    backend = registry.backend(found.backend)
    if found.format.open is None:
        raise FormatError(f"{found.name!r} files can be written and not read.")
    open_file = found.format.open
    return _wrapped(backend, _read(lambda: open_file(path), path, found.name), path, found.name, example)


def _read(read: Callable[[], Any], path: Path, name: str) -> Any:
    try:
        return read()
    except (ModelPortError, ImportError):
        raise
    except Exception as error:  # whatever a framework's parser stumbles on in a file that is damaged
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise IntegrityError(
            f"{path} cannot be read as {name}, it is damaged or of another kind: {lines[0][:300]}. Get it again from "
            "its source."
        ) from error


def _wrapped(backend: Backend, opened: Opened, path: Path, name: str, example: Any) -> Model:
    example = opened.example if example is None else example
    signature = backend.signature(opened.native, example) if opened.signature is None else opened.signature
    arrays = None if example is None else backend.flatten(opened.native, example, signature)
    event = {"verb": "load", "file": path.name, "format": name}
    return Model(opened.native, backend, signature, example=arrays, history=(event,))


def _open_bundle(path: Path, example: Any) -> Model:
    from modelport.bundle.store import read_bundle
    from modelport.graph.signature import read_signature
    from modelport.graph.weights import aliases

    graph, manifest = read_bundle(path)
    target = registry.preferred()
    signature = _read(lambda: read_signature(graph), path, "a bundle")
    built = target.build(graph)
    signature = built.signature or signature
    arrays = _drawn(signature, manifest.sizes) if example is None else target.flatten(built.native, example, signature)
    event = {"verb": "load", "file": path.name, "format": BUNDLE.name}
    return Model(
        built.native,
        target,
        signature,
        example=arrays,
        history=(*manifest.history, event),
        aliases=aliases(graph),
    )


def _drawn(signature: Signature, sizes: Any) -> Arrays | None:
    """Inputs of the sizes that the example had when the bundle was saved; the example itself is not in it."""
    shapes = ([dim if isinstance(dim, int) else sizes.get(dim, 2) for dim in s.shape or ()] for s in signature.inputs)
    largest = max((math.prod(shape) for shape in shapes), default=0)
    if largest > _LARGEST_EXAMPLE or any("(" in spec.dtype or spec.shape is None for spec in signature.inputs):
        return None
    return signature.draw(sizes)


def _into(found: Identified, path: Path, native: Any, example: Any) -> Model:
    target = registry.owner(native)
    history: tuple[Event, ...] = ()
    if found.weights_only:
        read_weights = found.format.read_weights
        assert read_weights is not None
        weights = _read(lambda: read_weights(path), path, found.name)
        known, arrays = Signature((), ()), None
    else:
        source = _open(found, path, example)
        weights, history = _weights_for(target, native, source.parameters()), source.history[:-1]
        known, arrays = source.signature, source.example
    target.assign(native, weights)
    signature = _own_signature(target, native, example) or known
    if example is not None:
        arrays = target.flatten(native, example, signature)
    elif arrays is not None and set(arrays) != {spec.name for spec in signature.inputs}:
        arrays = None
    event = {"verb": "load", "file": path.name, "format": found.name, "into": type(native).__qualname__}
    return Model(native, target, signature, example=arrays, history=(*history, event))


def _own_signature(target: Backend, native: Any, example: Any) -> Signature | None:
    """The model's own signature; `None` where its framework does not know it and there is no example."""
    try:
        return target.signature(native, example)
    except SignatureError:
        if example is not None:
            raise
        return None


def _weights_for(target: Backend, native: Any, weights: Arrays) -> Arrays:
    """The weights, less the further names of tied ones that the target model does not have.

    Tied weights come as one array under each of their names.
    """
    names = set(target.parameters(native))
    held = {id(array) for name, array in weights.items() if name in names}
    return {name: array for name, array in weights.items() if name in names or id(array) not in held}
