"""The graph inside a branch or a loop while it is being written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.lowering import Frame


class Subgraph:
    """A graph whose nodes may read every value around it.

    Args:
        g: the op that it belongs to.
        name: of the graph.
    """

    def __init__(self, g: Context, name: str) -> None:
        self._outside = g
        self.graph = ir.Graph([], [], nodes=[], name=g.lowering.unique(name))
        self.tape = ir.tape.Tape(self.graph)

    def input(self, stem: str, dtype: ir.DataType, shape: Sequence[int | None] | None) -> ir.Value:
        """A new input of the graph."""
        known = None if shape is None else ir.Shape(shape)
        value = ir.Value(name=self._outside.lowering.unique(stem), type=ir.TensorType(dtype), shape=known)
        self.graph.inputs.append(value)
        return value

    def frame(self, function: str, given: dict[str, Any]) -> Frame:
        """A function of the TensorFlow graph, to be lowered into this graph."""
        inner = self._outside.frame.graph._get_function(function).graph
        return Frame(inner, given, self.tape, self._outside.frame)

    def context(self, frame: Frame | None = None) -> Context:
        """The op's context, with its nodes written here."""
        return replace(self._outside, frame=frame or self._outside.frame, inside=self.tape)

    def finish(self, outputs: Sequence[Any]) -> ir.Graph:
        """The graph with its outputs, each made by a node of its own.

        Raises:
            UnsupportedOpError: one of them is no tensor.
        """
        inside = {id(value) for node in self.graph for value in node.outputs}
        for value in outputs:
            if not isinstance(value, ir.Value):
                raise self._outside.fail("what it returns is a list that was never filled, or no tensor")
            if id(value) not in inside:
                kept, value = value, self.tape.op("Identity", [value])
                value.name = self._outside.lowering.unique(f"{self.graph.name}.out")
                value.type, value.shape = kept.type, kept.shape
            inside.discard(id(value))
            self.graph.outputs.append(value)
        return self.graph


def dtype_of(tensor: Any) -> ir.DataType:
    """The ONNX dtype of a symbolic tensor."""
    return ir.DataType.from_numpy(np.dtype(tensor.dtype.as_numpy_dtype))
