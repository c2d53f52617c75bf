"""What a loss is taken of: the logits and features of a graph, and targets in the form that a loss needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.core.errors import DataError, StepError
from modelport.core.signature import Arrays
from modelport.core.training import IGNORED, Batch, Term
from modelport.graph.names import dotted_names, make_names_unique
from modelport.graph.normal import drop_dead_nodes, normalize
from modelport.graph.signature import KEY, read_signature, write_signature
from modelport.graph.weights import aliases, roles, set_aliases, set_roles

_PROBABILITIES = {"cross_entropy": ("Softmax", "LogSoftmax"), "binary_cross_entropy": ("Sigmoid",)}
"""What makes probabilities of the logits that a loss is of."""

_COUNTED = "/counted"


@dataclass(frozen=True)
class Head:
    """An output and the loss that is taken of it.

    Attributes:
        output: its name.
        kind: the loss, see `Training`.
        logits: the value that the loss reads: the output, or what a softmax or sigmoid makes it of.
    """

    output: str
    kind: Any
    logits: ir.Value

    @property
    def squash(self) -> str | None:
        """The operator that makes the output of the logits; `None` where they are the output."""
        maker = next((node for node, _ in self.logits.uses() if node.outputs[0].name == self.output), None)
        return None if maker is None or self.logits.name == self.output else maker.op_type

    @property
    def label(self) -> str:
        """The name of the value that the loss reads."""
        return str(self.logits.name)

    def term(self, weight: float = 1.0) -> Term:
        """The addend of a loss that has the targets of the output."""
        counted = f"{self.output}{_COUNTED}" if self.kind == "cross_entropy" else ""
        return Term(self.kind, self.label, self.output, weight=weight, counted=counted)

    def expected(self, batch: Batch) -> Arrays:
        """The targets of a batch as the term takes them.

        Raises:
            DataError: there are none for the output, or they do not fit it.
        """
        if self.output not in batch.targets:
            raise DataError(f"there are no targets for the output {self.output!r}: give y as a dict by output name.")
        array = batch.targets[self.output]
        if callable(self.kind):
            return {self.output: array}
        dims = self.logits.shape
        rank = None if dims is None else len(dims)
        if self.kind == "cross_entropy":
            return self._classes(array, rank, dims[-1] if dims is not None and rank else None)
        if rank is not None and array.ndim == rank - 1 and dims is not None and dims[-1] == 1:
            array = array[..., np.newaxis]
        if rank is not None and array.ndim == rank + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        if rank not in (None, array.ndim) or array.dtype.kind not in "fiub":
            raise self._misfit(array, f"numbers in {rank} dimensions")
        if self.kind == "binary_cross_entropy" and array.size and not (array.min() >= 0 and array.max() <= 1):
            raise self._misfit(array, f"probabilities from 0 to 1, and not {array.min()} to {array.max()}")
        return {self.output: array.astype(np.float32)}

    def _classes(self, array: np.ndarray, rank: int | None, count: Any) -> Arrays:
        if rank is not None and array.ndim == rank and array.shape[-1] == 1:
            array = array[..., 0]
        if array.dtype.kind not in "iu" or (rank is not None and array.ndim != rank - 1):
            raise self._misfit(array, f"integer classes in {'fewer' if rank is None else rank - 1} dimensions")
        counted = array != IGNORED
        classes = np.where(counted, array, 0).astype(np.int64)
        most = count if isinstance(count, int) else None
        if classes.size and (classes.min() < 0 or (most is not None and classes.max() >= most)):
            known = "…" if most is None else most - 1
            raise self._misfit(array, f"classes 0 to {known}, and not {classes.min()} to {classes.max()}")
        return {self.output: classes, f"{self.output}{_COUNTED}": counted.astype(np.float32)}

    def _misfit(self, array: np.ndarray, wanted: str) -> DataError:
        return DataError(
            f"targets of the output {self.output!r} are {array.dtype}{array.shape}; {self.kind} of "
            f"{self.label} {self.logits.shape} takes {wanted}."
        )


def heads(graph: ir.Model, loss: Any, step: str) -> tuple[Head, ...]:
    """The outputs that a loss is of, in the order of the graph.

    Args:
        graph: in normal form.
        loss: one loss for the first output, or a loss by output name.
        step: the name of the step, for the message.

    Raises:
        StepError: a name is no output.
    """
    outputs = {str(value.name): value for value in graph.graph.outputs}
    wanted = dict(loss) if isinstance(loss, Mapping) else {next(iter(outputs)): loss}
    unknown = sorted(set(wanted) - set(outputs))
    if unknown or not wanted:
        raise StepError(f"{step}: loss is of {unknown or 'nothing'}, and the outputs are {sorted(outputs)}.")
    return tuple(Head(name, wanted[name], _logits(value, wanted[name])) for name, value in outputs.items()
                 if name in wanted)  # fmt: skip


def _logits(value: ir.Value, kind: Any) -> ir.Value:
    node = value.producer()
    if callable(kind) or node is None or node.domain or node.op_type not in _PROBABILITIES.get(kind, ()):
        return value
    source = node.inputs[0]
    axis = node.attributes.get_int("axis", -1) if node.op_type != "Sigmoid" else -1
    last = value.shape is not None and axis in (-1, len(value.shape) - 1)
    return source if source is not None and source.producer() is not None and last else value


def speaking_alike(graph: ir.Model, other: ir.Model, loss: Any, step: str) -> ir.Model:
    """A copy of a graph whose outputs are logits or probabilities where those of another graph are.

    Args:
        graph: in normal form; it stays as it is.
        other: with outputs of the same names.
        loss: of the outputs, see `heads`.
        step: see `heads`.
    """
    model = graph.clone()
    outputs = {value.name: place for place, value in enumerate(model.graph.outputs)}
    for head, wanted in zip(heads(model, loss, step), heads(other, loss, step), strict=True):
        if head.squash == wanted.squash:
            continue
        old, new = model.graph.outputs[outputs[head.output]], head.logits
        if wanted.squash:
            node = ir.node(wanted.squash, [new], {} if wanted.squash == "Sigmoid" else {"axis": -1})
            node.name = f"{head.output}/{wanted.squash.lower()}"
            model.graph.append(node)
            new = node.outputs[0]
            new.type, new.shape = old.type, old.shape
        old.name = f"{old.name}/before"
        new.name = head.output
        model.graph.outputs[outputs[head.output]] = new
    return normalize(model)


def giving(graph: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of a graph whose outputs are other values of it, and whose inputs are not nested.

    Nodes and weights that these values do not depend on are gone.

    Args:
        graph: in normal form; it stays as it is.
        names: of values that nodes of its main graph make.
    """
    model = graph.clone()
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.clear()
    model.graph.outputs.extend(values[name] for name in dict.fromkeys(names))
    known, tied = roles(model), aliases(model)
    drop_dead_nodes(model)
    read = {name for name, value in model.graph.initializers.items() if value.uses() or value.is_graph_output()}
    for name in set(model.graph.initializers) - read:
        model.graph.initializers.pop(name)
    set_roles(model, {name: role for name, role in known.items() if name in read})
    set_aliases(model, {alias: name for alias, name in tied.items() if name in read})
    model.metadata_props.pop(KEY, None)
    write_signature(model, read_signature(model))
    return model


def renamed(graph: ir.Model) -> tuple[ir.Model, dict[str, str]]:
    """A copy of a graph whose weights have names that every framework keeps, and the new name of each by the old."""
    model = graph.clone()
    known, tied = roles(model), aliases(model)
    labels = {old: new for old, new in dotted_names([*known, *tied]).items() if old in known}
    values = {old: model.graph.initializers.pop(old) for old in labels}
    for old, value in values.items():
        # The tensor is the other graph's too, and a value hands its name on to its tensor.
        tensor, value.const_value = value.const_value, None
        value.name = labels[old]
        value.const_value = ir.Tensor(tensor.numpy(), tensor.dtype, name=labels[old])
        model.graph.register_initializer(value)
    set_roles(model, {labels[old]: role for old, role in known.items()})
    set_aliases(model, {alias: labels.get(name, name) for alias, name in tied.items()})
    make_names_unique(model)
    return model, labels
