"""What `compress` measured: before and after, side by side."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from modelport.core.report import Note, table
from modelport.core.training import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTICED = 1.02
"""A ratio of two latencies that differ by less is noise."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model.

    Attributes:
        bytes: of all weights as they are stored.
        median_ms: the median latency of a call on the example, in milliseconds.
        p95_ms: its 95th percentile, in milliseconds.
        score: what `evaluate` says; `None` where it was not given.
    """

    bytes: int
    median_ms: float
    p95_ms: float
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an output of the compressed model is from the one before.

    Attributes:
        output: its name.
        snr_db: the ratio of signal to noise, `10 log10(sum(before^2) / sum((before - after)^2))`, in dB; infinite
            where nothing changed.
        top1: the share of rows whose largest element along the last axis is the same; `None` for outputs of one column.
    """

    output: str
    snr_db: float
    top1: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The same; JSON has no infinities, and `None` stands for one."""
        return {**asdict(self), "snr_db": self.snr_db if math.isfinite(self.snr_db) else None}


@dataclass(frozen=True)
class CompressReport:
    """What `compress` did and what it cost; prints as a table.

    Attributes:
        backend: of the model, before and after.
        steps: as they were done.
        before: the model that was given.
        after: the model that is returned.
        latency_ratio: the median ratio of two calls one after the other, after over before.
        agreement: one row per output of floating numbers.
        alone: the layers that a step has left as they were, and why.
        notes: what does not run as it was asked for.
        instructions: the vector instructions of the CPU that the latencies are of.
        seconds: wall time of each step, in seconds.
        epochs: the steps that trained, and how each went.
    """

    backend: str
    steps: tuple[str, ...]
    before: Measured
    after: Measured
    latency_ratio: float
    agreement: tuple[Agreement, ...] = ()
    alone: tuple[tuple[str, str], ...] = ()
    notes: tuple[Note, ...] = ()
    instructions: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    epochs: tuple[tuple[str, tuple[Epoch, ...]], ...] = ()

    @property
    def slower(self) -> bool:
        """Whether the result takes longer than the model it was made of, on this machine and this backend."""
        return self.latency_ratio > NOTICED

    def __str__(self) -> str:
        text = table(
            f"compress: {' -> '.join(self.steps)} on {self.backend}", ("", "before", "after", ""), self._rows()
        )
        for step, epochs in self.epochs:
            first, last = epochs[0], epochs[-1]
            text += f"\n{step}: loss {first.loss:.4g} in epoch 1, {last.loss:.4g} in epoch {last.number + 1}"
        for name, reason in self.alone:
            text += f"\nleft alone: {name}: {reason}"
        text += "".join(f"\n{note.kind}: {note.where}: {note.message}" for note in self.notes)
        if self.slower:
            text += f"\nslower: a call takes {self.latency_ratio:.2f} times as long as before on this machine."
        return (
            f"{text}\nmeasured on a CPU with {', '.join(self.instructions) or 'no vector instructions that are known'}"
        )

    def _rows(self) -> list[tuple[str, str, str, str]]:
        before, after = self.before, self.after
        rows = [
            ("bytes", f"{before.bytes:,}", f"{after.bytes:,}", f"{after.bytes / max(before.bytes, 1):.3f} x"),
            (
                "latency, median",
                f"{before.median_ms:.2f} ms",
                f"{after.median_ms:.2f} ms",
                f"{self.latency_ratio:.2f} x",
            ),
            ("latency, p95", f"{before.p95_ms:.2f} ms", f"{after.p95_ms:.2f} ms", ""),
        ]
        if before.score is not None and after.score is not None:
            rows.append(("score", f"{before.score:.4f}", f"{after.score:.4f}", f"{after.score - before.score:+.4f}"))
        for row in self.agreement:
            same = "" if row.top1 is None else f"top-1 {row.top1:.1%}"
            rows.append((f"agreement of {row.output}", "", f"{row.snr_db:.1f} dB", same))
        return rows

    def plot(self) -> Figure:
        """Bytes, latency, score and agreement, before | after, as a `matplotlib.figure.Figure`.

        Raises:
            MissingBackendError: matplotlib is not installed.

        Example:
            >>> small.report.plot().savefig("small.png")    # doctest: +SKIP
        """
        from modelport.core.plots.compressed import draw

        return draw(self)

    def to_json(self) -> dict[str, Any]:
        rows = [row.to_json() for row in self.agreement]
        return {**asdict(self), "agreement": rows, "slower": self.slower}
