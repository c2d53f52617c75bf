"""The one policy for every format: what could run code is refused unless the caller trusts it."""

from __future__ import annotations

from pathlib import Path

from modelport.core.backend import FileFormat
from modelport.core.errors import UntrustedFileError


def admit(path: Path, format: FileFormat, *, trust: bool) -> None:
    """Refuse a file whose opening could run code from it; there is no other way in.

    Args:
        path: the file; it is looked at and not opened.
        format: its format.
        trust: whether the caller says that the file is trusted.

    Raises:
        UntrustedFileError: the file could run code; the message says what was found.
    """
    reason = "" if trust else format.unsafe(path)
    if reason:
        raise UntrustedFileError(
            f"{path} could run code when it is opened: {reason}. Pass trust=True if you know who made it, or ask for "
            "the model as a bundle, .onnx or .safetensors, which hold no code."
        )
