"""The contract of a backend, as shipped to plug-in authors, on the built-in backends."""

from __future__ import annotations

from modelport.testing.test_backend_contract import *  # noqa: F403
