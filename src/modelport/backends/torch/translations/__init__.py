"""The ONNX form of torch operators that torch.onnx lacks, or takes apart so that more is computed than need be.

One room per kind of operator; each has a table `TRANSLATIONS`. A `keep_...` of a room gives a call of a traced program
an operator of ours while its arguments are still known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelport.backends.torch.translations import (
    arithmetic,
    bags,
    convolution,
    distances,
    indexing,
    linalg,
    ordering,
    pooling,
    quantization,
    running,
)

ROOMS = (arithmetic, bags, convolution, distances, indexing, linalg, ordering, pooling, quantization, running)

TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    target: form for room in ROOMS for target, form in room.TRANSLATIONS.items()
}
