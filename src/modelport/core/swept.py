"""What `sweep` found: several recipes for one model, side by side, and which of them are worth taking."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from modelport.core.compressed import NOTICED, CompressReport, Measured
from modelport.core.errors import StepError
from modelport.core.model import Model
from modelport.core.report import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AS_GIVEN = "as given"
"""How the model that the recipes start from is called in tables and pictures."""


@dataclass(frozen=True)
class SweepRow:
    """One recipe.

    Attributes:
        name: of the recipe.
        steps: as they print.
        model: the result; `None` where the recipe failed.
        problem: why it failed, with the type of the error; empty where it did not.
    """

    name: str
    steps: tuple[str, ...]
    model: Model | None = field(default=None, repr=False, compare=False)
    problem: str = ""

    @property
    def report(self) -> CompressReport:
        """What `compress` measured.

        Raises:
            StepError: the recipe failed.
        """
        if self.model is None:
            raise StepError(f"the recipe {self.name!r} has no result: {self.problem}")
        report: CompressReport = self.model.report
        return report

    @property
    def snr_db(self) -> float:
        """The least agreement of any output with the given model's, in dB; infinite where nothing changed."""
        return min((row.snr_db for row in self.report.agreement), default=math.inf)

    def to_json(self) -> dict[str, Any]:
        told = {"name": self.name, "steps": list(self.steps), "problem": self.problem}
        return told if self.model is None else {**told, "snr_db": self.snr_db, **self.report.to_json()}


