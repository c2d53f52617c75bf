"""What belongs to a ModelProto and cannot be kept in it: its session, its mapped weights, its device.

A ModelProto takes no attributes and no weak references, so this table holds it; an entry goes when nothing else does.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from modelport.graph.external import MappedFile


@dataclass(eq=False)
class Held:
    """What belongs to one native model.

    Attributes:
        native: the model.
        files: the mapped files that its external data lies in, by path.
        device: where it runs.
        program: for an `onnx_ir.Model`, the ModelProto made from it.
        session: the open session.
        loan: while the model runs on borrowed weights, the session that does and those weights as it is fed them.
    """

    native: Any
    files: dict[str, MappedFile] = field(default_factory=dict)
    device: str = "cpu"
    program: Any = None
    session: Any = None
    loan: tuple[Any, dict[str, Any]] | None = None


LOCK = threading.RLock()
_HELD: dict[int, Held] = {}


def held(native: Any) -> Held:
    """The entry of a native model, made on first use."""
    with LOCK:
        for key in [key for key, entry in _HELD.items() if entry.native is not native and _is_abandoned(entry)]:
            del _HELD[key]
        entry = _HELD.get(id(native))
        if entry is None:
            entry = _HELD[id(native)] = Held(native)
        return entry


def _references(entry: Held) -> int:
    return sys.getrefcount(entry.native)


# How many references CPython counts for an object that only an entry holds.
_OWN = _references(Held(object()))


def _is_abandoned(entry: Held) -> bool:
    return _references(entry) <= _OWN
