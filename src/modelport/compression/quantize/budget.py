"""Quantization that costs no more of a score than is allowed: the most sensitive layers stay in float."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from modelport.compression.measure import agreement
from modelport.compression.outcome import Outcome
from modelport.compression.quantize.run import quantize
from modelport.core.errors import StepError
from modelport.core.report import Note
from modelport.core.signature import Arrays, Signature
from modelport.core.steps import Quantize


@dataclass(frozen=True)
class Judge:
    """What a quantized graph is measured by.

    Attributes:
        score: of a graph, larger where it is better.
        outputs: of a graph on the example, by name.
        floor: the least score that is allowed.
    """

    score: Callable[[ir.Model], float]
    outputs: Callable[[ir.Model], Arrays]
    floor: float

    def accepts(self, graph: ir.Model) -> bool:
        """Whether a graph scores enough; a score that is no number is not enough."""
        return self.score(graph) >= self.floor


def quantize_within(graph: ir.Model, step: Quantize, signature: Signature, judge: Judge) -> Outcome:
    """The graph in fewer bits, with as few layers in float as the score asks for.

    Each layer is quantized alone, and the signal-to-noise ratio of the outputs is its sensitivity. Then the fewest
    layers, the most sensitive first, are left in float with which the score is met: by bisection, so the score is taken
    about log2(layers) times. Activations are observed once. With every layer in float the graph is what came in.

    Args:
        graph: in normal form; it is left as it was.
        step: what to do.
        signature: of the graph.
        judge: measures.

    Raises:
        DataError: the calibration data do not fit, are empty, or hold NaN.
        StepError: nothing in the graph can be quantized, or `exclude` names nothing in it.
    """
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        search = _Search(graph, step, signature, judge, Path(folder) / "ranges.json")
        whole = search.without(())
        if judge.accepts(whole.graph):
            return whole
        ranked = search.sensitivities(whole.layers)
        most = len(ranked)
        if most > 1 and (found := search.fewest([name for name, _ in ranked])) is not None:
            count, outcome = found
            return replace(outcome, alone={**outcome.alone, **dict(_told(ranked[:count]))})
    note = f"no layer can be quantized by {step} within the budget: the model stays as it was before this step."
    if not judge.accepts(graph):
        note = f"the budget is not met before {step} already, so this step leaves the model as it was."
    alone = {**whole.alone, **dict(_told(ranked))}
    return Outcome(graph.clone(), alone, notes=(Note("changed", "the whole model", note),))


def _told(ranked: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    return [
        (name, f"it stays in float for the budget: quantized alone, it leaves the outputs {snr:.1f} dB")
        for name, snr in ranked
    ]


class _Search:
    """Quantizations of one graph that differ in what is left out."""

    def __init__(self, graph: ir.Model, step: Quantize, signature: Signature, judge: Judge, ranges: Path) -> None:
        self._graph, self._step, self._signature = graph, step, signature
        self._judge, self._ranges = judge, ranges

    def without(self, names: Sequence[str], step: Quantize | None = None) -> Outcome:
        """The graph with all layers but some quantized."""
        step = step or self._step
        step = replace(step, exclude=(*step.exclude, *names))
        return quantize(self._graph, step, self._signature, ranges=self._ranges)

    def sensitivities(self, layers: Sequence[str]) -> list[tuple[str, float]]:
        """The SNR in dB of the outputs with one layer quantized alone, by its name, the least first."""
        # How much a layer is worth shows without the search for the best rounding.
        step = replace(self._step, algorithm="rtn", calibration=None) if self._step.by_blocks else self._step
        before = self._judge.outputs(self._graph)
        found = []
        for layer in layers:
            others = [each for each in layers if each != layer]
            try:
                after = self._judge.outputs(self.without(others, step).graph)
                ratio = min((row.snr_db for row in agreement(before, after)), default=math.inf)
            except StepError:  # alone, it is not quantized at all
                ratio = math.inf
            found.append((layer, ratio))
        return sorted(found, key=lambda row: row[1])

    def fewest(self, ranked: Sequence[str]) -> tuple[int, Outcome] | None:
        """How many of the most sensitive layers have to be left out, and what that gives; `None` where all must."""
        least, most = 1, len(ranked)
        best: Outcome | None = None
        while least < most:
            middle = (least + most) // 2
            outcome = self.without(ranked[:middle])
            if self._judge.accepts(outcome.graph):
                most, best = middle, outcome
            else:
                least = middle + 1
        return None if best is None else (most, best)
