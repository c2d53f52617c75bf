"""The cases that each backend is known to pass, and the coverage pages made from them.

`floors/<backend>.txt` has one line per case that passes, `name native` or `name fallback`, sorted. `docs/coverage/` has
one page per backend, made from that file and from the backend's own table of operators. Both are written by
`pytest tests/conformance --record`; `python -m tests.conformance.floors` writes the pages again without a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import onnx

from modelport.core.backend import Support
from modelport.testing.conformance import PASSED, Outcome, find_backend
from modelport.testing.onnx_cases import Case, all_cases

FLOORS = Path(__file__).parent / "floors"
PAGES = Path(__file__).parents[2] / "docs" / "coverage"

DOMAINS = {
    "": "ONNX",
    "ai.onnx.ml": "ONNX-ML",
    "ai.onnx.preview": "preview",
    "ai.onnx.preview.training": "training (preview)",
}

_RANK = {"native": 2, "fallback": 1}


def read_floor(backend: str) -> dict[str, str]:
    """How each case passes that is known to, by name; empty for a backend without a file."""
    path = FLOORS / f"{backend}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split() for line in lines)


def raised(floor: dict[str, str], outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The floor with what passes now; it never sinks, so what was lost stays in it and its test fails."""
    now = {outcome.case: outcome.verdict for outcome in outcomes if _RANK.get(outcome.verdict, 0)}
    return floor | {
        case: verdict for case, verdict in now.items() if _RANK[verdict] > _RANK.get(floor.get(case, ""), 0)
    }


def write_floor(backend: str, outcomes: Iterable[Outcome]) -> None:
    floor = raised(read_floor(backend), outcomes)
    FLOORS.mkdir(exist_ok=True)
    (FLOORS / f"{backend}.txt").write_text("".join(f"{case} {floor[case]}\n" for case in sorted(floor)))


def losses(floor: dict[str, str], outcomes: Iterable[Outcome]) -> list[str]:
    """The cases that were better once: passed and fail now, or native and a fallback now."""
    return [
        f"{outcome.case}: {floor[outcome.case]} before, now {outcome.verdict} {outcome.reason}"
        for outcome in outcomes
        if _RANK.get(outcome.verdict, 0) < _RANK.get(floor.get(outcome.case, ""), 0)
    ]


@cache
def _cases_by_operator() -> dict[tuple[str, str], tuple[str, ...]]:
    """The cases in whose model an operator occurs, by domain and operator."""
    found: dict[tuple[str, str], list[str]] = {}
    for case in all_cases():
        for key in sorted(set(_operators(case))):
            found.setdefault(key, []).append(case.name)
    return {key: tuple(names) for key, names in found.items()}


def _operators(case: Case) -> Iterator[tuple[str, str]]:
    model = case.model()
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while nodes:
        node = nodes.pop()
        yield node.domain.removeprefix("ai.onnx") if node.domain == "ai.onnx" else node.domain, node.op_type
        for attribute in node.attribute:
            nodes += attribute.g.node
            nodes += [inner for graph in attribute.graphs for inner in graph.node]


def _standard() -> dict[tuple[str, str], onnx.defs.OpSchema]:
    """The operators of the standard that are not deprecated, by domain and name."""
    schemas = onnx.defs.get_all_schemas()
    return {(s.domain, s.name): s for s in schemas if not s.deprecated and s.domain in DOMAINS}


def page(backend: str) -> str:
    """The coverage page of a backend, from its floor and its own table of operators."""
    floor, support = read_floor(backend), find_backend(backend).support
    verdicts = Counter(floor.values())
    total = len(all_cases())
    lines = [
        f"# What the {backend} backend covers",
        "",
        "Made by `pytest tests/conformance --record`; a test compares it with the run.",
        "",
        f"Of the {total} cases of the ONNX backend test data (onnx {onnx.__version__}) **{len(floor)} pass**: "
        + ", ".join(f"{verdicts[name]} {name}" for name in PASSED)
        + ".",
        "",
        "*native*: the framework's own layers and functions. *fallback*: by other means, and noted in the report. An "
        "operator counts a case if the case's model has it.",
    ]
    for domain, title in DOMAINS.items():
        lines += ["", f"## {title}", "", "| operator | support | cases passed |", "| --- | --- | --- |"]
        rows = sorted(name for where, name in _standard() if where == domain)
        lines += [_row(name, domain, support(name, domain), floor) for name in rows]
    return "\n".join(lines) + "\n"


def _row(name: str, domain: str, support: Support, floor: dict[str, str]) -> str:
    cases = _cases_by_operator().get((domain, name), ())
    passed = sum(case in floor for case in cases)
    return f"| {name} | {support} | {f'{passed} of {len(cases)}' if cases else 'no case'} |"


def write_page(backend: str) -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    (PAGES / f"{backend}.md").write_text(page(backend))


if __name__ == "__main__":
    for file in sorted(FLOORS.glob("*.txt")):
        write_page(file.stem)
