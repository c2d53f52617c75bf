"""Write a traced model as a portable graph, backwards from its outputs, each tensor once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from modelport.backends.keras.layers import Weight
from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.static import Statics
from modelport.backends.keras.lower.table import COMPLEX, OPS, PATTERNS
from modelport.backends.keras.lower.trace import Call, Trace
from modelport.backends.keras.run import line_of
from modelport.core.errors import UnsupportedOpError
from modelport.core.report import Note
from modelport.core.signature import leaves, map_tree
from modelport.graph.names import unique_name


@dataclass(frozen=True)
class Resource:
    """Something that the graph reads and that is no variable: a table, say.

    Attributes:
        handle: the eager tensor that stands for it.
    """

    handle: Any


@dataclass(eq=False)
class Frame:
    """One graph that is being lowered, and what its placeholders stand for.

    Attributes:
        graph: a `FuncGraph`.
        given: by placeholder name, a weight, a value, or a tensor of the frame that calls this one.
        tape: takes the nodes: that of the portable graph, or of a subgraph of it (the body of a loop).
        caller: that frame.
        values: what has been lowered already, by tensor name; a list of tensors is one tensor with them along axis 0.
    """

    graph: Any
    given: dict[str, Any]
    tape: ir.tape.Tape
    caller: Frame | None = None
    values: dict[str, Any] = field(default_factory=dict)
    statics: Statics = field(init=False)

    def __post_init__(self) -> None:
        known = {}
        for name, thing in self.given.items():
            constant = None
            if isinstance(thing, np.ndarray):
                constant = thing
            elif self.caller is not None and is_tensor(thing):
                constant = self.caller.statics.value(thing)
            if constant is not None:
                known[name] = constant
        self.statics = Statics(self.graph, known)

    def source(self, tensor: Any) -> Any:
        """What a resource tensor comes from, through every call: a `Weight`, a `Resource`, or the tensor itself."""
        thing = self.given.get(tensor.name, tensor)
        if is_tensor(thing) and thing is not tensor and self.caller is not None:
            return self.caller.source(thing)
        if is_tensor(thing) and thing.op.type == "Identity":
            return self.source(thing.op.inputs[0])
        return thing


@dataclass
class _Unit:
    """What makes some tensors at once: an op, a pattern of ops, or a layer."""

    needs: Sequence[Any]
    results: Sequence[Any]
    emit: Callable[[], Any]


class Lowering:
    """The portable graph while it is being written.

    Args:
        traced: the model.
        weights: by the identity of the variables' handles.
        reserved: names that no other value may have.
    """

    def __init__(self, traced: Trace, weights: dict[int, Weight], reserved: Iterable[str]) -> None:
        self.trace = traced
        self.weights = weights
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="modelport")
        self.tape = ir.tape.Tape(self.graph)
        self.notes: list[Note] = list(traced.notes)
        self.names = set(reserved)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self.parameters: dict[str, ir.Value] = {}

    def unique(self, stem: str) -> str:
        """A name that no value and no node has yet."""
        name = unique_name(stem, self.names)
        self.names.add(name)
        return name

    def constant(self, array: np.ndarray) -> ir.Value:
        """An array that is no weight; equal ones are one value. Complex numbers are pairs on a last axis."""
        if array.dtype.kind == "c":
            array = np.stack([array.real, array.imag], -1)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self.unique(f"constant_{len(self._constants)}")
            self._constants[key] = self._initializer(name, array)
        return self._constants[key]

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        tensor: ir.TensorProtocol
        if array.dtype == object:
            tensor = ir.StringTensor(np.char.encode(array.astype(str), "utf-8").astype(object), name=name)
        else:
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        return self._register(tensor)

    def _register(self, tensor: ir.TensorProtocol) -> ir.Value:
        shape = ir.Shape(tensor.shape)
        value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
        self.graph.initializers.add(value)
        return value

    def parameter(self, weight: Weight) -> list[ir.Value]:
        """The portable tensors of a weight, one per name."""
        if weight.names[0] not in self.parameters:
            for name, array in weight.to_portable(_in_place(weight.variable)).items():
                self.parameters[name] = self._register(_read_when_needed(weight, name, array))
        return [self.parameters[name] for name in weight.names]

    def value(self, frame: Frame, tensor: Any) -> ir.Value:
        """The value of a tensor, lowering what it needs."""
        if not hasattr(tensor, "graph"):
            return self.constant(np.asarray(tensor))
        while tensor.graph is not frame.graph and frame.caller is not None:
            frame = frame.caller
        if tensor.name not in frame.values:
            self._lower(frame, tensor)
        return frame.values[tensor.name]

    def _lower(self, frame: Frame, wanted: Any) -> None:
        """Depth first, with a stack of its own: nets are deeper than Python's."""
        stack, units = [wanted], dict[str, _Unit]()
        while stack:
            tensor = stack[-1]
            if tensor.name in frame.values:
                stack.pop()
                continue
            unit = units.get(tensor.name) or self._unit(frame, tensor)
            units[tensor.name] = unit
            missing = [t for t in unit.needs if t.graph is frame.graph and t.name not in frame.values]
            if missing:
                stack.extend(reversed(missing))
                continue
            results = unit.emit()
            results = list(results) if isinstance(results, (list, tuple)) else [results]
            for symbol, value in zip(unit.results, results, strict=True):
                frame.values[symbol.name] = _described(value, symbol)

    def _unit(self, frame: Frame, tensor: Any) -> _Unit:
        call = self.trace.calls.get((id(frame.graph), tensor.name))
        if call is not None:
            return self._of_layer(frame, call)
        constant = frame.statics.value(tensor)
        if constant is not None:
            return _Unit((), (tensor,), lambda: self.constant(constant))
        if tensor.name in frame.given:
            return _Unit((), (tensor,), lambda: self._given(frame, tensor))
        context = Context(self, frame, self.trace.path(tensor.op.name), op=tensor.op)
        matches = (find(context) for find in PATTERNS.get(tensor.op.type, ()))
        match = next((found for found in matches if found is not None), None)
        if match is None:
            return self._of_op(frame, context)
        found = match
        return _Unit(found.needs, (tensor,), lambda: found.emit(context, *(self.value(frame, t) for t in found.needs)))

    def _given(self, frame: Frame, tensor: Any) -> ir.Value:
        thing = frame.given[tensor.name]
        if isinstance(thing, ir.Value):
            return thing
        assert frame.caller is not None
        return self.value(frame.caller, thing)

    def _of_layer(self, frame: Frame, call: Call) -> _Unit:
        context = Context(self, frame, call.path, layer=call.layer, results=call.outputs)
        needs = [t for t in leaves(call.arguments) if is_tensor(t) and hasattr(t, "graph")]

        def emit() -> Any:
            convert = lambda t: self.value(frame, t) if is_tensor(t) else t  # noqa: E731
            return call.row.emit(context, **map_tree(convert, call.arguments))

        return _Unit(needs, call.outputs, emit)

    def _of_op(self, frame: Frame, context: Context) -> _Unit:
        op = context.op
        row = OPS.get(op.type)
        if row is None:
            raise self.unsupported(context, f"TensorFlow's op {op.type} has no portable form")
        if op.type not in COMPLEX and any(tensor.dtype.is_complex for tensor in (*op.inputs, *op.outputs)):
            raise self.unsupported(context, f"TensorFlow's op {op.type} has no portable form for complex numbers")
        static = {index % len(op.inputs) for index in row.static}
        for index in static:
            if frame.statics.value(op.inputs[index]) is None:
                raise self.unsupported(
                    context, f"input {index} of {op.type} must be known when the graph is written, but it is computed"
                )
        takes = range(len(op.inputs)) if row.needs is None else sorted(static | set(row.needs))
        taken = [(i, op.inputs[i]) for i in takes if op.inputs[i].dtype.name != "resource"]

        def emit() -> Any:
            return row.emit(
                context, *(frame.statics.value(t) if i in static else self.value(frame, t) for i, t in taken)
            )

        return _Unit([t for i, t in taken if i not in static], op.outputs, emit)

    def call(self, context: Context, function: str, inputs: list[Any]) -> list[ir.Value]:
        """The results of a function of the graph, lowered in place."""
        inner = context.frame.graph._get_function(function).graph
        given = {symbol.name: tensor for symbol, tensor in zip(inner.inputs, inputs, strict=True)}
        frame = Frame(inner, given, context.tape, context.frame)
        return [self.value(frame, tensor) for tensor in inner.outputs]

    def unsupported(self, context: Context, reason: str) -> UnsupportedOpError:
        """The error for an op, with its layer and why the layer was not lowered as a whole."""
        op = context.op
        where = f" in layer {context.path!r}" if context.path else ""
        where += line_of(op) if op is not None else ""
        parts = context.path.split(".")
        paths = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
        why = next((self.trace.refusals[path] for path in paths if path in self.trace.refusals), "")
        told = f"; the layer could not be taken as a whole: {why}" if why else ""
        name = op.name if op is not None else context.path
        return UnsupportedOpError(
            f"{reason} (node {name!r}{where}){told}. Write that part of the model with other ops, or leave it outside.",
            op_type=op.type if op is not None else type(context.layer).__name__,
            node=name,
        )


