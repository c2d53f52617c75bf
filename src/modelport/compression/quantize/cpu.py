"""What this machine's CPU multiplies 8-bit integers with."""

from __future__ import annotations

import platform
from functools import cache

import numpy as np

_VNNI = frozenset({"AVX512_CLX", "AVX512_ICL", "AVX512_SPR"})
"""Groups of instructions, as NumPy names them, that multiply and add bytes without saturation."""


@cache
def instructions() -> tuple[str, ...]:
    """The vector instructions of this CPU that NumPy has found, the widest last."""
    told = np.show_config(mode="dicts")
    extensions = (told or {}).get("SIMD Extensions", {})
    return (*extensions.get("baseline", ()), *extensions.get("found", ()))


def reads_unsigned() -> bool:
    """Whether activations are fastest as uint8: x86 multiplies unsigned bytes by signed ones, ARM signed by signed."""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def has_vnni() -> bool:
    """Whether bytes are multiplied and added in one instruction that does not saturate."""
    return not _VNNI.isdisjoint(instructions())


def saturates() -> bool:
    """Whether sums of products of bytes may overflow 16 bits, so that weights have 7 bits."""
    return reads_unsigned() and not has_vnni()
