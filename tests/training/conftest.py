"""What the tests of training share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast the results are is not looked at here."""
    monkeypatch.setattr("modelport.compression.measure._SECONDS", 0)