def is_tensor(thing: Any) -> bool:
    """Whether something is a TensorFlow tensor, symbolic or eager."""
    return hasattr(thing, "dtype") and hasattr(thing, "shape") and not isinstance(thing, (np.ndarray, ir.Value))


def _described(value: Any, symbol: Any) -> Any:
    """The value with the dtype and shape that TensorFlow knows; sizes that it does not know are left open."""
    if not isinstance(value, ir.Value) or symbol.dtype.name == "variant":
        return value
    parts = [2] if symbol.dtype.is_complex else []
    if value.shape is None and symbol.shape.rank is not None:
        value.shape = ir.Shape([*symbol.shape.as_list(), *parts])
    if value.type is None:
        dtype = symbol.dtype.real_dtype.as_numpy_dtype
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
    return value


def _read_when_needed(weight: Weight, name: str, array: np.ndarray) -> ir.TensorProtocol:
    """A weight's portable tensor that is read from its variable each time: a graph holds no second copy of a model.

    Where the portable layout only moves axes, the tensor is the variable's memory.
    """

    def read() -> ir.TensorProtocol:
        return ir.tensor(weight.to_portable(_in_place(weight.variable))[name], name=name)

    dtype = ir.DataType.from_numpy(array.dtype)
    return ir.LazyTensor(read, dtype, ir.Shape(array.shape), name=name)


def _in_place(variable: Any) -> np.ndarray:
    """A variable's value in TensorFlow's own memory, read-only.

    A variable that is assigned to, or trained, while its memory is looked at moves to another place, so that the value
    seen here stays. Dtypes that Python's buffers do not have are copied.
    """
    value = tf.convert_to_tensor(variable)
    dtype = np.dtype(value.dtype.as_numpy_dtype)
    if dtype.kind in "biufc" and dtype.isbuiltin == 1:
        return np.asarray(memoryview(value))
    if dtype.isbuiltin == 2 and dtype.itemsize == 2:
        return np.asarray(memoryview(tf.bitcast(value, tf.uint16))).view(dtype)
    return np.asarray(variable.numpy())
