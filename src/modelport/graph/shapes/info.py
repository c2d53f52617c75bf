"""What is known of the shapes of a graph's values, and how the rules of `shapes` read and record it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.graph.shapes.expr import Expr, Size, parse, symbol

Dims = tuple[Size, ...]

MAX_ELEMENTS = 256
"""Tensors with more elements are no shapes, and their contents are not followed."""

MAX_NAMED_ELEMENTS = 8
"""In tensors up to this size an integer that only the run will tell gets a symbol."""

INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32})
FOLLOWED = INTEGERS | {ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.DOUBLE}
"""The dtypes of tensors whose contents are followed; shapes are scaled in floats."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the size behind a symbol can be read when the model runs.

    Attributes:
        value: the name of a value.
        axis: the axis of it that has the size; `None` where the symbol is an element.
        element: the index of the element (flattened) that is the size; `None` where the symbol is a dimension.
        is_input: whether the value is an input of the graph, so that the size is known before anything runs.
    """

    value: str
    axis: int | None
    element: int | None
    is_input: bool


class ShapeInfo:
    """What `infer` found.

    Attributes:
        sources: for every symbol, where its size can be read first.
    """

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self._dims: dict[ir.Value, Dims] = {}
        self._types: dict[ir.Value, ir.TypeProtocol] = {}
        self._elements: dict[ir.Value, np.ndarray] = {}
        self._held: dict[ir.Value, tuple[int | None, ...]] = {}
        self._empty: set[ir.Value] = set()

    def is_empty(self, value: ir.Value | None) -> bool:
        """Whether a value is a sequence without elements, to which elements of any shape may be added."""
        return value in self._empty

    def set_empty(self, value: ir.Value, is_empty: bool) -> None:
        """Record whether a value is a sequence without elements."""
        (self._empty.add if is_empty else self._empty.discard)(value)

    def held(self, value: ir.Value) -> tuple[int | None, ...] | None:
        """The sizes that every element of a sequence, or what an optional holds, has; `None` where the rank is open."""
        return self._held.get(value)

    def dims(self, value: ir.Value) -> Dims | None:
        """One `int` or `Expr` per axis; `None` where the rank is not known."""
        return self._dims.get(value)

    def elements(self, value: ir.Value) -> Dims | None:
        """The contents of a small tensor, flattened; `None` where it is large or its contents are not followed."""
        array = self._elements.get(value)
        return None if array is None else tuple(array.ravel().tolist())

    def array(self, value: ir.Value) -> np.ndarray | None:
        """As `elements`, in the tensor's shape, as an array of Python objects."""
        return self._elements.get(value)

    def type(self, value: ir.Value) -> ir.TypeProtocol | None:
        """The type of a value; `None` where it is not known."""
        return self._types.get(value)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The dtype of a tensor; `None` where it is not known or the value is no tensor."""
        kind = self._types.get(value)
        return kind.dtype if isinstance(kind, ir.TensorType) else None

    def is_bound(self, size: Size) -> bool:
        """Whether a size follows from the shapes of the graph's inputs alone."""
        symbols = size.symbols() if isinstance(size, Expr) else ()
        return all(self.sources[name].is_input and self.sources[name].axis is not None for name in symbols)

    def set(
        self, value: ir.Value, kind: ir.TypeProtocol | None, dims: Sequence[Size | None] | None, is_input: bool = False
    ) -> None:
        """Record a value; every axis whose size is `None` gets a symbol of its own.

        Of what is no tensor the dims are those of its elements, which may differ in what is no number.
        """
        # A loop's body is gone through until its states are settled: what was thought of a value before goes.
        for found in (self._dims, self._held, self._elements):
            found.pop(value, None)
        if kind is not None:
            self._types[value] = kind
        if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
            if dims is not None:
                self._held[value] = tuple(dim if isinstance(dim, int) else None for dim in dims)
        elif dims is not None:
            named = [self._fresh(value, axis, None, is_input) if d is None else d for axis, d in enumerate(dims)]
            self._dims[value] = tuple(named)

    def set_elements(self, value: ir.Value, array: np.ndarray | None) -> None:
        """Record the contents of a value; an unknown integer in a small tensor gets a symbol of its own."""
        dims, dtype = self._dims.get(value), self.dtype(value)
        if array is not None and dtype is not None and dtype in INTEGERS and not _fits(array, np.iinfo(dtype.numpy())):
            array = None
        if array is None and dtype in INTEGERS and dims is not None and len(dims) < 2:
            shape = tuple(dim if isinstance(dim, int) else MAX_ELEMENTS for dim in dims)
            if np.prod(shape) <= MAX_NAMED_ELEMENTS:
                names = [self._fresh(value, None, index) for index in range(int(np.prod(shape)))]
                array = object_array(names, shape)
        if array is not None and array.size <= MAX_ELEMENTS:
            self._elements[value] = array

    def adopt(self, value: ir.Value, other: ir.Value) -> None:
        """Record for a value all that is known of another, which it replaces."""
        if other in self._types:
            self._types[value] = self._types[other]
        if other in self._dims:
            self._dims[value] = self._dims[other]
        if other in self._elements:
            self._elements[value] = self._elements[other]
        if other in self._held:
            self._held[value] = self._held[other]
        self.set_empty(value, self.is_empty(other))

    def write(self) -> None:
        """Put the types and shapes found on the values of the graph."""
        for value, kind in self._types.items():
            if not isinstance(value.type, type(kind)) or value.type.dtype != kind.dtype:
                value.type = kind
        for value, sizes in self._held.items():
            value.shape = ir.Shape(sizes)
        for value, dims in self._dims.items():
            shape = ir.Shape(dim if isinstance(dim, int) else str(dim) for dim in dims)
            if value.shape != shape and not value.is_initializer():
                value.shape = shape

    def _fresh(self, value: ir.Value, axis: int | None, element: int | None, is_input: bool = False) -> Expr:
        stem = re.sub(r"\W", "_", str(value.name))
        # An element may be negative; its name says so (see `expr`).
        name = f"{stem}_dim{axis}" if element is None else f"?{stem}_{element}"
        while name in self.sources:
            name += "_"
        self.sources[name] = Source(str(value.name), axis, element, is_input)
        return symbol(name)


