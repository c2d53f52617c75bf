"""The contract of a trainer, as shipped to plug-in authors, on the built-in backends."""

from __future__ import annotations

from modelport.testing.test_trainer_contract import *  # noqa: F403
