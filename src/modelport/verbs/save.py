"""Write a model: as a bundle, or as a framework's own file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.core import registry
from modelport.core.backend import Backend
from modelport.core.errors import FormatError
from modelport.core.model import Model
from modelport.core.report import Note, ParityReport
from modelport.core.signature import Signature
from modelport.verbs.compare import tolerance_for
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.formats import ANY, BUNDLE, SAFETENSORS, Identified, for_writing
from modelport.verbs.rounding import rounding_notes, rounding_slack
from modelport.verbs.subject import borrowing, example_of, exported, subject

if TYPE_CHECKING:
    from modelport.bundle.program import Unused


def save(
    model: Any,
    path: str | os.PathLike[str],
    *,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
    format: str | None = None,
    native: bool = False,
    check: bool = True,
) -> None:
    """Write a model: as a bundle (`.mport`), or as a framework's own file.

    What is at the path is replaced at once when everything is written and proved: a crash at any moment leaves the old
    file or the new one. A model of another framework than the file's is transferred first.

    Args:
        model: a native model, a `Model` or a path.
        path: where it goes; the suffix decides about the format. May be a URL that fsspec knows.
        example: inputs in the native call's nesting; needed for a model whose framework does not know its shapes
            (PyTorch). Only their sizes are kept in a bundle.
        signature: the named inputs and outputs, where they shall not be those that the framework finds.
        dynamic: axes of the inputs that may have any size: `{1: "sequence"}` for axis 1 of every input that has one, or
            by input, `{"input_ids": {1: "source"}, "decoder_input_ids": {1: "target"}}`. One name is one size.
        format: the format's name (`"bundle"`, `"savedmodel"`, …), where the suffix does not say it.
        native: whether a bundle also holds the framework's own file, under `native/`.
        check: whether to run the program that was written, in ONNX Runtime, against the model.

    Raises:
        FormatError: the format is not known or cannot be written, or the path is a directory of something else.
        UnsupportedModelError: no backend owns the model, or its framework cannot trace it.
        UnsupportedOpError: an operator has no portable form.
        SignatureError: the inputs are not known, or do not fit.
        ParityError: the outputs of what was written are not the model's; what was at the path stays.

    Example:
        >>> mp.save(net, "net.mport", example=x)    # doctest: +SKIP
    """
    from modelport.bundle.remote import stored

    if isinstance(model, (str, os.PathLike)):
        model = subject(model, example=example, signature=signature, dynamic=dynamic)
    owner = registry.backend(model.backend) if isinstance(model, Model) else registry.owner(model)
    with stored(path) as file:
        found = for_writing(file, format, owner.name)
        if found.format is BUNDLE:
            handle = subject(model, example=example, signature=signature, dynamic=dynamic)
            _replacing_own(file, found, lambda new: _write_bundle(handle, new, native=native, check=check))
        elif found.format is SAFETENSORS or found.weights_only:
            _replacing_own(file, found, lambda new: _write_weights(model, owner, found, new))
        else:
            handle = subject(model, example=example, signature=signature, dynamic=dynamic)
            _replacing_own(file, found, lambda new: _write_native(handle, found, new, check=check))


def _replacing_own(path: Path, found: Identified, write: Callable[[Path], None]) -> None:
    """Write to a path, which may hold nothing, a file, or a directory of the same format."""
    from modelport.bundle.files import replacing

    if path.is_dir() and any(path.iterdir()) and not found.format.detect(path):
        raise FormatError(f"{path} is a directory and no {found.name}: it is not replaced. Save to another path.")
    with replacing(path) as new:
        write(new)
        if not new.exists():
            raise FormatError(f"{found.name!r} wrote nothing to {path.name!r}: give the path one of its suffixes.")


def _write_bundle(model: Model, folder: Path, *, native: bool, check: bool) -> None:
    from modelport.bundle.manifest import Manifest, installed_versions
    from modelport.bundle.program import write_program
    from modelport.bundle.store import seal

    owner = registry.backend(model.backend)
    export = exported(model)
    folder.mkdir()
    unused = write_program(folder, export.graph)
    measured = _proved(model, folder, unused) if check else None
    rounded = () if measured is None else rounding_notes(measured, tolerance_for(export.graph))
    if native:
        _write_beside(model, owner, folder)
    manifest = Manifest(
        backend=owner.name,
        signature=model.signature,
        sizes=model.signature.sizes(example_of(model)),
        versions=installed_versions(),
        history=(*model.history, _event((*export.notes, *rounded), measured)),
        reports={} if model.report is None else {"last": model.report.to_json()},
    )
    seal(folder, manifest, unused)


def _event(notes: tuple[Note, ...], measured: ParityReport | None) -> dict[str, Any]:
    parity = None if measured is None else measured.to_json()
    return {"verb": "save", "format": BUNDLE.name, "notes": [asdict(note) for note in notes], "parity": parity}


def _proved(model: Model, folder: Path, unused: Unused) -> ParityReport:
    """Parity of the program as it lies on disk, in ONNX Runtime, with the model."""
    from modelport.bundle.program import read_program
    from modelport.graph.external import map_file
    from modelport.graph.signature import read_signature
    from modelport.verbs.compare import parity
    from modelport.verbs.transfer import refuse

    graph = read_program(lambda name: map_file(folder / name), unused)
    runtime = registry.backend("onnx")
    written = Model(runtime.build(graph).native, runtime, read_signature(graph))
    with borrowing(model, graph), borrowing(written, graph):
        allowed = tolerance_for(graph)
        measured = parity(model, written, gradients=False, tolerance=allowed, slack=rounding_slack(graph))
    refuse(measured, operators={node.op_type for node in graph.graph.all_nodes()})
    return measured


def _write_beside(model: Model, owner: Backend, folder: Path) -> None:
    """The framework's own file, in the first of its formats that holds a whole model."""
    format = next((f for f in owner.formats if f.write is not None and f.open is not None), None)
    if format is None or format.write is None:
        raise FormatError(f"the backend {owner.name!r} writes no file of its own: save with native=False.")
    target = folder / "native" / f"model{format.suffixes[0] if format.suffixes else ''}"
    target.parent.mkdir()
    format.write(model.native, target, model.signature, example_of(model))


def _write_weights(model: Any, owner: Backend, found: Identified, path: Path) -> None:
    native = model.native if isinstance(model, Model) else model
    if found.format is SAFETENSORS:
        from modelport.bundle.weights import write_arrays

        write_arrays(path, owner.parameters(native))
        return
    if found.backend != owner.name:
        raise FormatError(
            f"{found.name!r} holds the weights of a {found.backend} model and this is one of {owner.name}: transfer it "
            "first, or save as .safetensors."
        )
    assert found.format.write is not None
    found.format.write(native, path, None, None)


def _write_native(model: Model, found: Identified, path: Path, *, check: bool) -> None:
    if found.backend not in (model.backend, ANY):
        from modelport.verbs.transfer import transfer

        model = transfer(model, to=found.backend, check=check)
    assert found.format.write is not None
    found.format.write(model.native, path, model.signature, example_of(model))
