"""What a model costs, layer by layer: frozen data that `profile` returns and that prints as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from modelport.core.report import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 20
"""How many layers the table has; the others are summed in its last row."""


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer costs in one run.

    Attributes:
        name: its module path in the source (`"layer1.0.conv1"`).
        operators: ONNX's names of the operators in it, the dearest first; empty for weights that nothing reads.
        output: the shape of what it returns; `None` where only the run tells it.
        parameters: how many trainable numbers it has; a weight that several layers share counts in the first.
        bytes: what its parameters, buffers and quantization scales take.
        macs: multiply-accumulates of its products.
        flops: floating-point operations, two per multiply-accumulate.
    """

    name: str
    operators: tuple[str, ...]
    output: tuple[int, ...] | None
    parameters: int
    bytes: int
    macs: int
    flops: int


@dataclass(frozen=True, slots=True)
class Uncounted:
    """One thing that the sums of a profile lack.

    Attributes:
        where: the node or value.
        what: its operator, or `"memory"` for a value whose size is not among the activations.
        reason: why it could not be counted.
    """

    where: str
    what: str
    reason: str


@dataclass(frozen=True)
class ProfileReport:
    """What a model costs to hold and to run; prints as a table with the dearest layers first.

    Attributes:
        backend: the backend that the model runs on.
        inputs: dtype and shape of every input that was measured, by name (`"float32(1, 3, 224, 224)"`).
        layers: every layer, in the order in which they run.
        peak_bytes: the most bytes of activations that are alive at once when the portable graph runs in its order.
        peak_at: the node that runs then.
        latency_ms: the median wall time of a run, NumPy in and NumPy out, in milliseconds.
        latency_p95_ms: the time that 95 % of the runs do not exceed, in milliseconds.
        runs: how many runs were timed.
        uncounted: what the sums lack.
    """

    backend: str
    inputs: dict[str, str]
    layers: tuple[LayerCost, ...]
    peak_bytes: int
    peak_at: str
    latency_ms: float
    latency_p95_ms: float
    runs: int
    uncounted: tuple[Uncounted, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """How many trainable numbers the model has, frozen ones among them; buffers and scales are not."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def bytes(self) -> int:
        """What parameters, buffers and quantization scales take, as they are stored."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations of one run, two per multiply-accumulate."""
        return sum(layer.flops for layer in self.layers)

    def __str__(self) -> str:
        given = ", ".join(f"{name}: {text}" for name, text in self.inputs.items())
        header = ("layer", "operators", "output", "parameters", "bytes", "MACs", "FLOPs", "share")
        lines = [
            table(f"profile: {self.backend}, ({given})", header, self._rows()),
            f"parameters   {self.parameters:,} ({told(self.bytes, 'B')})",
            f"MACs         {told(self.macs)} (FLOPs {told(self.flops)})",
            f"activations  {told(self.peak_bytes, 'B')} at the most, at {self.peak_at}",
            f"latency      {self.latency_ms:.3g} ms median, {self.latency_p95_ms:.3g} ms p95, of {self.runs} runs",
        ]
        lines += [f"not counted: {each.where} ({each.what}): {each.reason}" for each in self.uncounted]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, ...]]:
        ranked = sorted(self.layers, key=lambda layer: (-layer.flops, -layer.bytes))
        rows = [self._row(layer, layer.name) for layer in ranked[:_SHOWN]]
        rest = ranked[_SHOWN:]
        if rest:
            sums = (sum(getattr(layer, name) for layer in rest) for name in ("parameters", "bytes", "macs", "flops"))
            rows.append(self._row(LayerCost("", (), None, *sums), f"{len(rest)} more layers"))
        return rows

    def _row(self, layer: LayerCost, name: str) -> tuple[str, ...]:
        share = layer.flops / self.flops if self.flops else 0.0
        shape = "" if layer.output is None else "x".join(map(str, layer.output))
        operators = ", ".join(layer.operators[:2]) + (", …" if len(layer.operators) > 2 else "")
        numbers = (f"{layer.parameters:,}", told(layer.bytes, "B"), told(layer.macs), told(layer.flops))
        return (name, operators, shape, *numbers, f"{share:.1%}")

    def plot(self) -> Figure:
        """FLOPs and bytes of the dearest layers, as a `matplotlib.figure.Figure`.

        Raises:
            MissingBackendError: matplotlib is not installed.

        Example:
            >>> mp.profile(net, example=x).plot().savefig("cost.png")    # doctest: +SKIP
        """
        from modelport.core.plots.costs import draw

        return draw(self)

    def to_json(self) -> dict[str, Any]:
        totals = {name: getattr(self, name) for name in ("parameters", "bytes", "macs", "flops")}
        return {**totals, **asdict(self)}


def told(number: int, unit: str = "") -> str:
    """A count with three digits and its power of 1000.

    Example:
        >>> told(4_089_184_256), told(2_048, "B"), told(7)
        ('4.09 G', '2.05 kB', '7')
    """
    value = float(number)
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5 or prefix == "T":
            break
        value /= 1000
    text = f"{value:.3g}" if prefix else str(number)
    return f"{text} {prefix}{unit}".rstrip()
