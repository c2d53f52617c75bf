"""What is this file: its format, signature, parameters, size, versions, and whether opening it is safe."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelport.core.report import table
from modelport.core.signature import Arrays


@dataclass(frozen=True)
class InspectReport:
    """What a file is; prints as a table.

    Attributes:
        path: the file or directory.
        format: the format it has (`"bundle"`, `"onnx"`, `"keras"`, …).
        backend: the backend that reads it.
        bytes: its size on disk.
        unsafe: why opening it could run code from it; empty where it cannot.
        signature: its named inputs and outputs, empty where the file does not tell or is not safe to open.
        parameters: name, dtype and shape of every weight.
        elements: how many numbers the weights have together.
        versions: the versions of the libraries that wrote it, where the file tells.
        history: the verbs that the model went through, where the file tells.
    """

    path: str
    format: str
    backend: str
    bytes: int
    unsafe: str = ""
    signature: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    elements: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        return not self.unsafe

    def __str__(self) -> str:
        rows = [
            ("format", f"{self.format} (read by {self.backend})"),
            ("size", f"{self.bytes:,} bytes"),
            ("safe", "yes" if self.safe else f"NO: {self.unsafe}"),
            ("signature", self.signature or "not told by the file"),
            ("parameters", f"{self.elements:,} in {len(self.parameters)} tensors"),
            *(("version", f"{name} {version}") for name, version in self.versions.items()),
            *(("history", event) for event in self.history),
            *((f"  {name}", text) for name, text in self.parameters.items()),
        ]
        return table(self.path, ("", ""), rows)

    def to_json(self) -> dict[str, Any]:
        return {"safe": self.safe, **asdict(self)}


def inspect(path: str | os.PathLike[str]) -> InspectReport:
    """What a model file is; a file that could run code is described and not opened.

    Args:
        path: a bundle, a framework's own file, or a weights file.

    Raises:
        FormatError: no backend knows the format.
        IntegrityError: the file is damaged.
        MissingBackendError: the framework that reads it is not installed.

    Example:
        >>> print(inspect("net.mport"))    # doctest: +SKIP
    """
    from modelport.verbs.load import identify, load

    path = Path(path)
    found = identify(path)
    size = _size(path)
    if reason := found.unsafe(path):
        return InspectReport(str(path), found.name, found.backend, size, unsafe=reason)
    if found.read_weights is not None and found.weights_only:
        return InspectReport(str(path), found.name, found.backend, size, **_weights(found.read_weights(path)))
    model = load(path)
    return InspectReport(
        str(path),
        found.name,
        found.backend,
        size,
        signature=str(model.signature),
        versions=found.versions(path),
        history=tuple(_told(event) for event in model.history),
        **_weights(model.parameters()),
    )


def _size(path: Path) -> int:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files)


def _weights(parameters: Arrays) -> dict[str, Any]:
    return {
        "parameters": {name: f"{a.dtype}{tuple(a.shape)}" for name, a in parameters.items()},
        "elements": int(sum(np.prod(a.shape, dtype=np.int64) for a in parameters.values())),
    }


def _told(event: Any) -> str:
    source, target = event.get("source", ""), event.get("target", "")
    return f"{event['verb']} {source} -> {target}" if source else str(event["verb"])
