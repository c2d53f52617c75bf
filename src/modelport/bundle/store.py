"""A bundle on disk: sealed by its manifest, and read only where every byte is what the manifest says."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir

from modelport.bundle.files import MissingFileError, recover
from modelport.bundle.manifest import NAME, FileEntry, Manifest
from modelport.bundle.program import Unused, read_program
from modelport.core.errors import IntegrityError
from modelport.graph.external import MappedFile, map_descriptor

SUFFIX = ".mport"

_MANIFEST_LIMIT = 1 << 26
_ATTEMPTS = 5
_AGAIN = "Get the bundle again from its source, or save the model again."


class Bundle(NamedTuple):
    """A bundle that was read: its graph, whose weights are mapped, and its manifest."""

    graph: ir.Model
    manifest: Manifest


def is_bundle(path: Path) -> bool:
    """Whether a directory is a bundle, damaged or not.

    Where two names cannot be exchanged, a save that goes on right now leaves a moment without anything at the path.
    """
    if path.suffix.lower() == SUFFIX:
        return path.is_dir() or not path.exists()
    return (path / NAME).is_file()


def seal(folder: Path, manifest: Manifest, unused: Unused) -> None:
    """Write the manifest of a folder whose other files are all there, with their digests."""
    entries: dict[str, FileEntry] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries[path.relative_to(folder).as_posix()] = FileEntry(digest, path.stat().st_size)
    (folder / NAME).write_bytes(manifest.with_files(entries, unused).to_bytes())


def read_bundle(path: Path) -> Bundle:
    """A bundle, every file of it checked against the manifest on the descriptor that is then read.

    Raises:
        MissingFileError: there is nothing at the path.
        IntegrityError: a file is missing, damaged, truncated or not listed; the message names it.
        FormatError: the bundle was written by a newer modelport.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        with _directory(path) as descriptor:
            try:
                return _read(path, descriptor)
            except IntegrityError:
                # A save that replaces the bundle right now removes the old files under its reader: read the new one.
                if attempt == _ATTEMPTS or _is_at(path, descriptor):
                    raise
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    """The directory's descriptor, which stays with this bundle when another one takes its place."""
    descriptor = _open_directory(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_directory(path: Path) -> int:
    for _ in range(_ATTEMPTS):
        recover(path)
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except NotADirectoryError as error:
            raise IntegrityError(f"{path} is a file, and a bundle is a directory. {_AGAIN}") from error
    raise MissingFileError(f"there is no file or directory {path}: check the path.")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read(path: Path, directory: int) -> Bundle:
    manifest = _read_manifest(path, directory)
    _check_listing(path, directory, manifest.files)
    # Mapped by name: what was hashed is what is read.
    files = {name: _checked(path, directory, name, entry) for name, entry in manifest.files.items()}

    def open_file(name: str) -> MappedFile:
        if name not in files:
            raise IntegrityError(f"{path / NAME} does not list {name}, which a bundle must have. {_AGAIN}")
        return files[name]

    return Bundle(read_program(open_file, manifest.unused), manifest)


def _read_manifest(path: Path, directory: int) -> Manifest:
    descriptor = _open(path, directory, NAME)
    try:
        if os.fstat(descriptor).st_size > _MANIFEST_LIMIT:
            raise IntegrityError(f"{path / NAME} is larger than {_MANIFEST_LIMIT} bytes. {_AGAIN}")
        return Manifest.from_bytes(map_descriptor(descriptor, path / NAME).data.tobytes(), str(path / NAME))
    finally:
        os.close(descriptor)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a bundle, without a look at its other files.

    Raises:
        MissingFileError: there is nothing at the path.
        IntegrityError: the manifest is missing or damaged.
        FormatError: the bundle was written by a newer modelport.
    """
    with _directory(path) as descriptor:
        return _read_manifest(path, descriptor)


def _checked(path: Path, directory: int, name: str, entry: FileEntry) -> MappedFile:
    descriptor = _open(path, directory, name)
    try:
        file = map_descriptor(descriptor, path / name)
    finally:
        os.close(descriptor)
    if len(file.data) != entry.size:
        raise IntegrityError(f"{path / name} has {len(file.data)} bytes, the manifest says {entry.size}. {_AGAIN}")
    if hashlib.sha256(file.data.data).hexdigest() != entry.sha256:
        raise IntegrityError(f"{path / name} is damaged: its SHA-256 is not the manifest's. {_AGAIN}")
    return file


def _open(path: Path, directory: int, name: str) -> int:
    """A descriptor of a file inside the bundle; no component of its path may be a link."""
    *folders, last = name.split("/")
    opened: list[int] = []
    try:
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(folder, flags, dir_fd=opened[-1] if opened else directory))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(last, flags, dir_fd=opened[-1] if opened else directory)
    except FileNotFoundError as error:
        raise IntegrityError(f"{path / name} is missing. {_AGAIN}") from error
    except OSError as error:
        raise IntegrityError(f"{path / name} cannot be read as a file ({error.strerror}). {_AGAIN}") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _check_listing(path: Path, directory: int, files: Mapping[str, FileEntry]) -> None:
    for root, folders, names, descriptor in os.fwalk(".", dir_fd=directory):
        for name in (*names, *(f for f in folders if stat.S_ISLNK(os.lstat(f, dir_fd=descriptor).st_mode))):
            inside = os.path.normpath(os.path.join(root, name))
            if inside != NAME and inside not in files:
                raise IntegrityError(f"{path / inside} is not in the manifest: remove it, or do not use this bundle.")
