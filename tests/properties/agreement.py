"""Whether a backend computes what a random graph computes, and the smallest part of the graph where it does not."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, Phase, given, seed, settings
from onnx import helper

from modelport.core.backend import Backend
from modelport.core.errors import UnsupportedOpError
from modelport.core.registry import backend as registered
from modelport.graph.signature import read_signature
from modelport.testing.conformance import forget_sessions
from tests.properties import oracle
from tests.properties.drawing import free_names
from tests.properties.graphs import Example, Feeds, disagreement, graphs

REFUSAL = "refused"
"""What is told of a graph that a backend says it does not have."""

REFUSED: dict[str, dict[str, str]] = {
    "onnx": {},
    "torch": {
        "CenterCropPad": "to or from a size that only the run tells",
        "RNN GRU LSTM modelport::GRU": "no layer of torch, over a number of steps that only the run tells",
        "MaxPool AveragePool LpPool": "padded by a size that only the run tells, or unevenly with indices",
        "Resize": "smoothed from a size that only the run tells",
        "RoiAlign": "as many samples as each region is large",
    },
    "keras": {},
}
"""What a backend says that it does not have: operators, and when. Such graphs are counted apart."""


def is_refused(backend: Backend, error: Exception) -> bool:
    """Whether an error says what is known not to be there."""
    known = {name for names in REFUSED[backend.name] for name in names.split()}
    return isinstance(error, UnsupportedOpError) and error.op_type in known


def trouble(backend: Backend, example: Example) -> str:
    """What goes wrong with a graph on a backend; empty where it agrees."""
    try:
        return _trouble(backend, example)
    except Exception as error:  # whatever a framework raises is a finding
        if is_refused(backend, error):
            return REFUSAL
        told = " ".join(str(error).split())
        return f"{type(error).__name__}: {told[:400]}"


def _trouble(backend: Backend, example: Example) -> str:
    graph = ir.from_proto(example.model)
    signature = read_signature(graph)
    built = backend.build(graph)
    for feeds, expected in zip(example.feeds, example.expected, strict=True):
        found = backend.run(built.native, feeds, built.signature or signature)
        for name, wanted in expected.items():
            if told := disagreement(wanted, found[name], example.tolerances[name]):
                return f"{name}: {told}"
    return ""


def kind(told: str) -> str:
    """What sort of trouble it is: errors by their class, differences all alike, what a backend does not have apart."""
    head = told.partition(":")[0]
    if head == REFUSAL:
        return REFUSAL
    return head if head.endswith(("Error", "Exception", "Invalid", "Fail", "Argument")) else "wrong" if told else ""


# The smallest part.


def reduced(example: Example, fails: Callable[[Example], bool]) -> Example:
    """The smallest part of a failing graph that is found to fail: one output, with values inside as inputs."""
    try:
        known = [values_of(example, feeds) for feeds in example.feeds]
    except oracle.NoOracle:
        return example
    best = _with_fewer_outputs(example, known, fails)
    cut: tuple[str, ...] = ()
    for node in reversed(example.model.graph.node):
        names = tuple(name for name in node.output if name)
        inside = {name for each in best.model.graph.node for name in each.output}
        if node.op_type == "Constant" or not inside.issuperset(names) or set(names) & set(best.expected[0]):
            continue
        if any(isinstance(values[name], list) for values in known for name in names):
            continue
        part = _part(example, known, tuple(best.expected[0]), (*cut, *names))
        if fails(part):
            best, cut = part, (*cut, *names)
    return best


def _with_fewer_outputs(example: Example, known: list[dict[str, Any]], fails: Callable[[Example], bool]) -> Example:
    names = tuple(example.expected[0])
    for name in names:
        if fails(part := _part(example, known, (name,), ())):
            return part
    best = example
    for name in names:
        fewer = tuple(other for other in best.expected[0] if other != name)
        if fails(part := _part(example, known, fewer, ())):
            best = part
    return best


def values_of(example: Example, feeds: Feeds) -> dict[str, Any]:
    """Every value of the outermost graph."""
    graph = example.model.graph
    opset = example.model.opset_import[0].version
    known: dict[str, Any] = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    known |= feeds
    for node in graph.node:
        read = {name: known[name] for name in (*node.input, *free_names(node)) if name}
        (found,) = oracle.evaluate(node, [read], opset)
        known |= zip((name for name in node.output if name), found, strict=True)
    return known


def _part(example: Example, known: list[dict[str, Any]], outputs: tuple[str, ...], cut: tuple[str, ...]) -> Example:
    """The graph of some outputs, with some values as inputs."""
    graph = example.model.graph
    needed, kept = set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output) - set(cut):
            kept.append(node)
            needed |= {name for name in (*node.input, *free_names(node)) if name}
    inputs = [value for value in graph.input if value.name in needed]
    added = [name for name in cut if name in needed]
    inputs += [_info(name, [values[name] for values in known]) for name in added]
    names = [value.name for value in inputs]
    part = helper.make_graph(
        kept[::-1],
        graph.name,
        inputs,
        [value for value in graph.output if value.name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in needed],
    )
    model = helper.make_model(part, opset_imports=example.model.opset_import, ir_version=example.model.ir_version)
    return replace(
        example,
        model=model,
        feeds=tuple({name: values[name] for name in names} for values in known),
        expected=tuple({name: expected[name] for name in outputs} for expected in example.expected),
    )


def _info(name: str, arrays: list[np.ndarray]) -> onnx.ValueInfoProto:
    sizes = zip(*(array.shape for array in arrays), strict=True)
    dims = [each[0] if len(set(each)) == 1 else "size_" + "_".join(map(str, each)) for each in sizes]
    return helper.make_tensor_value_info(name, oracle.tensor_type(arrays[0]), dims)


def reproduction(example: Example) -> str:
    """The graph in ONNX's textual form, the inputs and what is expected, to be pasted into a session."""
    lines = [onnx.printer.to_text(example.model)]
    for feeds, expected in zip(example.feeds, example.expected, strict=True):
        lines += [f"{name} = {_written(array)}" for name, array in feeds.items()]
        lines += [f"# expected {name} = {_written(array)}" for name, array in expected.items()]
    return "\n".join(lines)


