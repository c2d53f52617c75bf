"""Models at URLs (`s3://bucket/net.mport`, `memory://net.onnx`): fetched whole, written whole."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelport.bundle.files import MissingFileError
from modelport.bundle.manifest import NAME
from modelport.core.errors import FormatError, MissingBackendError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL."""
    return isinstance(path, str) and _URL.match(path) is not None


@contextmanager
def fetched(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A local path to read from: the path itself, or a copy of what is at the URL, removed when the block ends.

    Raises:
        MissingBackendError: fsspec, or what it needs for this kind of URL, is not installed.
        MissingFileError: there is nothing at the URL.
    """
    if not is_url(path):
        yield Path(path)
        return
    system, place = _system(str(path))
    if not system.exists(place):
        raise MissingFileError(f"there is nothing at {path}: check the URL.")
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        local = Path(folder, _name(place))
        if system.isdir(place):
            _fetch_directory(system, place, local)
        else:
            system.get_file(place, str(local))
        yield local


@contextmanager
def stored(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A local path to write to, which is the path itself, or is uploaded to the URL when the block ends.

    A bundle's manifest goes last: what is read while the others are on their way is refused, and never half new.

    Raises:
        MissingBackendError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    if not is_url(path):
        yield Path(path)
        return
    system, place = _system(str(path))
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        local = Path(folder, _name(place))
        yield local
        if local.is_dir():
            _store_directory(system, local, place)
        else:
            for file in sorted(local.parent.iterdir(), key=lambda entry: entry == local):
                system.put_file(str(file), f"{place.rpartition('/')[0]}/{file.name}" if file != local else place)


def _system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise MissingBackendError(
            f'{url} is a URL, which needs fsspec, which is not installed: pip install "modelport[cloud]"'
        ) from error
    try:
        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingBackendError(f"{url} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise FormatError(f"{url} is a URL of a kind that fsspec does not know: {error}.") from error
    return system, str(place).rstrip("/")


def _name(place: str) -> str:
    """The last part of a remote path, which decides about the format."""
    name = place.rpartition("/")[2]
    if not name or name in (".", ".."):
        raise FormatError(f"{place!r} names no file: give the URL of a file or a bundle.")
    return name


def _fetch_directory(system: Any, place: str, local: Path) -> None:
    for remote in system.find(place):
        inside = str(remote)[len(place) :].lstrip("/")
        target = Path(os.path.normpath(local / inside))
        if not target.is_relative_to(local):
            raise FormatError(f"{place} lists {remote!r}, which is not inside of it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(remote, str(target))


def _store_directory(system: Any, local: Path, place: str) -> None:
    files = sorted((file for file in local.rglob("*") if file.is_file()), key=lambda file: (file.name == NAME, file))
    written = set()
    for file in files:
        remote = f"{place}/{file.relative_to(local).as_posix()}"
        system.makedirs(remote.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), remote)
        written.add(remote.lstrip("/"))
    for remote in system.find(place):
        if str(remote).lstrip("/") not in written:
            system.rm_file(remote)
