"""Files that are replaced at once or not at all.

What is written goes to a temporary directory beside its place, is made durable, and then takes its place:

- a file takes the place of a file by `rename`, which is atomic everywhere;
- a directory takes the place of another one by exchanging their names (`renameat2` with RENAME_EXCHANGE on Linux,
  `renamex_np` with RENAME_SWAP on macOS), which is atomic;
- where a file system cannot exchange, the old one is renamed into the temporary directory and the new one into its
  place; if the process dies in between, `recover` finds the old one there and puts it back.

The writer holds a lock on its temporary directory while it lives, so that a leftover of one that died can be told apart
from the work of one that is still writing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelport.core.errors import FormatError, ModelPortError
from modelport.graph.external import is_companion

_SUFFIX = ".partial"
_OLD = "old."
_ATTEMPTS = 100


class MissingFileError(FormatError, FileNotFoundError):
    """There is no file or directory at a path."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file or a directory to; when the block ends, it is durable and in the place of `path`, at once.

    Where the block raises, `path` stays as it was. The path given has the same name as `path`, so the same suffix. A
    file of weights beside it (see `graph.external.companion_name`) comes along: it has a name of its own for each
    content, so it is in place before the program that refers to it, and that of the old program goes after it.

    Raises:
        MissingFileError: the directory that shall hold `path` does not exist.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise MissingFileError(f"the directory {path.parent} does not exist: create it, or save elsewhere.")
    sweep(path)
    with _workspace(path) as work:
        new = work / path.name
        yield new
        companions = [entry.name for entry in work.iterdir() if is_companion(entry.name, path.name)]
        sync(work)
        with _alone_in(path.parent):
            for name in companions:
                os.replace(work / name, path.parent / name)
            if companions:
                sync_directory(path.parent)
            _take_place(new, path, work)
            sync_directory(path.parent)
            _remove_companions(path, companions)


def _remove_companions(path: Path, kept: list[str]) -> None:
    for entry in path.parent.iterdir():
        if is_companion(entry.name, path.name) and entry.name not in kept:
            entry.unlink(missing_ok=True)


def recover(path: Path) -> bool:
    """Put back what a save that died had moved aside; whether there is something at `path` now.

    Needed only where the file system cannot exchange two names. Waits for a save that is at that point right now.
    """
    path = Path(os.path.realpath(path))
    for _ in range(_ATTEMPTS):
        if os.path.lexists(path):
            return True
        waiting = False
        for work in _leftovers(path):
            with _locked(work) as free:
                waiting |= not free and bool(_aside(work))
                if free and not os.path.lexists(path):
                    _put_back(path, work)
        if not waiting:
            return os.path.lexists(path)
        time.sleep(0.01)
    return os.path.lexists(path)


def sweep(path: Path) -> None:
    """Remove what saves to `path` that died have left behind, after putting back what they had moved aside."""
    recover(path)
    for work in _leftovers(path):
        with _locked(work) as free:
            if free:
                shutil.rmtree(work, ignore_errors=True)


def sync(path: Path) -> None:
    """Make a file, or a directory with all that is in it, durable."""
    if path.is_symlink():
        return
    if not path.is_dir():
        _sync(path, os.O_RDONLY)
        return
    for child in sorted(path.iterdir()):
        sync(child)
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """A locked directory beside `path`, removed in the end."""
    for _ in range(_ATTEMPTS):
        work = path.parent / f".{path.name}.{secrets.token_hex(6)}{_SUFFIX}"
        os.mkdir(work)
        # Another save may take the directory for a leftover before it is locked: then it is gone, or locked.
        with _locked(work) as mine:
            if mine is False:
                continue
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return
    raise ModelPortError(f"no temporary directory can be kept in {path.parent}: other saves remove it each time.")


@contextmanager
def _locked(work: Path) -> Iterator[bool | None]:
    """Whether the directory is there and this process holds its lock, for the block; `None` where locks do not work."""
    try:
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        locked = _lock(descriptor)
        yield locked if _still_there(descriptor, work) else False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks: leftovers stay there, since nobody can tell whose they are
        return None
    return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other save changes names in a folder; where locks do not work, do not wait."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _still_there(descriptor: int, work: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(work))
    except FileNotFoundError:
        return False


def _leftovers(path: Path) -> list[Path]:
    start, name = f".{path.name}.", slice(len(path.name) + 2, -len(_SUFFIX))
    with suppress(FileNotFoundError):
        return [
            entry
            for entry in path.parent.iterdir()
            if entry.name.startswith(start) and entry.name.endswith(_SUFFIX) and len(entry.name[name]) == 12
        ]
    return []


def _aside(work: Path) -> list[Path]:
    """What a save has moved out of its place, the latest last."""
    with suppress(FileNotFoundError):
        return sorted(entry for entry in work.iterdir() if entry.name.startswith(_OLD))
    return []


def _put_back(path: Path, work: Path) -> None:
    if aside := _aside(work):
        os.rename(aside[-1], path)
        sync_directory(path.parent)


def _take_place(new: Path, path: Path, work: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            if _is_directory(new) != _is_directory(path) or (_is_directory(new) and os.path.lexists(path)):
                _swap(new, path, work / f"{_OLD}{attempt:03}")
            else:
                os.replace(new, path)
            return
        except OSError as error:
            # Another save got there first: what is at `path` is of another kind now, or gone, or new.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                raise
    raise ModelPortError(f"{path} could not be replaced: other saves replace it each time. Save to another path.")


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _swap(new: Path, path: Path, aside: Path) -> None:
    if not os.path.lexists(path):
        os.rename(new, path)
    elif not _exchange(new, path):
        os.rename(path, aside)
        try:
            os.rename(new, path)
        except BaseException:
            if not os.path.lexists(path):
                os.rename(aside, path)
            raise


def _exchange(first: Path, second: Path) -> bool:
    """Exchange what two names stand for, atomically; `False` where the system or the file system cannot."""
    name, flag = ("renamex_np", 2) if sys.platform == "darwin" else ("renameat2", 2)
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        result = function(*names, ctypes.c_uint(flag))
    else:
        here = -100  # AT_FDCWD
        result = function(here, names[0], here, names[1], ctypes.c_uint(flag))
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))
