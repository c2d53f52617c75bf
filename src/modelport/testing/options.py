"""The options of the suite."""

from __future__ import annotations

import pytest


def add_options(parser: pytest.Parser) -> None:
    """Add the options of the suite, once."""
    if not any(option.dest == "modelport_backends" for option in parser.getgroup("modelport").options):
        parser.getgroup("modelport").addoption(
            "--backend",
            action="append",
            dest="modelport_backends",
            metavar="NAME",
            help="the backend to test, by name or as package.module:OBJECT; every registered one if not given",
        )
