"""The manifest of a bundle: what it holds, where it comes from, and the digest of every file."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

from modelport.core.errors import FormatError, IntegrityError
from modelport.core.model import Event
from modelport.core.signature import Signature

NAME = "manifest.json"
VERSION = 1

_LIBRARIES = ("modelport", "numpy", "onnx", "onnx-ir", "onnxruntime", "safetensors", "torch", "keras", "tensorflow")
_HEAD = re.compile(rb'\A\{\n  "sha256": "([0-9a-f]{64})"')
_BLANK = b"0" * 64


@dataclass(frozen=True, slots=True)
class FileEntry:
    """The digest and the size of one file of a bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and where it comes from.

    Attributes:
        backend: the backend that the model was saved from.
        signature: its named inputs and outputs.
        sizes: the sizes that the symbolic dimensions had in the example.
        files: digest and size of every other file, by path inside the bundle.
        unused: dtype and shape of weights that the program does not use and only `weights.safetensors` holds.
        versions: the versions of the libraries that wrote it.
        history: one entry per verb that the model went through, oldest first.
        reports: what the verbs measured.
        version: the version of the format.
    """

    backend: str
    signature: Signature
    sizes: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    unused: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Event, ...] = ()
    reports: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """The manifest as JSON, whose first entry is the SHA-256 of the whole text with that digest as zeros."""
        text = json.dumps({"sha256": _BLANK.decode(), **_plain(self._to_json())}, indent=2, allow_nan=False)
        blank = text.encode() + b"\n"
        return blank.replace(_BLANK, hashlib.sha256(blank).hexdigest().encode(), 1)

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": "modelport bundle",
            "version": self.version,
            "backend": self.backend,
            "signature": self.signature.to_json(),
            "sizes": dict(self.sizes),
            "files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in self.files.items()},
            "unused": {name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.unused.items()},
            "versions": dict(self.versions),
            "history": list(self.history),
            "reports": dict(self.reports),
        }

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """What `to_bytes` wrote.

        Args:
            data: the file's bytes.
            where: the file, for messages.

        Raises:
            IntegrityError: it is damaged.
            FormatError: it was written by a newer modelport.
        """
        found = _checked(data, where)
        if found.get("version", 0) > VERSION:
            raise FormatError(
                f"{where} has format version {found['version']}, this modelport reads up to {VERSION}: "
                "pip install --upgrade modelport."
            )
        try:
            return cls(
                backend=str(found["backend"]),
                signature=Signature.from_json(found["signature"]),
                sizes={str(name): int(size) for name, size in found["sizes"].items()},
                files={_path(name): FileEntry(e["sha256"], int(e["size"])) for name, e in found["files"].items()},
                unused={name: (e["dtype"], tuple(map(int, e["shape"]))) for name, e in found["unused"].items()},
                versions=dict(found["versions"]),
                history=tuple(dict(event) for event in found["history"]),
                reports=dict(found["reports"]),
                version=int(found["version"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"{where} is not a bundle's manifest ({error!r}): save the model again.") from error

    def with_files(self, files: Mapping[str, FileEntry], unused: Mapping[str, tuple[str, tuple[int, ...]]]) -> Manifest:
        """This manifest with the digests of the files that were written."""
        return replace(self, files=dict(files), unused=dict(unused))


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the installed libraries that matter for a model."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _checked(data: bytes, where: str) -> dict[str, Any]:
    head = _HEAD.match(data)
    blank = data.replace(head[1], _BLANK, 1) if head else b""
    if head is None or hashlib.sha256(blank).hexdigest().encode() != head[1]:
        raise IntegrityError(
            f"{where} is damaged: its digest does not fit its content. Get the bundle again from its source, or save "
            "the model again."
        )
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is not JSON ({error}): save the model again.") from error
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise IntegrityError(f"{where} is not a bundle's manifest: save the model again.")
    return found


def _path(name: str) -> str:
    """A file's path inside the bundle, which must stay there."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or name != "/".join(parts):
        raise IntegrityError(
            f"the manifest lists {name!r}, which is no path inside the bundle. Do not use this bundle."
        )
    return name


def _plain(data: Any) -> Any:
    """JSON data with the numbers that JSON lacks written out (`"inf"`, `"nan"`), and tuples as lists."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [_plain(value) for value in data]
    if isinstance(data, float):
        return float(data) if math.isfinite(data) else str(float(data))
    if data is None or isinstance(data, (str, bool, int)):
        return data
    return data.item() if hasattr(data, "item") and getattr(data, "ndim", 1) == 0 else str(data)
