"""What every test of a large model leaves behind is given back before the next one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Drop what the frameworks keep of the models of a test."""
    known = len(sys.modules)
    yield
    if (dynamo := sys.modules.get("torch._dynamo")) is not None:
        dynamo.reset()
    if (keras := sys.modules.get("keras")) is not None:
        keras.backend.clear_session()
    gc.collect()
    if len(sys.modules) > known:
        # The modules that a test was the first to load stay: a collection need not walk them again.
        gc.freeze()