def _written(array: Any) -> str:
    return f"np.array({np.asarray(array).tolist()}, {str(array.dtype)!r}).reshape({array.shape})"


# Many of them.


@dataclass
class Findings:
    """What became of many graphs on one backend.

    Attributes:
        examples: how many there were.
        operators: how often each operator occurred.
        failures: what went wrong, with its smallest part.
        refused: how many graphs the backend says it does not have (`REFUSED`).
    """

    examples: int = 0
    operators: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    refused: int = 0

    def add(self, other: Findings) -> None:
        self.examples += other.examples
        self.operators.update(other.operators)
        self.failures += other.failures
        self.refused += other.refused


def campaign(name: str | None, first: int, count: int, longest: int = 12) -> Findings:
    """Compare so many random graphs, drawn from a seed, on a backend by name; without one they are only drawn."""
    findings = Findings()
    backend = None if name is None else registered(name)

    @seed(first)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs(longest=longest, runtime=name == "onnx"))
    def agree(example: Example) -> None:
        findings.examples += 1
        findings.operators.update(example.op_types())
        told = "" if backend is None else trouble(backend, example)
        findings.refused += told == REFUSAL
        if backend is not None and told not in ("", REFUSAL):
            findings.failures.append(_failure(backend, example, told, first))
        forget_sessions()
        if findings.examples == 1:
            # The framework stays: a collection need not walk it again after every graph.
            gc.freeze()

    agree()
    return findings


def _failure(backend: Backend, example: Example, told: str, first: int) -> str:
    def fails(part: Example) -> bool:
        return kind(trouble(backend, part)) == kind(told)

    small = reduced(example, fails)
    again = trouble(backend, small) or "agrees when it runs once more"
    whole = "" if again == told else f"\nthe whole graph: {told}"
    return f"{backend.name}, seed {first}: {again}{whole}\n{reproduction(small)}"
