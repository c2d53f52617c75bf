"""The ONNX backend test data on every backend: what passed once passes still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import pytest

from modelport.testing.conformance import PASSED, Outcome, run_cases, run_shard
from modelport.testing.onnx_cases import all_cases
from modelport.testing.plugin import PROPERTY, SHARDS
from tests.conformance.floors import PAGES, losses, page, raised, read_floor

REFERENCE = "tests.conformance.reference:BACKEND"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_case_that_passed_passes_still(
    modelport_backend: str, shard: int, record_property: Callable[[str, object], None]
) -> None:
    found = run_shard(modelport_backend, shard, SHARDS)
    record_property(PROPERTY, (modelport_backend, [astuple(outcome) for outcome in found]))
    lost = losses(read_floor(modelport_backend), found)
    assert not lost, "\n".join(lost)


def test_the_coverage_page_says_what_passes(modelport_backend: str) -> None:
    assert (PAGES / f"{modelport_backend}.md").read_text() == page(modelport_backend)


def test_the_floor_names_cases_that_exist(modelport_backend: str) -> None:
    floor = read_floor(modelport_backend)
    assert len(floor) >= 900
    assert set(floor) <= {case.name for case in all_cases()}
    assert set(floor.values()) <= set(PASSED)


def test_all_cases_of_the_onnx_package_are_run() -> None:
    assert len(all_cases()) == 2024
    assert len({case.name for case in all_cases()}) == 2024


def test_cases_that_draw_random_numbers_are_known() -> None:
    random = {case.name for case in all_cases() if case.is_random}
    assert {"test_bernoulli", "test_bernoulli_expanded", "test_training_dropout_mask"} <= random
    assert "test_dropout_default_ratio" not in random
    assert len(random) < 30


def test_the_harness_reaches_what_the_reference_evaluator_can() -> None:
    found = run_shard(REFERENCE)
    assert [outcome.case for outcome in found] == [case.name for case in all_cases()]
    assert sum(outcome.passed for outcome in found) >= 1995


def test_a_crash_and_a_hang_cost_one_case_each() -> None:
    cases = ["test_abs", "test_acos", "test_acosh", "test_asin", "test_asinh", "test_atan"]
    found = run_cases("tests.conformance.misbehaving:BACKEND", cases, seconds=5)
    assert [(outcome.case, outcome.verdict) for outcome in found] == [
        ("test_abs", "broken"),
        ("test_acos", "broken"),
        ("test_acosh", "wrong"),
        ("test_asin", "refused"),
        ("test_asinh", "broken"),
        ("test_atan", "native"),
    ]
    assert found[0].reason == "took more than 5 s"
    assert found[1].reason == "its process ended with status 139"
    assert found[4].reason == "ValueError: some framework's own error"


def test_a_backend_that_does_not_load_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no backend is called 'nothing'"):
        run_cases("nothing", ["test_abs"])


def test_a_loss_is_a_case_that_was_better_before() -> None:
    floor = {"test_a": "native", "test_b": "native", "test_c": "fallback", "test_d": "native"}
    now = [
        Outcome("test_a", "native"),
        Outcome("test_b", "fallback"),
        Outcome("test_c", "native"),
        Outcome("test_d", "broken", "crash"),
        Outcome("test_e", "wrong"),
    ]
    assert [line.split(":")[0] for line in losses(floor, now)] == ["test_b", "test_d"]


def test_a_floor_never_sinks() -> None:
    floor = {"test_a": "native", "test_b": "fallback", "test_c": "native"}
    now = [
        Outcome("test_a", "fallback"),
        Outcome("test_b", "native"),
        Outcome("test_c", "wrong"),
        Outcome("test_d", "native"),
    ]
    assert raised(floor, now) == {"test_a": "native", "test_b": "native", "test_c": "native", "test_d": "native"}
