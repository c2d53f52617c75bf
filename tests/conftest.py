"""What every test of the repository may use."""

from __future__ import annotations

import pytest

from modelport.testing.options import add_options

pytest_plugins = ("modelport.testing.plugin",)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)
