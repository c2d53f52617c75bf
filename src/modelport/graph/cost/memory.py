"""The most bytes of activations that are alive at once while a graph runs in its own order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import onnx_ir as ir

from modelport.graph.cost.sized import Sizes, Untold
from modelport.graph.subgraphs import captured, subgraphs

_VIEWS = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose first output is their first input's memory, in inference."""


class Peak(NamedTuple):
    """Where memory is highest.

    Attributes:
        nbytes: the bytes of all activations alive there.
        node: the name of the node that runs there.
    """

    nbytes: int = 0
    node: str = ""


class Memory:
    """Liveness of a graph's values.

    A value lives from the node that makes it, an input from the start, to the last node that reads it, an output to the
    end; what only looks at a value under another shape is that value. No operator writes over its input, and kernels'
    own workspace is not known.

    Attributes:
        untold: the values whose size only the run tells, by name; they are not among the bytes.
    """

    def __init__(self, sizes: Sizes, constant: set[ir.Value]) -> None:
        self._sizes = sizes
        self._constant = constant
        self._origin: dict[ir.Value, ir.Value] = {}
        self.untold: dict[str, None] = {}

    def peak(self, graph: ir.Graph) -> Peak:
        """The highest point of a graph and of the graphs inside it."""
        nodes = list(graph)
        last = self._last_uses(graph, nodes)
        alive = {value: self._nbytes(value) for value in self._owners(graph.inputs)}
        total = sum(alive.values())
        peak = Peak(total, nodes[0].name or "" if nodes else "")
        for index, node in enumerate(nodes):
            made = {value: self._nbytes(value) for value in self._owners(node.outputs) if value not in alive}
            inner = max((self.peak(body) for body in subgraphs(node)), default=Peak())
            beside = sum(made.values())
            # The results of a branch are those of its If; a loop gathers its own beside the states of each round.
            here = total + (max(beside, inner.nbytes) if node.op_type == "If" else beside + inner.nbytes)
            if here > peak.nbytes:
                peak = Peak(here, inner.node if inner.nbytes > beside else str(node.name))
            alive.update(made)
            for value in [value for value in alive if last.get(value, index) <= index]:
                del alive[value]
            total = sum(alive.values())
        return peak

    def _last_uses(self, graph: ir.Graph, nodes: list[ir.Node]) -> dict[ir.Value, int]:
        last: dict[ir.Value, int] = {}
        for index, node in enumerate(nodes):
            if node.op_type in _VIEWS and not node.domain and node.inputs[0] is not None:
                self._origin[node.outputs[0]] = self._owner(node.inputs[0])
            read = (*(value for value in node.inputs if value is not None), *captured(*subgraphs(node)))
            last.update(dict.fromkeys((self._owner(value) for value in read), index))
        last.update(dict.fromkeys((self._owner(value) for value in graph.outputs), len(nodes)))
        return last

    def _owner(self, value: ir.Value) -> ir.Value:
        return self._origin.get(value, value)

    def _owners(self, values: Iterable[ir.Value]) -> list[ir.Value]:
        """The memory behind some values, each once; weights and what follows from them alone is none of it."""
        named = (self._owner(value) for value in values if value.name)
        return [value for value in dict.fromkeys(named) if value not in self._constant]

    def _nbytes(self, value: ir.Value) -> int:
        try:
            return self._sizes.nbytes(value)
        except Untold:
            self.untold[str(value.name)] = None
            return 0
