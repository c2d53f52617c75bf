"""A graph in normal form at concrete sizes of its inputs, and its nodes as the rules of `cost` see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import onnx_ir as ir

from modelport.graph.cost.weights import keep_packed
from modelport.graph.normal import normalize
from modelport.graph.shapes.expr import Expr
from modelport.graph.shapes.infer import ShapeInfo, infer
from modelport.graph.signature import graph_inputs

PACKED = frozenset({"MatMulNBits"})
"""Operators of ONNX Runtime that stay as they are, because the standard's would hold their weights unpacked."""

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    | {dtype for dtype in ir.DataType if dtype.name.startswith(("FLOAT8", "FLOAT4", "COMPLEX"))}
)


class Untold(Exception):
    """A size that the graph does not tell, with the name of the value that has it."""


class Sizes:
    """The concrete shape of every value of a graph.

    Attributes:
        model: the graph in normal form, its inputs of concrete sizes.
    """

    def __init__(self, model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
        model = model.clone()
        keep_packed(model)
        self._named = _pin(model.graph, shapes)
        self.model = normalize(model, keep=PACKED)
        self._info: ShapeInfo = infer(self.model)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            Untold: only the run tells it.
        """
        dims = self._info.dims(value)
        if dims is None:
            raise Untold(str(value.name))
        try:
            return tuple(dim.evaluate(self._named) if isinstance(dim, Expr) else int(dim) for dim in dims)
        except KeyError as error:
            raise Untold(str(value.name)) from error

    def nbytes(self, value: ir.Value) -> int:
        """The bytes of a tensor, those of less than a byte per element packed.

        Raises:
            Untold: only the run tells its size, or it is no tensor of numbers.
        """
        dtype = self._info.dtype(value)
        if dtype is None or dtype == ir.DataType.STRING:
            raise Untold(str(value.name))
        return -(-prod(self.shape(value)) * dtype.bitwidth // 8)

    def is_float(self, value: ir.Value) -> bool:
        """Whether a value is of floats; of what the type is not known, too."""
        dtype = self._info.dtype(value)
        return dtype in _FLOATS if dtype is not None else self._info.type(value) is None

    def number(self, value: ir.Value) -> int | None:
        """The integer in a tensor of one element; `None` where it is not known."""
        elements = self._info.elements(value)
        return elements[0] if elements is not None and len(elements) == 1 and type(elements[0]) is int else None


def _pin(graph: ir.Graph, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Give the inputs of a graph their sizes, in place; returns the sizes that their named dimensions got."""
    named: dict[str, int] = {}
    for value in graph_inputs(graph):
        if value.name not in shapes or not isinstance(value.type, ir.TensorType):
            continue
        concrete = tuple(shapes[value.name])
        for dim, size in zip(value.shape or (), concrete, strict=False):
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                named.setdefault(dim.value, size)
        value.shape = ir.Shape(concrete)
    return named


class Sized:
    """One node at concrete sizes."""

    def __init__(self, node: ir.Node, sizes: Sizes) -> None:
        self.node, self._sizes = node, sizes

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def dims(self, index: int) -> tuple[int, ...]:
        """The shape of an input that the operator cannot do without.

        Raises:
            Untold: only the run tells it.
        """
        value = self.node.inputs[index] if self.has(index) else None
        if value is None:
            raise Untold(f"input {index} of {self.node.name}")
        return self._sizes.shape(value)

    def out(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an output.

        Raises:
            Untold: only the run tells it.
        """
        return self._sizes.shape(self.node.outputs[index])

    def floats(self) -> bool:
        """Whether the node takes or gives floats; what does not is arithmetic on indices and masks."""
        values = (*self.node.inputs, *self.node.outputs)
        return any(value is not None and self._sizes.is_float(value) for value in values)

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value
