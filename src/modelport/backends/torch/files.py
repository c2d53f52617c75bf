"""torch's own files: exported programs, state dicts, TorchScript."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelport.backends.torch import archives
from modelport.core.backend import FileFormat, Opened
from modelport.core.errors import FormatError, IntegrityError, UntrustedFileError
from modelport.core.signature import Arrays, Signature


def open_program(path: Path) -> Opened:
    """Read an ExportedProgram.

    Raises:
        IntegrityError: torch cannot read the file.
    """
    import torch

    from modelport.backends.torch.program import program_example, program_signature

    try:
        with path.open("rb") as file:
            program = torch.export.load(file)
    except Exception as exc:
        raise IntegrityError(
            f"torch cannot read {path.name} as an exported program: {type(exc).__name__}: {exc}. "
            "Write it again with torch.export.save."
        ) from exc
    known = program.example_inputs is not None
    return Opened(program, program_signature(program) if known else None, program_example(program))


def write_program(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write a model as an ExportedProgram with the signature's dynamic dimensions; paths of source files are left out.

    Raises:
        FormatError: there is no example to export the model with.
        UnsupportedModelError: torch cannot trace the model.
    """
    import torch

    from modelport.backends.torch.trace import trace_plain

    if not isinstance(native, torch.export.ExportedProgram):
        if signature is None:
            raise FormatError("a .pt2 file holds a traced program: pass example=, the inputs of one call.")
        native = trace_plain(native, _arrays(native, signature, example), signature)
    for node in native.graph.nodes:
        node.meta.pop("stack_trace", None)
    with path.open("wb") as file:
        torch.export.save(native, file)


def read_state_dict(path: Path) -> Arrays:
    """Read the tensors of a state dict by name, never anything else.

    Raises:
        UntrustedFileError: the file holds more than tensors; that is refused whoever trusts it.
        FormatError: it is a checkpoint that has a state dict among other things.
        IntegrityError: torch cannot read the file.
    """
    import pickle

    import torch

    from modelport.backends.torch.parameters import COUNTER
    from modelport.backends.torch.run import to_numpy

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        found = archives.unsafe_pickle(path) or str(exc).partition(". ")[0]
        raise UntrustedFileError(
            f"{path.name} is no state dict: it holds {found}. Load it where it was made and save model.state_dict()."
        ) from exc
    except Exception as exc:
        raise IntegrityError(f"torch cannot read {path.name}: {type(exc).__name__}: {exc}.") from exc
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        keys = list(content) if isinstance(content, Mapping) else type(content).__name__
        raise FormatError(
            f"{path.name} holds {keys}, not the tensors of one state dict: save model.state_dict() by itself."
        )
    return {name: to_numpy(tensor) for name, tensor in content.items() if not name.endswith(COUNTER)}


def write_state_dict(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write a model's state dict with `torch.save`."""
    import torch

    state = native.state_dict if isinstance(native, torch.export.ExportedProgram) else native.state_dict()
    torch.save(dict(state), path)


def open_torchscript(path: Path) -> Opened:
    """Read a TorchScript module onto the CPU.

    Raises:
        IntegrityError: torch cannot read the file.
    """
    import torch

    try:
        return Opened(torch.jit.load(str(path), map_location="cpu"))
    except RuntimeError as exc:
        raise IntegrityError(f"torch cannot read {path.name} as TorchScript: {str(exc).splitlines()[0]}.") from exc


def write_torchscript(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    """Write a ScriptModule; torch writes no other model as TorchScript without changing it.

    Raises:
        FormatError: the model is no ScriptModule.
    """
    import torch

    if not isinstance(native, torch.jit.ScriptModule):
        raise FormatError(
            f"{type(native).__name__} is no TorchScript: save it as .pt2, or pass torch.jit.script(model)."
        )
    native.save(str(path))


def _arrays(native: Any, signature: Signature, example: Any) -> Arrays:
    from modelport.backends.torch.run import flatten

    if example is None:
        return signature.draw({})
    return flatten(native, example, signature)


FORMATS: tuple[FileFormat, ...] = (
    FileFormat(
        "pt2",
        (".pt2",),
        archives.is_program,
        open=open_program,
        write=write_program,
        unsafe=archives.unsafe_program,
    ),
    FileFormat(
        "state_dict",
        (".pt", ".pth"),
        archives.is_pickle,
        write=write_state_dict,
        read_weights=read_state_dict,
        unsafe=archives.unsafe_pickle,
    ),
    FileFormat(
        "torchscript",
        (".pt",),
        archives.is_torchscript,
        open=open_torchscript,
        write=write_torchscript,
        unsafe=archives.unsafe_torchscript,
    ),
)
