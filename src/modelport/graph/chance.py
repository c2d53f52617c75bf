"""Operators that draw random numbers."""

from __future__ import annotations

RANDOM = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip
"""Those of the standard: no two nodes are one, and none is its value."""
