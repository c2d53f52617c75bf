"""The pytest plugin of the suite: `--backend`, and the table of the ONNX cases after the run."""

from __future__ import annotations

from typing import Any

import pytest

from modelport.testing.conformance import Outcome, summary
from modelport.testing.options import add_options

FIXTURE = "modelport_backend"
"""Tests with this argument run once per chosen backend and get its name."""

PROPERTY = "modelport-conformance"
"""The user property under which a test reports `(backend, outcomes)`."""

SHARDS = 2
"""In how many tests the cases of one backend run, so that as many workers share them."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    # The plugin is loaded wherever modelport is installed; other projects may have a `--backend` of their own.
    if any(arg == "modelport.testing" or arg.startswith("modelport.testing.test_") for arg in args):
        add_options(parser)


def chosen(config: pytest.Config) -> list[str]:
    """The backends that this run is about."""
    from modelport.core.registry import backends

    given: list[str] | None = config.getoption("modelport_backends", default=None)
    return given or [backend.name for backend in backends()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if FIXTURE in metafunc.fixturenames:
        metafunc.parametrize(FIXTURE, chosen(metafunc.config))


def outcomes(reporter: Any) -> dict[str, list[Outcome]]:
    """What the tests of this run, on whichever worker, report of the ONNX cases, by backend."""
    found: dict[str, list[Outcome]] = {}
    for reports in reporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()) or ():
                if name == PROPERTY and report.when == "call":
                    backend, rows = value
                    found.setdefault(backend, []).extend(Outcome(*row) for row in rows)
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if found := outcomes(terminalreporter):
        terminalreporter.write_line("")
        terminalreporter.write_line(summary(found))
        _keep_reasons(terminalreporter, found)


def _keep_reasons(reporter: Any, found: dict[str, list[Outcome]]) -> None:
    """Leave why each case failed in pytest's cache."""
    cache = getattr(reporter.config, "cache", None)
    if cache is None:
        return
    for backend, rows in found.items():
        failed = {row.case: f"{row.verdict}: {row.reason}" for row in rows if not row.passed}
        cache.set(f"modelport/{backend.replace(':', '.')}", dict(sorted(failed.items())))
    reporter.write_line("why cases failed: v/modelport/ in the folder of pytest's cache")
