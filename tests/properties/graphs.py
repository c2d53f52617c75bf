"""The strategy: random graphs with inputs and what they compute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper

from tests.properties import oracle
from tests.properties.drawing import FLOOR, TOLERANCE, Scope, Source, Value
from tests.properties.operators import grow

OPSETS = (28, 21, 18, 17, 13, 11, 9, 7, 26, 24, 23, 20, 19, 16, 15, 14, 12, 10, 8, 22, 25, 27)

TAPE = 1200
"""How many bytes a graph is made of: more than most take."""

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Example:
    """A graph, two choices of inputs for it, and what it computes for them.

    Attributes:
        model: the graph.
        feeds: inputs by name, once per choice of the sizes.
        expected: outputs by name, once per choice of the sizes.
        tolerances: how far an output may be off, relative to its largest element, by name.
    """

    model: onnx.ModelProto
    feeds: tuple[Feeds, ...]
    expected: tuple[dict[str, Any], ...]
    tolerances: dict[str, float]

    def op_types(self) -> list[str]:
        return [node.op_type for node in nodes(self.model.graph)]

    def __repr__(self) -> str:
        return f"Example({', '.join(self.op_types())})"


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def graphs(
    *,
    longest: int = 12,
    opsets: tuple[int, ...] = OPSETS,
    runtime: bool = False,
    functions: Collection[str] = (),
    refused: Callable[[str, str], None] = lambda op_type, reason: None,
) -> st.SearchStrategy[Example]:
    """Graphs of up to `longest` operators.

    Args:
        longest: how many operators are tried at most; those that do not fit are left out.
        opsets: one of them is drawn.
        runtime: only operators that ONNX Runtime has.
        functions: only these of the table, by name; all where there is none.
        refused: told of every node that did not fit, and why.
    """
    # One tape instead of a draw per choice: hypothesis would spend five examples of six on variations of the sixth.
    tapes = st.binary(min_size=TAPE, max_size=TAPE)
    return tapes.map(lambda tape: _drawn(Source(tape, runtime, refused, frozenset(functions)), longest, opsets))


def _drawn(source: Source, longest: int, opsets: tuple[int, ...]) -> Example:
    s = Scope(source)
    count = s.integer(1, longest)
    source.opset, source.dynamic = s.choose(opsets), s.chance(70)
    n, t = s.choose([((2, 3), (3, 5)), ((2, 1), (3, 4)), ((3, 4), (4, 2)), ((4, 2), (1, 3))])
    source.sizes = {"n": (*n, *n), "t": (*t, *t)}
    source.rng = np.random.default_rng(s.integer(0, 2**32 - 1))
    s.inputs.append(_first_input(s))
    grow(s, count)
    return _example(s)


def _first_input(s: Scope) -> Value:
    dims = s.dims(s.choose([3, 2, 4, 1]))
    shapes = [[dim if isinstance(dim, int) else dim[world] for dim in dims] for world in range(2)]
    arrays = [s.array(shape, np.dtype("float32")) for shape in shapes]
    value = Value("x", (*arrays, *arrays))
    s.symbols[value.name] = dims
    s.values.append(value)
    return value


def _example(s: Scope) -> Example:
    outputs = _outputs(s)
    infos = [_input_info(s, value) for value in s.inputs]
    declared = s.chance(50)
    graph = helper.make_graph(
        s.nodes, "random", infos, [_output_info(value, declared) for value in outputs], s.initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", s.opset)], ir_version=10)
    feeds = tuple({value.name: value.worlds[world] for value in s.inputs} for world in range(2))
    expected = tuple({value.name: value.worlds[world] for value in outputs} for world in range(2))
    return Example(model, feeds, expected, {value.name: TOLERANCE[value.grain] for value in outputs})


def _outputs(s: Scope) -> list[Value]:
    """Every value that no node reads, and some that one does; at least one."""
    made = {name for node in s.nodes if node.op_type != "Constant" for name in node.output}
    read = {name for node in nodes(helper.make_graph(s.nodes, "read", [], [])) for name in node.input}
    read |= {name for node in s.nodes for attribute in node.attribute for name in _results(attribute)}
    found = [
        value
        for value in s.values
        if value.name in made and not value.is_sequence and (value.name not in read or s.chance(20))
    ]
    return found or [s.op("Identity", s.inputs[0])]


def _results(attribute: onnx.AttributeProto) -> set[str]:
    return {value.name for value in attribute.g.output}


def _input_info(s: Scope, value: Value) -> onnx.ValueInfoProto:
    dims = [dim if isinstance(dim, int) else s.source.dimension(dim) for dim in s.symbols[value.name]]
    return helper.make_tensor_value_info(value.name, oracle.tensor_type(value.worlds[0]), dims)


def _output_info(value: Value, ranked: bool) -> onnx.ValueInfoProto:
    shape = [None] * value.rank if ranked else None
    return helper.make_tensor_value_info(value.name, oracle.tensor_type(value.worlds[0]), shape)


def disagreement(wanted: Any, found: Any, tolerance: float) -> str:
    """How a result differs from what is expected; empty where it does not."""
    if not isinstance(found, (np.ndarray, np.generic)):
        return f"a {type(found).__name__} instead of an array"
    if found.dtype != wanted.dtype:
        return f"dtype {found.dtype}, expected {wanted.dtype}"
    if found.shape != wanted.shape:
        return f"shape {found.shape}, expected {wanted.shape}"
    if wanted.size == 0:
        return ""
    if wanted.dtype.kind in "biu":
        wrong = int((wanted != found).sum())
        return f"{wrong} of {wanted.size} elements differ" if wrong else ""
    wide, other = wanted.astype(np.float64), found.astype(np.float64)
    off = float(np.abs(wide - other).max() / max(np.abs(wide).max(), FLOOR))
    return "" if off <= tolerance else f"off by {off:.2e}"
