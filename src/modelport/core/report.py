"""What a verb measured while doing it: frozen data that travels with the model and prints as a table."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

NoteKind = Literal["fallback", "custom", "dropped", "changed", "layout"]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that did not cross as it was.

    Attributes:
        kind: `"fallback"` (an op runs on the host, outside the framework), `"custom"` (an op runs in the framework by a
            layer of modelport's, which has to be installed to load the model), `"dropped"` (training-time behaviour
            that the target lacks), `"changed"` (a dtype, a name, a static size), `"layout"` (transposes that remain).
        where: the node, layer or parameter.
        message: what happened.
    """

    kind: NoteKind
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class ParityRow:
    """How far one output, or the gradient of one parameter, is from the reference.

    Attributes:
        name: the output's or parameter's name.
        kind: `"output"` or `"gradient"`.
        batch: the batch size of the inputs.
        max_abs: the largest absolute difference.
        max_rel: `max_abs` divided by the largest absolute reference value (the relative error in the maximum norm;
            Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., §1.2 and §6.2); where the reference is
            all zeros, `max_abs` itself.
        tolerance: what `max_rel` may be.
    """

    name: str
    kind: Literal["output", "gradient"]
    batch: int
    max_abs: float
    max_rel: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.max_rel <= self.tolerance


@dataclass(frozen=True)
class ParityReport:
    """Parity of two models on the same inputs; prints as a table.

    Attributes:
        reference: the backend of the model that is taken as right.
        candidate: the backend of the model that is compared with it.
        rows: one per output or parameter and batch size.
        unmatched: parameters that train on one side and have no counterpart on the other.
    """

    reference: str
    candidate: str
    rows: tuple[ParityRow, ...]
    unmatched: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows) and not self.unmatched

    @property
    def max_rel(self) -> float:
        """The largest relative error of any output."""
        return max((row.max_rel for row in self.rows if row.kind == "output"), default=0.0)

    @property
    def max_rel_gradient(self) -> float:
        """The largest relative error of any parameter's gradient; 0 where none was compared."""
        return max((row.max_rel for row in self.rows if row.kind == "gradient"), default=0.0)

    def __str__(self) -> str:
        rows = [
            (
                r.kind,
                r.name,
                r.batch,
                f"{r.max_abs:.2e}",
                f"{r.max_rel:.2e}",
                f"{r.tolerance:.0e}",
                "ok" if r.ok else "FAIL",
            )
            for r in self.rows
        ]
        title = f"parity: {self.reference} -> {self.candidate}"
        text = table(title, ("what", "name", "batch", "max abs", "max rel", "tolerance", ""), rows)
        return text + "".join(f"\nunmatched parameter: {name}" for name in self.unmatched)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ParityReport:
        rows = tuple(ParityRow(**row) for row in data["rows"])
        return cls(data["reference"], data["candidate"], rows, tuple(data["unmatched"]))


@dataclass(frozen=True)
class TransferReport:
    """What `transfer` did; prints as a table.

    Attributes:
        source: the backend the model came from.
        target: the backend it went to.
        operators: how many nodes of each operator the portable graph has.
        notes: everything that did not cross as it was.
        parity: outputs before and after; `None` where `check=False` was asked for.
        seconds: wall time of each stage (`"export"`, `"build"`, `"parity"`), in seconds.
    """

    source: str
    target: str
    operators: dict[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    parity: ParityReport | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        total = sum(self.operators.values())
        times = ", ".join(f"{stage} {value:.2f} s" for stage, value in self.seconds.items())
        lines = [
            f"transfer: {self.source} -> {self.target}, {total} nodes of {len(self.operators)} operators ({times})"
        ]
        lines += [f"  {note.kind}: {note.where}: {note.message}" for note in self.notes]
        lines.append("not checked (check=False)" if self.parity is None else str(self.parity))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "parity": None if self.parity is None else self.parity.to_json()}


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One operator of the portable graph on the target backend.

    Attributes:
        op_type: the operator, with its domain where it is not ONNX's own.
        count: how many nodes have it.
        support: `"native"`, `"custom"` (in the framework, by a layer of modelport's), `"fallback"` (on the host) or
            `"unsupported"`.
        nodes: the names of the first nodes that have it.
    """

    op_type: str
    count: int
    support: Literal["native", "custom", "fallback", "unsupported"]
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What will and will not survive a transfer, and why; prints as a table.

    Attributes:
        source: the model's backend.
        target: the backend it would go to.
        rows: one per operator.
        notes: what will not cross as it is.
        problem: why the transfer cannot be made at all, empty where it can.
    """

    source: str
    target: str
    rows: tuple[CheckRow, ...]
    notes: tuple[Note, ...] = ()
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and all(row.support != "unsupported" for row in self.rows)

    def __str__(self) -> str:
        rows = [(r.op_type, r.count, r.support, ", ".join(r.nodes) if r.support != "native" else "") for r in self.rows]
        text = table(f"check: {self.source} -> {self.target}", ("operator", "nodes", "support", "where"), rows)
        text += "".join(f"\n{note.kind}: {note.where}: {note.message}" for note in self.notes)
        return text + (f"\nproblem: {self.problem}" if self.problem else "")

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain-text table, as every report prints it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    buffer = io.StringIO()
    Console(file=buffer, width=120, color_system=None, markup=False, highlight=False).print(drawn)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n")