class Site:
    """One node, as the rules see it: its attributes and what is known of its inputs."""

    def __init__(self, node: ir.Node, info: ShapeInfo) -> None:
        self.node = node
        self.info = info

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def dims(self, index: int) -> Dims | None:
        """The dims of an input; `None` where it is not given or its rank is not known."""
        value = self.node.inputs[index] if self.has(index) else None
        return None if value is None else self.info.dims(value)

    def array(self, index: int) -> np.ndarray | None:
        """The contents of an input, as objects."""
        value = self.node.inputs[index] if self.has(index) else None
        return None if value is None else self.info.array(value)

    def sizes(self, index: int) -> Dims | None:
        """The contents of an input, flattened."""
        array = self.array(index)
        return None if array is None else tuple(array.ravel().tolist())

    def ints(self, index: int) -> tuple[int, ...] | None:
        """The contents of an input where all of them are plain integers."""
        sizes = self.sizes(index)
        return sizes if sizes is not None and all(isinstance(size, int) for size in sizes) else None  # type: ignore[return-value]

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value


def record(
    value: ir.Value,
    info: ShapeInfo,
    found: tuple[ir.TypeProtocol | None, Sequence[Size | None] | None],
    own: Sequence[Size | None] | None = None,
) -> None:
    """Record an output: what a rule says, else what ONNX says, else what the graph states."""
    kind, dims = found
    dims = own if own is not None else dims
    stated = None if value.shape is None else [stated_dim(dim, info) for dim in value.shape]
    if dims is None:
        dims = stated
    elif stated is not None and len(stated) == len(dims):
        dims = [_better(mine, theirs, info) for mine, theirs in zip(dims, stated, strict=True)]
    if dims is not None:
        for axis, dim in enumerate(dims):
            for name in dim.symbols() if isinstance(dim, Expr) else ():
                info.sources.setdefault(name, Source(str(value.name), axis, None, False))
    info.set(value, kind or value.type, dims)


def _fits(array: np.ndarray, bounds: np.iinfo) -> bool:
    """Whether every integer is one of its dtype: what goes beyond it comes round when the graph runs."""
    return all(bounds.min <= item <= bounds.max for item in array.ravel() if isinstance(item, int))


def object_array(items: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    """An array of Python objects; NumPy's own constructor would look into them."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(tuple(shape))


def _better(mine: Size | None, stated: Size | None, info: ShapeInfo) -> Size | None:
    """What to believe of a size: what follows from the inputs, else what the exporter knew."""
    if not isinstance(mine, Expr):
        return stated if mine is None else mine
    if isinstance(stated, int):
        # An exporter has guards that decide a minimum; of a plain product of dimensions it knows no better.
        return mine if info.is_bound(mine) and mine.is_polynomial() else stated
    return stated if stated is not None and not info.is_bound(mine) and _all_known(stated, info) else mine


def _all_known(size: Size, info: ShapeInfo) -> bool:
    return isinstance(size, Expr) and size.symbols() <= info.sources.keys() and info.is_bound(size)


def stated_dim(dim: int | ir.SymbolicDim, info: ShapeInfo) -> Size | None:
    """A dimension as the graph states it; `None` where it has neither size nor name."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value in info.sources or dim.value.isidentifier():
        return symbol(dim.value)
    size = parse(dim.value)
    known = isinstance(size, int) or (isinstance(size, Expr) and size.symbols() <= info.sources.keys())
    return size if known else symbol(dim.value)


def as_objects(array: np.ndarray) -> np.ndarray | None:
    """An array as Python integers, booleans and fractions; `None` where a number is no simple fraction."""
    if array.dtype.kind != "f":
        return object_array(array.ravel().tolist(), array.shape)
    if not np.isfinite(array).all() or (np.abs(array) > 2**40).any() or (array * 4096 % 1).any():
        return None
    fractions = [Fraction(item) for item in array.ravel().tolist()]
    return object_array([int(f) if f.denominator == 1 else f for f in fractions], array.shape)
