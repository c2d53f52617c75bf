"""Random graphs compute on every backend what ONNX's reference evaluator says."""

from __future__ import annotations

import pytest

from tests.properties.agreement import campaign

SEEDS = range(4)
EACH = 50
"""Together 200 graphs per backend; `make fuzz` runs as many as one likes."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("backend", ["torch", "keras", "onnx"])
def test_random_graphs_agree_with_the_reference(backend: str, seed: int) -> None:
    findings = campaign(backend, seed, EACH, longest=8)
    assert findings.examples == EACH
    assert not findings.failures, "\n\n".join(findings.failures)
    assert findings.refused <= EACH // 10


def test_most_operators_of_the_standard_are_drawn() -> None:
    drawn = campaign(None, 0, 300).operators
    assert len(drawn) >= 150
    assert {"If", "Loop", "Scan"} <= set(drawn)
