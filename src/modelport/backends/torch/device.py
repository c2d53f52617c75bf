"""Where a torch model's tensors lie."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from modelport.core.errors import DataError


def place(native: Any, device: str) -> Any:
    """The model with every tensor on a device; an `nn.Module` is moved in place, a program is made anew.

    Args:
        native: an `nn.Module`, `ExportedProgram` or `ScriptModule`.
        device: `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`.

    Raises:
        DataError: there is no such device here.
    """
    here = devices()
    if device not in here:
        raise DataError(f"there is no device {device!r} here: torch sees {', '.join(here)}.")
    if isinstance(native, ExportedProgram):
        from torch.export.passes import move_to_device_pass

        return move_to_device_pass(native, device)
    return native.to(device)


def devices() -> list[str]:
    """The names of the devices that torch can use here."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *(["cuda"] if cuda else []), *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
