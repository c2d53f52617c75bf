"""Every format that a model is saved in: modelport's own, and those of the backends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelport.core import registry
from modelport.core.backend import FileFormat
from modelport.core.errors import FormatError, IntegrityError, ModelPortError
from modelport.core.signature import Arrays, Signature

ANY = "any"
"""In the place of a backend's name where a format is not one framework's."""


@dataclass(frozen=True)
class Identified:
    """What a file is.

    Attributes:
        format: its format.
        backend: the backend that reads and writes it; `"any"` where it is not one framework's.
    """

    format: FileFormat
    backend: str

    @property
    def name(self) -> str:
        return self.format.name

    @property
    def weights_only(self) -> bool:
        """Whether it holds weights and no program."""
        return self.format.read_weights is not None and self.format.open is None

    @property
    def read_weights(self) -> Any:
        """What reads its weights, `None` where it holds a program."""
        return self.format.read_weights

    def unsafe(self, path: Path) -> str:
        """Why opening the file could run code from it; empty where it cannot."""
        return self.format.unsafe(path)

    def versions(self, path: Path) -> dict[str, str]:
        """The versions of the libraries that wrote it, where the file tells."""
        if self.format is not BUNDLE:
            return {}
        from modelport.bundle.store import read_manifest

        return dict(read_manifest(path).versions)


def _is_bundle(path: Path) -> bool:
    from modelport.bundle.store import is_bundle

    return is_bundle(path)


def _is_safetensors(path: Path) -> bool:
    from modelport.bundle.weights import looks_like_weights

    return looks_like_weights(path)


def _read_safetensors(path: Path) -> Arrays:
    from modelport.bundle.weights import read_arrays

    return read_arrays(path)


def _is_pickle(path: Path) -> bool:
    from modelport.trust.pickles import is_pickle

    return is_pickle(path)


def _why_unsafe(path: Path) -> str:
    from modelport.trust.pickles import why_unsafe

    return why_unsafe(path)


def _write_joblib(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    import joblib

    joblib.dump(native, path)


BUNDLE = FileFormat("bundle", (".mport",), _is_bundle)
SAFETENSORS = FileFormat("safetensors", (".safetensors",), _is_safetensors, read_weights=_read_safetensors)
JOBLIB = FileFormat(
    "joblib", (".joblib", ".pkl", ".pickle"), _is_pickle, write=_write_joblib, unsafe=_why_unsafe
)  # fmt: skip


@cache
def formats() -> tuple[Identified, ...]:
    """Every format, modelport's own first."""
    own = (Identified(format, ANY) for format in (BUNDLE, SAFETENSORS, JOBLIB))
    return (*own, *(Identified(format, b.name) for b in registry.backends() for format in b.formats))


def identify(path: Path, format: str | None = None) -> Identified:
    """What a file or a directory is: by `format`, else by its suffix and its bytes.

    Raises:
        FormatError: no format has that name or suffix.
        IntegrityError: it has the suffix of a format and is not one.
    """
    candidates = list(_candidates(path, format))
    if not candidates and path.is_dir():
        candidates = list(formats())
    found = [candidate for candidate in candidates if _detects(candidate, path)]
    if found:
        return found[0]
    if not candidates or path.is_dir():
        raise _unknown(path)
    if format is not None:
        return candidates[0]
    names = " or ".join(sorted({candidate.name for candidate in candidates}))
    raise IntegrityError(
        f"{path} is not a file of the format {names}, or is truncated or damaged: get it again from its source, or say "
        "what it is with format=."
    )


def for_writing(path: Path, format: str | None, prefer: str) -> Identified:
    """The format that a path shall be written in.

    Args:
        path: where it goes; its suffix decides.
        format: the format's name, before the suffix.
        prefer: the backend whose format it is where several have it.

    Raises:
        FormatError: no format has that name or suffix, or none that has can be written.
    """
    candidates = list(_candidates(path, format))
    if not candidates:
        raise _unknown(path)
    writable = [c for c in candidates if c.format in (BUNDLE, SAFETENSORS) or c.format.write is not None]
    if not writable:
        raise FormatError(
            f"{candidates[0].name!r} can be read and not written: save as .mport, .onnx or another format."
        )
    return next((c for c in writable if c.backend == prefer), writable[0])


def target_of(path: Any) -> str | None:
    """The backend whose format a path has by its suffix; `None` where it is not one framework's."""
    candidates = [c for c in _candidates(Path(str(path)), None) if c.backend != ANY]
    return candidates[0].backend if candidates else None


def _candidates(path: Path, format: str | None) -> Iterator[Identified]:
    if format is not None:
        named = [candidate for candidate in formats() if candidate.name == format]
        if not named:
            known = ", ".join(dict.fromkeys(repr(candidate.name) for candidate in formats()))
            raise FormatError(f"no format is called {format!r}: there are {known}.")
        yield from named
        return
    name = path.name.lower()
    matching = [(suffix, c) for c in formats() for suffix in c.format.suffixes if name.endswith(suffix)]
    longest = max((len(suffix) for suffix, _ in matching), default=0)
    yield from (candidate for suffix, candidate in matching if len(suffix) == longest)


def _detects(candidate: Identified, path: Path) -> bool:
    try:
        return candidate.format.detect(path)
    except (ModelPortError, ImportError):
        raise
    except Exception as error:  # whatever a parser stumbles on in a file that nobody has looked at yet
        raise IntegrityError(f"{path} cannot be read ({error!r}): get it again from its source.") from error


def _unknown(path: Path) -> FormatError:
    known = ", ".join(sorted({suffix for candidate in formats() for suffix in candidate.format.suffixes}))
    names = ", ".join(dict.fromkeys(repr(candidate.name) for candidate in formats()))
    suffix = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
    return FormatError(
        f"{path} has {suffix} and no known content: the known suffixes are {known}. Say what it is with "
        f"format= ({names})."
    )
