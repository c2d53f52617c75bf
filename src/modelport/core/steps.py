"""What `compress` does, step by step: frozen data that prints as it is written and is kept in the history.

A step checks its own settings when it is made and knows nothing of models; what it does to one is in `compression/`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from modelport.core.errors import StepError

Precision = Literal["int8", "uint8"]
Calibrator = Literal["minmax", "entropy", "percentile"]
Importance = Literal["l1", "l2", "taylor"]


@dataclass(frozen=True)
class Step:
    """One thing that `compress` does to a model."""

    def __str__(self) -> str:
        told = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not each.default:
                told.append(f"{each.name}={value if _is_plain(value) else '…'}")
        return f"{type(self).__name__}({', '.join(told)})"

    def to_json(self) -> dict[str, Any]:
        """The settings that can be written down; data and functions are named by their type."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        told = {name: value if _is_plain(value) else type(value).__name__ for name, value in values.items()}
        return {"step": type(self).__name__, **told}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, int, float, bool))


def _choose(step: str, name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise StepError(f"{step} has no {name} {value!r}: take one of {', '.join(map(repr, known))}.")


@dataclass(frozen=True)
class Quantize(Step):
    """Store weights in 8 bits, and compute in them.

    Attributes:
        precision: `"int8"`: weights are int8, activations the 8-bit type that this machine multiplies them by fastest.
            `"uint8"`: activations are uint8 on every machine.
        calibration: inputs that the ranges of activations are observed on, in any form that `predict` takes. Without
            them each call measures its own ranges (dynamic quantization), and only matrix products are quantized.
        method: how a range follows from what was observed: `"minmax"`, `"entropy"` (least Kullback-Leibler
            divergence), `"percentile"` (99.999 % of the values).
        per_channel: one scale per output channel of a weight, else one per weight.
        exclude: names of nodes or layers, and of all below them, that stay in float.
    """

    precision: Precision = "int8"
    calibration: Any = None
    method: Calibrator = "minmax"
    per_channel: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _choose("Quantize", "precision", self.precision, get_args(Precision))
        _choose("Quantize", "method", self.method, get_args(Calibrator))


@dataclass(frozen=True)
class Prune(Step):
    """Take away what matters least.

    Attributes:
        ratio: the share of weights that become zero, or of channels, heads and neurons that go; inside (0, 1).
        n_m: `(2, 4)`: of every 4 weights along the inputs the 2 smallest become zero, instead of a ratio.
        structured: take whole channels, heads and neurons out of the graph.
        scope: whether the ratio holds for all weights together (`"global"`) or for each layer.
        importance: what is least: the sum of absolute weights, of their squares, or the first-order Taylor term of the
            loss (Molchanov et al. 2019), which needs `data`.
        data: inputs and targets for `"taylor"`, as `FineTune` takes them.
        exclude: names of nodes or layers, and of all below them, that stay as they are.
    """

    ratio: float | None = None
    n_m: tuple[int, int] | None = None
    structured: bool = False
    scope: Literal["global", "layer"] = "global"
    importance: Importance = "l2"
    data: Any = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.n_m is None):
            raise StepError("Prune takes a ratio (Prune(0.5)) or a pattern (Prune(n_m=(2, 4))), one of the two.")
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise StepError(f"Prune: the ratio is the share that goes, inside (0, 1), and not {self.ratio}.")
        if self.n_m is not None and not 0 < self.n_m[0] < self.n_m[1]:
            raise StepError(f"Prune: n_m=(n, m) zeroes n of every m weights, 0 < n < m, and not {self.n_m}.")
        if self.n_m is not None and self.structured:
            raise StepError("Prune: a pattern n_m leaves zeros inside the weights; structured=True takes a ratio.")
        _choose("Prune", "scope", self.scope, ("global", "layer"))
        _choose("Prune", "importance", self.importance, ("l1", "l2", "taylor"))
        if self.importance == "taylor" and self.data is None:
            raise StepError('Prune: importance="taylor" needs data=(x, y), of which the loss has gradients.')
