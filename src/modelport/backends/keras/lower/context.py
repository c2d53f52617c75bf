"""What the function that lowers one op or one layer works with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.static import Size, sizes
from modelport.core.report import Note, NoteKind
from modelport.graph.scopes import CALL, Call

if TYPE_CHECKING:
    from modelport.backends.keras.lower.lowering import Frame, Lowering

Operand = Any
"""A value, or what becomes a constant: an array, a number, a list of integers, or `None` for a missing input."""

_ML_OPSET = 3
"""The opset of `ai.onnx.ml` that a graph has which uses it."""

_INT64 = frozenset({"Shape", "Size", "NonZero", "ArgMax", "ArgMin"})
"""Operators whose result is int64 whatever their input is."""


@dataclass(frozen=True)
class Context:
    """One op or layer that is being lowered; calling it writes a node.

    Attributes:
        path: the names of the layers that it is in, joined by dots: the scope of its nodes' names.
        op: the TensorFlow op, where it is one.
        layer: the Keras layer, where it is one.
        results: the symbolic tensors that stand for the layer's results.
        inside: takes the nodes where they do not go where the frame's go: into a branch, say.
    """

    lowering: Lowering
    frame: Frame
    path: str
    op: Any = None
    layer: Any = None
    results: Sequence[Any] = ()
    inside: ir.tape.Tape | None = None

    @property
    def tape(self) -> ir.tape.Tape:
        """What takes the nodes."""
        return self.inside or self.frame.tape

    def __call__(self, op_type: str, *inputs: Operand, domain: str = "", **attributes: Any) -> ir.Value:
        """Write a node with one output."""
        return self.many(op_type, inputs, 1, domain=domain, **attributes)[0]

    def many(
        self, op_type: str, inputs: Sequence[Operand], outputs: int, *, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Write a node with several outputs."""
        values = [self.operand(item, inputs) for item in inputs]
        if domain == "ai.onnx.ml":
            self.lowering.graph.opset_imports.setdefault(domain, _ML_OPSET)
        name = self.lowering.unique(f"{self.path}.{op_type.lower()}" if self.path else op_type.lower())
        results = self.tape.op_multi_out(op_type, values, attributes, num_outputs=outputs, domain=domain, name=name)
        made = results[0].producer()
        assert made is not None
        made.meta[CALL] = self.call
        for index, value in enumerate(results):
            value.name = name if index == 0 else self.lowering.unique(f"{name}.{index}")
            if op_type in _INT64:
                value.type = ir.TensorType(ir.DataType.INT64)
        return results

    @cached_property
    def call(self) -> Call:
        """What the nodes are named after: the layer, or the op in its scope."""
        if self.op is None:
            return Call(self.path, "", (id(self.results[0].graph), self.results[0].name))
        operator = re.sub(r"V\d+$", "", self.op.type).lower()
        return Call(self.path, operator, (id(self.op.graph), self.op.name))

    def operand(self, item: Operand, beside: Sequence[Operand] = ()) -> ir.Value | None:
        """An input of a node: numbers take the dtype of the first value beside them, lists are int64."""
        if item is None or isinstance(item, ir.Value):
            return item
        if isinstance(item, np.ndarray):
            return self.lowering.constant(item)
        if isinstance(item, (list, tuple)):
            return self.lowering.constant(np.asarray(item, np.int64))
        known = (v.dtype for v in beside if isinstance(v, ir.Value) and v.dtype is not None)
        dtype = next(known, None) or self.dtype(0)
        return self.lowering.constant(np.asarray(item, dtype.numpy()))

    def dtype(self, index: int) -> ir.DataType:
        """The dtype of an input of the op, or of the layer's first result."""
        tensor = self.results[0] if self.op is None else self.op.inputs[index] if self.op.inputs else self.op.outputs[0]
        return ir.DataType.from_numpy(np.dtype(tensor.dtype.as_numpy_dtype))

    def result_dtype(self, index: int = 0) -> ir.DataType:
        """The dtype of an output of the op or of the layer."""
        tensor = (self.results or self.op.outputs)[index]
        return ir.DataType.from_numpy(np.dtype(tensor.dtype.as_numpy_dtype))

    def attr(self, name: str) -> Any:
        """An attribute of the op; bytes are text."""
        value = self.op.get_attr(name)
        if isinstance(value, list):
            return [item.decode() if isinstance(item, bytes) else item for item in value]
        return value.decode() if isinstance(value, bytes) else value

    def shape(self, index: int = 0) -> tuple[int | None, ...] | None:
        """The static shape of an input of the op."""
        return sizes(self.op.inputs[index])

    def rank(self, index: int = 0) -> int:
        """The rank of an input of the op.

        Raises:
            UnsupportedOpError: it is not known.
        """
        rank = self.op.inputs[index].shape.rank
        if rank is None:
            raise self.fail(f"the rank of input {index} of {self.op.type} is not known")
        return int(rank)

    def static(self, index: int) -> np.ndarray | None:
        """The value of an input of the op, where it is known."""
        return self.frame.statics.value(self.op.inputs[index])

    def elements(self, index: int) -> list[Size] | None:
        """The elements of a small integer input of the op, as far as they are known."""
        return self.frame.statics.elements(self.op.inputs[index])

    def value(self, tensor: Any) -> ir.Value:
        """The value of any tensor of the graph."""
        return self.lowering.value(self.frame, tensor)

    def weight(self, variable: Any) -> ir.Value | None:
        """A layer's weight as it is in the portable graph, cast to what the layer computes with."""
        return None if variable is None else self.weights(variable)[0]

    def held(self, variable: Any) -> ir.Value:
        """A layer's weight as it is in the portable graph."""
        return self.lowering.parameter(self.lowering.weights[id(variable.handle)])[0]

    def weights(self, variable: Any) -> list[ir.Value]:
        """The portable tensors of a layer's variable, one per name."""
        values = self.lowering.parameter(self.lowering.weights[id(variable.handle)])
        wanted = self.result_dtype()
        return [v if v.dtype == wanted else self("Cast", v, to=wanted.value) for v in values]

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in a dtype; integers that come from a narrowing cast are taken from before it."""
        if value.dtype == dtype:
            return value
        maker = value.producer()
        if maker is not None and maker.op_type == "Cast" and value.dtype == ir.DataType.INT32:
            origin = maker.inputs[0]
            if origin is not None and origin.dtype == dtype == ir.DataType.INT64:
                return origin
        result = self("Cast", value, to=dtype.value)
        result.type = ir.TensorType(dtype)
        return result

    def int64(self, value: ir.Value) -> ir.Value:
        """A shape, axes or indices as ONNX wants them."""
        return self.cast(value, ir.DataType.INT64)

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """The value with its axes in another order; no node where it is the same one."""
        return value if list(perm) == sorted(perm) else self("Transpose", value, perm=list(perm))

    def note(self, kind: NoteKind, message: str) -> None:
        """Say that something does not cross as it is."""
        self.lowering.notes.append(Note(kind, self.path, message))

    def fail(self, reason: str) -> Exception:
        """The error to raise where the op cannot be lowered."""
        return self.lowering.unsupported(self, reason)