@dataclass(frozen=True)
class SweepReport:
    """Several recipes for one model; prints as a table, and holds each result by the name of its recipe.

    Attributes:
        backend: of the model, before and after.
        rows: one per recipe that was run, in their order.
        unfinished: the recipes that were not run, or not to their end, because the sweep was interrupted.

    Example:
        >>> result = mp.sweep(net, {"int8": mp.Quantize(calibration=x), "half": mp.Prune(0.5)})    # doctest: +SKIP
        >>> result["int8"].save("small.mport")                                                     # doctest: +SKIP
    """

    backend: str
    rows: tuple[SweepRow, ...]
    unfinished: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Model:
        """The result of a recipe.

        Raises:
            StepError: the recipe failed; the message says why.
            KeyError: no recipe that was run has this name.
        """
        for row in self.rows:
            if row.name == name:
                assert row.report
                return row.model  # type: ignore[return-value]
        raise KeyError(f"{name!r}: the recipes that were run are {[row.name for row in self.rows]}")

    def __iter__(self) -> Iterator[str]:
        """The names of the recipes that have a result."""
        return (row.name for row in self.done)

    def __contains__(self, name: object) -> bool:
        return any(row.name == name for row in self.done)

    @property
    def done(self) -> tuple[SweepRow, ...]:
        """The rows that have a result."""
        return tuple(row for row in self.rows if row.model is not None)

    @property
    def before(self) -> Measured | None:
        """The model that was given; `None` where no recipe has a result."""
        return self.done[0].report.before if self.done else None

    @property
    def scored(self) -> bool:
        """Whether the results are compared by the score of `evaluate`, else by their agreement in dB."""
        return self.before is not None and self.before.score is not None

    def quality(self, row: SweepRow | None) -> float:
        """The score of a result, or its agreement in dB where there is no score; of the given model for `None`.

        A score that is NaN counts as less than any other.
        """
        measured = self.before if row is None else row.report.after
        if measured is not None and measured.score is not None:
            return -math.inf if math.isnan(measured.score) else measured.score
        return math.inf if row is None else row.snr_db

    @property
    def front(self) -> tuple[str, ...]:
        """The recipes on the Pareto front.

        These are the ones than which no other, and not the given model either, is at least as good in quality, bytes
        and latency and better in one of them. Latencies that differ by less than 2 % count as the same.
        """
        given = self._place(None)
        places = {row.name: self._place(row) for row in self.done}
        return tuple(
            name
            for name, place in places.items()
            if not any(_beats(other, place) for other in (given, *places.values()))
        )

    def _place(self, row: SweepRow | None) -> tuple[float, float, float]:
        """Quality, bytes and latency ratio."""
        if row is None:
            return (self.quality(None), self.before.bytes if self.before else math.inf, 1.0)
        return (self.quality(row), row.report.after.bytes, row.report.latency_ratio)

    def best(
        self,
        *,
        loss: float | None = None,
        snr_db: float | None = None,
        by: Literal["bytes", "latency"] = "bytes",
    ) -> SweepRow:
        """The smallest or fastest result that is good enough.

        Args:
            loss: by how much its score may be less than that of the given model.
            snr_db: the least agreement that it may have, in dB.
            by: what is least: bytes, or the ratio of the latencies.

        Raises:
            StepError: no bound is given, or `loss` without a score, or no result is good enough.

        Example:
            >>> small = result.best(loss=0.005).model    # doctest: +SKIP
        """
        if loss is None and snr_db is None:
            raise StepError("best needs a bound: best(loss=0.01) of the score, or best(snr_db=30) of the agreement.")
        if by not in ("bytes", "latency"):
            raise StepError(f"best knows no {by!r}: by='bytes' or by='latency'.")
        if not self.done:
            raise StepError("best: no recipe has a result" + "".join(f"\n  {r.name}: {r.problem}" for r in self.rows))
        if loss is not None and not self.scored:
            raise StepError("best: there is no score to lose. Give sweep evaluate=, or ask for best(snr_db=30).")
        good = [row for row in self.done if self._fits(row, loss, snr_db)]
        if not good:
            closest = max(self.done, key=self.quality)
            raise StepError(
                f"best: no recipe is good enough; the closest is {closest.name!r} with {self._told(closest)}."
            )
        return min(good, key=lambda row: row.report.after.bytes if by == "bytes" else row.report.latency_ratio)

    def _fits(self, row: SweepRow, loss: float | None, snr_db: float | None) -> bool:
        enough = snr_db is None or row.snr_db >= snr_db
        # A loss of 0.01 between scores of 0.98 and 0.97 is 0.010000000000000009 in floating point.
        return enough and (loss is None or self.quality(None) - self.quality(row) <= loss + 1e-9)

    def _told(self, row: SweepRow) -> str:
        agreement = f"an agreement of {row.snr_db:.1f} dB"
        if not self.scored:
            return agreement
        return f"a score of {self.quality(row):.4f} ({self.quality(row) - self.quality(None):+.4f}) and {agreement}"

    def __str__(self) -> str:
        header = ("", "recipe", "bytes", "", "latency", "", *(("score", "") if self.scored else ()), "agreement")
        rows = [] if self.before is None else [self._given(self.before)]
        front = self.front
        rows += [self._row(row, "*" if row.name in front else "") for row in self.done]
        text = table(f"sweep: {len(self.rows)} recipes on {self.backend}", header, rows)
        text += f"\n* on the Pareto front of {'score' if self.scored else 'agreement'}, bytes and latency"
        slower = [row.name for row in self.done if row.report.slower]
        text += f"\nslower on this machine than the given model: {', '.join(slower)}" if slower else ""
        text += "".join(f"\nfailed: {row.name}: {row.problem}" for row in self.rows if row.problem)
        notes = dict.fromkeys(note for row in self.done for note in row.report.notes)
        text += "".join(f"\n{note.kind}: {note.where}: {note.message}" for note in notes)
        if self.unfinished:
            text += f"\ninterrupted: not done: {', '.join(self.unfinished)}"
        return text

    def _given(self, before: Measured) -> tuple[str, ...]:
        score = () if before.score is None else (f"{before.score:.4f}", "")
        return ("", AS_GIVEN, f"{before.bytes:,}", "", f"{before.median_ms:.2f} ms", "", *score, "")

    def _row(self, row: SweepRow, mark: str) -> tuple[str, ...]:
        report = row.report
        before, after = report.before, report.after
        size = f"{after.bytes / max(before.bytes, 1):.3f} x"
        score: tuple[str, ...] = ()
        if before.score is not None and after.score is not None:
            score = (f"{after.score:.4f}", f"{after.score - before.score:+.4f}")
        times = (f"{after.median_ms:.2f} ms", f"{report.latency_ratio:.2f} x")
        return (mark, row.name, f"{after.bytes:,}", size, *times, *score, f"{row.snr_db:.1f} dB")

    def plot(self) -> Figure:
        """Score (or agreement) against bytes, with the Pareto front, as a `matplotlib.figure.Figure`.

        Raises:
            MissingBackendError: matplotlib is not installed.
            StepError: no recipe has a result.

        Example:
            >>> result.plot().savefig("sweep.png")    # doctest: +SKIP
        """
        from modelport.core.plots.swept import draw

        return draw(self)

    def to_json(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "before": None if self.before is None else asdict(self.before),
            "front": list(self.front),
            "rows": [row.to_json() for row in self.rows],
            "unfinished": list(self.unfinished),
        }


def _beats(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Whether one place is no worse than another in quality, bytes and latency, and better in one."""
    faster, no_slower = one[2] * NOTICED < other[2], one[2] <= other[2] * NOTICED
    return (
        one[0] >= other[0] and one[1] <= other[1] and no_slower and (one[0] > other[0] or one[1] < other[1] or faster)
    )
