"""What a pickle would import, found without unpickling anything."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickletools
import re
import zlib
from pathlib import Path
from typing import Any

_LIMIT = 1 << 26
"""How many decompressed bytes are looked at: a small file may decompress to any size."""

_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING")


_IMPORT = re.compile(rb"\x8c(.)([A-Za-z_][\w.]{0,254})\x94?\x8c(.)([A-Za-z_][\w.]{0,254})\x94?\x93", re.DOTALL)
_OLD_IMPORT = re.compile(rb"c([A-Za-z_][\w.]{0,254})\n([A-Za-z_][\w.]{0,254})\n")

_COMPRESSED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open), (b"\x5d\x00\x00", lzma.open))


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle does, compressed or not."""
    if not path.is_file():
        return False
    head = _content(path, 2)
    return len(head) == 2 and head[0] == 0x80 and head[1] <= 5


def pickled_globals(path: Path) -> tuple[str, ...]:
    """The dotted names that unpickling a file would import, in order.

    Where the instructions stop being readable (joblib puts the bytes of arrays between them), the rest is searched for
    what an import looks like. So the answer names what was found, and is no proof that there is nothing else.
    """
    content = _content(path, _LIMIT)
    found, end = _read_imports(content)
    for first, module, second, name in _IMPORT.findall(content[end:]):
        if first[0] == len(module) and second[0] == len(name):
            found[f"{module.decode()}.{name.decode()}"] = None
    for module, name in _OLD_IMPORT.findall(content[end:]):
        found[f"{module.decode()}.{name.decode()}"] = None
    return tuple(found)


def _read_imports(content: bytes) -> tuple[dict[str, None], int]:
    """The imports in the instructions up to the first that cannot be read, and where that is."""
    found: dict[str, None] = {}
    strings: list[str] = []
    memo: dict[int, str] = {}
    end = 0
    try:
        for code, argument, position in pickletools.genops(io.BytesIO(content)):
            end = position or end
            if code.name in ("GLOBAL", "INST"):
                found[str(argument).replace(" ", ".", 1)] = None
            elif code.name == "STACK_GLOBAL":
                found[".".join(strings[-2:])] = None
            elif code.name in _STRINGS:
                strings.append(str(argument))
            elif code.name == "MEMOIZE":
                memo[len(memo)] = strings[-1] if strings else ""
            elif code.name in ("BINPUT", "LONG_BINPUT"):
                memo[int(argument or 0)] = strings[-1] if strings else ""
            elif code.name in ("BINGET", "LONG_BINGET"):
                strings.append(memo.get(int(argument or 0), ""))
    except (ValueError, KeyError, IndexError, UnicodeError, OverflowError, MemoryError):
        return found, end
    return found, end


def why_unsafe(path: Path) -> str:
    """Why a pickle is not safe to open, for the policy."""
    names = pickled_globals(path)
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return "it is a pickle" + (f", which imports {shown}" if names else "")


def _content(path: Path, limit: int) -> bytes:
    """The first bytes of a file, decompressed."""
    with path.open("rb") as file:
        head = file.read(8)
    try:
        for magic, opener in _COMPRESSED:
            if head.startswith(magic):
                with opener(path) as stream:
                    return _bytes(stream.read(limit))
        if len(head) > 1 and head[0] & 0x0F == 8 and int.from_bytes(head[:2]) % 31 == 0:
            with path.open("rb") as file:
                return zlib.decompressobj().decompress(file.read(max(limit, 1 << 16)), limit)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""
    with path.open("rb") as file:
        return file.read(limit)


def _bytes(data: Any) -> bytes:
    return bytes(data)
