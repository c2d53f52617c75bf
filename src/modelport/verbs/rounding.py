"""How far the outputs of two models that round may be apart, though neither is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modelport.core import registry
from modelport.core.report import Note, ParityReport
from modelport.core.signature import Arrays

if TYPE_CHECKING:
    from modelport.core.backend import Graph


@dataclass(frozen=True)
class Slack:
    """How far outputs may be off for no other reason than that two runtimes round.

    Attributes:
        steps: one step of every output in integers, by name.
        measured: for inputs of the graph, what floats that are rounded otherwise further up do to every output.
    """

    steps: Mapping[str, float]
    measured: Callable[[Arrays], Mapping[str, float]]


def rounding_slack(graph: Graph) -> Slack | None:
    """What rounding does to the outputs of a graph with QuantizeLinear; `None` for a graph without.

    A runtime that sums floats in another order than the next may round one that lies between two integers otherwise. So
    an output in integers may differ by one step of its scale. What such a float further up does, the graph itself says:
    it is run with everything that is rounded moved up and down by `graph.rounding.NOISE`, and beside that step, twice
    the difference is allowed, as some go up where others go down.
    """
    from modelport.graph.rounding import NOISE, nudged, output_steps, rounds
    from modelport.graph.signature import read_signature

    if not rounds(graph):
        return None
    runtime, signature, steps = registry.backend("onnx"), read_signature(graph), output_steps(graph)

    def measured(inputs: Arrays) -> dict[str, float]:
        natives = (runtime.build(nudged(graph, share)).native for share in (0.0, NOISE, -NOISE))
        expected, *others = (runtime.run(native, signature.bind(inputs), signature) for native in natives)
        floats = {name: array for name, array in expected.items() if getattr(array, "dtype", np.dtype("O")).kind == "f"}
        return {
            name: steps.get(name, 0.0) + 2 * max(_distance(array, other[name]) for other in others)
            for name, array in floats.items()
        }

    return Slack(steps, measured)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape:
        return 0.0
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max(initial=0.0))


def rounding_notes(measured: ParityReport, strict: float) -> tuple[Note, ...]:
    """A note for every output that is further off than a tolerance, and within what rounding explains."""
    allowed: dict[str, float] = {}
    for row in measured.rows:
        if row.ok and row.max_rel > strict:
            allowed[row.name] = max(row.tolerance, allowed.get(row.name, 0.0))
    told = (
        "differs by {:.1e} relative: it comes from floats that are rounded to integers, and two frameworks may round "
        "one near the middle between two integers otherwise. That explains up to {:.1e}; {:.0e} is allowed otherwise"
    )
    worst = {name: max(row.max_rel for row in measured.rows if row.name == name) for name in allowed}
    return tuple(Note("changed", name, told.format(worst[name], most, strict)) for name, most in allowed.items())
