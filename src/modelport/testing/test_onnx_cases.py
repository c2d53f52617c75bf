"""A backend computes an ONNX case as the standard says, or refuses it by name; it is never wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import pytest

from modelport.testing.conformance import run_shard
from modelport.testing.onnx_cases import all_cases
from modelport.testing.plugin import PROPERTY, SHARDS


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_onnx_case_has_other_outputs(
    modelport_backend: str, shard: int, record_property: Callable[[str, object], None]
) -> None:
    found = run_shard(modelport_backend, shard, SHARDS)
    record_property(PROPERTY, (modelport_backend, [astuple(outcome) for outcome in found]))
    random = {case.name for case in all_cases() if case.is_random}
    wrong = [f"{o.case}: {o.reason}" for o in found if o.verdict == "wrong" and o.case not in random]
    assert not wrong, "\n".join(wrong)
