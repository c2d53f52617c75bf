"""`pytest tests/conformance --record` writes the floors and the coverage pages from the run."""

from __future__ import annotations

from typing import Any

import pytest

from modelport.testing.onnx_cases import all_cases
from modelport.testing.plugin import outcomes
from tests.conformance.floors import losses, read_floor, write_floor, write_page

pytest.register_assert_rewrite("modelport.testing.test_backend_contract", "modelport.testing.test_trainer_contract")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what passed to the floors and the coverage pages")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    record = terminalreporter.config.getoption("--record", default=False)
    for backend, found in sorted(outcomes(terminalreporter).items()):
        floor = read_floor(backend)
        gained = [outcome.case for outcome in found if outcome.passed and outcome.case not in floor]
        if record and len(found) == len(all_cases()):
            write_floor(backend, found)
            write_page(backend)
            terminalreporter.write_line(f"{backend}: recorded; {len(gained)} more, {len(losses(floor, found))} lost")
        elif gained:
            terminalreporter.write_line(f"{backend}: {len(gained)} more than recorded; --record keeps them")
