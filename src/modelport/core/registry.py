"""Backends by name, by the object they own and by the file they read; found by entry point, loaded on first use."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from modelport.core.backend import Backend
from modelport.core.errors import MissingBackendError, ModelPortError, UnsupportedModelError

GROUP = "modelport.backends"


@cache
def _entries() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in found and found[entry.name].value != entry.value:
            raise ModelPortError(
                f"two distributions register the backend {entry.name!r}: {found[entry.name].value} and {entry.value}. "
                "Uninstall one of them."
            )
        found[entry.name] = entry
    return found


@cache
def _load(name: str) -> Backend:
    return _entries()[name].load()


@cache
def backends() -> tuple[Backend, ...]:
    """Every registered backend, installed framework or not, sorted by name."""
    return tuple(_load(name) for name in sorted(_entries()))


def missing(backend: Backend) -> tuple[str, ...]:
    """The modules that a backend needs and that are not installed; imports nothing."""
    return tuple(module for module in backend.modules if not _is_installed(module))


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # an import hook that forbids the module says so by raising
        return False


def backend(name: str) -> Backend:
    """The backend with a name or alias, its framework installed.

    Raises:
        MissingBackendError: no backend has that name, or its framework is not installed.
    """
    for candidate in backends():
        if name == candidate.name or name in candidate.aliases:
            break
    else:
        known = ", ".join(f"{b.name!r}" for b in backends())
        raise MissingBackendError(f"no backend is called {name!r}: there are {known}. A plug-in registers in the "
                                  f"entry-point group {GROUP!r}.")  # fmt: skip
    if absent := missing(candidate):
        raise MissingBackendError(
            f"the backend {candidate.name!r} needs {', '.join(absent)}, which is not installed: "
            f'pip install "modelport[{candidate.name}]"'
        )
    return candidate


def owner(native: Any) -> Backend:
    """The backend whose model an object is.

    Raises:
        UnsupportedModelError: no backend owns it.
    """
    for candidate in backends():
        if candidate.owns(native):
            return candidate
    kinds = ", ".join(b.name for b in backends())
    raise UnsupportedModelError(
        f"no backend owns an object of type {type(native).__module__}.{type(native).__qualname__}. Pass a model of "
        f"{kinds}, a modelport.Model, or a path to a file of theirs."
    )


def preferred() -> Backend:
    """The backend that a bundle opens on when nothing else is said: the first installed of onnx, torch and keras."""
    order = {"onnx": 0, "torch": 1, "keras": 2}
    installed = [b for b in backends() if not missing(b)]
    if not installed:
        raise MissingBackendError('no framework is installed: pip install "modelport"')
    return min(installed, key=lambda b: order.get(b.name, len(order)))
