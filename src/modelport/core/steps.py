"""What `compress` does, step by step: frozen data that prints as it is written and is kept in the history.

A step checks its own settings when it is made and knows nothing of models; what it does to one is in `compression/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from modelport.core.errors import StepError

Precision = Literal["int8", "uint8", "int4", "float16", "bfloat16", "float8"]
Calibrator = Literal["minmax", "entropy", "percentile", "mse"]
Algorithm = Literal["rtn", "gptq"]
Importance = Literal["l1", "l2", "taylor"]
LossName = Literal["cross_entropy", "binary_cross_entropy", "mse"]


@dataclass(frozen=True)
class Step:
    """One thing that `compress` does to a model."""

    def __str__(self) -> str:
        told = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not each.default and not (_is_plain(value) and value == each.default):
                told.append(f"{each.name}={value if _is_plain(value) or isinstance(value, Step) else '…'}")
        return f"{type(self).__name__}({', '.join(told)})"

    def to_json(self) -> dict[str, Any]:
        """The settings that can be written down; data and functions are named by their type."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        told = {name: _told(value) for name, value in values.items()}
        return {"step": type(self).__name__, **told}


def _told(value: Any) -> Any:
    return value if _is_plain(value) else str(value) if isinstance(value, Step) else type(value).__name__


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, int, float, bool))


def _choose(step: str, name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise StepError(f"{step} has no {name} {value!r}: take one of {', '.join(map(repr, known))}.")


@dataclass(frozen=True)
class Quantize(Step):
    """Store weights, and where that is faster activations, in fewer bits.

    Attributes:
        precision: `"int8"`: weights are int8, activations the 8-bit type that this machine multiplies them by fastest.
            `"uint8"`: activations are uint8 on every machine. `"int4"`: weights only. `"float16"`: weights and
            activations. `"bfloat16"`, `"float8"` (e4m3fn): weights only.
        calibration: inputs that activations are observed on, in any form that `predict` takes. Without them 8-bit
            activations measure their own ranges at each call (dynamic quantization), and only matrix products are
            quantized.
        method: how a range follows from what was observed: `"minmax"`, `"entropy"` (least Kullback-Leibler
            divergence), `"percentile"` (99.999 % of the values), `"mse"` (least squared error).
        per_channel: one scale per output channel of a weight, else one per weight; weights by blocks have their own.
        weight_only: weights by blocks of `block_size`, activations in float; `"int4"` always is.
        block_size: rows of a weight that share a scale, a power of two from 16 on.
        algorithm: of weights by blocks: `"rtn"` rounds each number to the nearest, `"gptq"` makes up for each rounding
            in the weights that are left (Frantar et al. 2023) and needs `calibration`.
        exclude: names of nodes or layers, and of all below them, that stay in float.
        train: trains with the rounding in place (quantization-aware training), which needs `calibration`.
    """

    precision: Precision = "int8"
    calibration: Any = None
    method: Calibrator = "minmax"
    per_channel: bool = True
    weight_only: bool = False
    block_size: int = 32
    algorithm: Algorithm = "rtn"
    exclude: tuple[str, ...] = ()
    train: FineTune | None = None

    def __post_init__(self) -> None:
        if self.train is not None and not isinstance(self.train, FineTune):
            raise StepError(f"Quantize: train= is a FineTune(...), and not {self.train!r}.")
        if self.train is not None and (self.by_blocks or self.precision not in ("int8", "uint8")):
            raise StepError('Quantize: train= rounds activations as it goes: take "int8" or "uint8", not by blocks.')
        if self.train is not None and self.calibration is None:
            raise StepError("Quantize: train= needs calibration=, inputs that the ranges of activations follow from.")
        _choose("Quantize", "precision", self.precision, get_args(Precision))
        _choose("Quantize", "method", self.method, get_args(Calibrator))
        _choose("Quantize", "algorithm", self.algorithm, get_args(Algorithm))
        size = self.block_size
        if not isinstance(size, int) or isinstance(size, bool) or size < 16 or size & (size - 1):
            raise StepError(f"Quantize: block_size is a power of two from 16 on, and not {size!r}.")
        if self.weight_only and self.precision not in ("int8", "int4"):
            raise StepError(f'Quantize: weight_only=True is of "int8" and "int4", and not of {self.precision!r}.')
        if self.algorithm == "gptq" and not self.by_blocks:
            raise StepError('Quantize: algorithm="gptq" rounds weights: take "int4", or "int8" and weight_only=True.')
        if self.algorithm == "gptq" and self.calibration is None:
            raise StepError('Quantize: algorithm="gptq" needs calibration=, inputs that the layers are observed on.')
        if self.calibration is not None and not self.observes:
            told = ', or take algorithm="gptq"' if self.by_blocks else ""
            raise StepError(f"Quantize: {self.precision!r} is rounded without data: leave calibration= out{told}.")

    @property
    def observes(self) -> bool:
        """Whether data tell how numbers are rounded."""
        return self.algorithm == "gptq" or (self.precision in ("int8", "uint8") and not self.weight_only)

    @property
    def by_blocks(self) -> bool:
        """Whether weights alone are stored, by blocks."""
        return self.weight_only or self.precision == "int4"


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


@dataclass(frozen=True, kw_only=True)
class Training(Step):
    """How a step trains.

    Attributes:
        loss: of the outputs and the targets. `"cross_entropy"`: targets are integer classes, -100 where there is none;
            outputs are logits, or probabilities that a softmax gives. `"binary_cross_entropy"`: targets are 0 to 1;
            outputs are logits, or probabilities that a sigmoid gives. `"mse"`. A function `(output, target)` of the
            tensors of the framework that trains (the model's own; of an ONNX model torch, where it is installed), which
            gives a scalar; Keras' own losses, which take the targets first, are called so. Or one of these by output
            name.
        epochs: how often the data are gone through.
        batch_size: rows per step, where the data are arrays.
        learning_rate: of AdamW.
        schedule: `"constant"`, or `"cosine"`: from epoch to epoch down to zero.
        weight_decay: of AdamW.
        freeze: names of layers or weights, and of all below them, that are not trained; one name may stand alone.
        validation: inputs and targets as the data are. The weights of the epoch with the least loss on them are kept;
            those of the last one without.
        seed: of the order of the rows and of Dropout.
    """

    loss: Any = "cross_entropy"
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    freeze: tuple[str, ...] = ()
    validation: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        for loss in self.loss.values() if isinstance(self.loss, Mapping) else (self.loss,):
            if not callable(loss):
                _choose(name, "loss", loss, get_args(LossName))
        _choose(name, "schedule", self.schedule, ("constant", "cosine"))
        if isinstance(self.freeze, str):
            object.__setattr__(self, "freeze", (self.freeze,))
        for setting in ("epochs", "batch_size"):
            if getattr(self, setting) < 1:
                raise StepError(f"{name}: {setting} is at least 1, and not {getattr(self, setting)}.")
        if self.seed < 0:
            raise StepError(f"{name}: seed is at least 0, and not {self.seed}.")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise StepError(f"{name}: learning_rate is above 0, and weight_decay is not below it.")


@dataclass(frozen=True)
class FineTune(Training):
    """Train the model that the steps before have made; weights that `Prune` has made zero stay zero.

    Attributes:
        data: `(x, y)`: inputs in any form that `predict` takes, with as many targets; the rows are shuffled. Or batches
            of such pairs: a list, a `DataLoader`, a `tf.data.Dataset`, or a function that gives an iterator of them for
            each epoch. Targets of a model with several outputs are a dict by output name.

    Example:
        >>> mp.FineTune((x, y), epochs=3, learning_rate=1e-4)  # doctest: +SKIP
    """

    data: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data is None:
            raise StepError("FineTune needs data to train on: FineTune((x, y)).")


@dataclass(frozen=True)
class Distill(Training):
    """Train a student on what the model, as its teacher, says; the student takes the model's place.

    The loss is `alpha * T^2 * KL(teacher / T, student / T) + (1 - alpha) * loss` (Hinton et al. 2015, section 2), and
    with `features` the mean squared difference of each pair (Romero et al. 2015, section 2.2) is added. Where the
    loss is neither cross-entropy nor binary cross-entropy, `alpha` weighs the mean squared difference of the outputs
    instead of the divergence.

    Attributes:
        student: a native model of any framework, a `Model` or a path. It takes and gives what the model does, by
            position; images may have their channels elsewhere. It is trained where it comes from and stays as it is.
        data: as for `FineTune`; without targets, `x` alone, where `alpha` is 1.
        temperature: T.
        alpha: the weight of the teacher, in [0, 1].
        features: names of layers of the teacher, each with the one of the student that shall give the same; where the
            sizes of their last (of images: channel) axis differ, a linear map that is learned stands between them.
        feature_weight: the weight of each pair, above 0.

    Example:
        >>> mp.Distill(student, (x, y), temperature=4, alpha=0.9, epochs=20)  # doctest: +SKIP
    """

    student: Any = None
    data: Any = None
    temperature: float = 4.0
    alpha: float = 0.9
    features: Mapping[str, str] | None = None
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student is None or self.data is None:
            raise StepError("Distill needs a student and data: Distill(student, data=(x, y)).")
        if not self.temperature > 0 or not 0 <= self.alpha <= 1:
            raise StepError("Distill: temperature is above 0, and alpha is inside [0, 1].")
        if not self.feature_weight > 0:
            raise StepError(f"Distill: feature_weight is above 0, and not {self.feature_weight}.")
