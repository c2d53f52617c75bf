"""Drawing a graph operator by operator, with every value known as soon as its node is there.

A graph is drawn for several *worlds*: two choices of the sizes of its symbolic dimensions, and the same two again with
noise on every float that is computed, as another implementation's rounding makes it. A node stays if every world can
evaluate it and if the noise remains small; where an argmax, a rounding, a comparison or a quotient would hang on the
last bit, the node goes again. So what is compared later may be compared tightly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.properties import oracle

T = TypeVar("T")

F32, F64, F16 = np.dtype("float32"), np.dtype("float64"), np.dtype("float16")
BF16 = np.dtype(ml_dtypes.bfloat16)
I64, I32, I8, U8 = np.dtype("int64"), np.dtype("int32"), np.dtype("int8"), np.dtype("uint8")
BOOL = np.dtype("bool")

FLOATS = (F32, F64, F16, BF16)
INTEGERS = (I64, I32, U8, I8)
NUMBERS = (*FLOATS, *INTEGERS)
ANY = (*NUMBERS, BOOL)

GRAIN = {F32: 1e-6, F64: 1e-6, F16: 5e-4, BF16: 4e-3}
"""The noise on a computed value, relative to the values around it."""

TOLERANCE = {0.0: 1e-4, 1e-6: 1e-4, 5e-4: 2e-2, 4e-3: 1e-1}
"""How far an output may be off by the coarsest grain that it follows from, relative to its largest element."""

FLOOR = 0.1
"""Errors in an output whose elements are all smaller are measured against this: the values around it are about 1."""

LIMIT = 1e3
MAX_ELEMENTS = 3000
MAX_INPUTS = 6

_COPIES = frozenset({
    "Abs", "Cast", "CastLike", "CenterCropPad", "Clip", "Compress", "Concat", "ConcatFromSequence", "Constant",
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Max",
    "MaxPool", "MaxUnpool", "Min", "Neg", "OptionalGetElement", "Pad", "Relu", "Reshape", "ReverseSequence", "Scatter",
    "ScatterElements", "ScatterND", "SequenceAt", "Sign", "Slice", "SpaceToDepth", "Split", "Squeeze", "TensorScatter",
    "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where",
})  # fmt: skip
"""Operators that compute no new number, so that they round nothing."""

_CANCELLING = frozenset({
    "BlackmanWindow", "Det", "DFT", "GridSample", "GroupNormalization", "HammingWindow", "HannWindow",
    "InstanceNormalization", "LayerNormalization", "MeanVarianceNormalization", "Resize", "RoiAlign", "STFT",
    "Upsample",
})  # fmt: skip
"""Operators that take differences inside: what they are given has noise too, and what is 0 need not be."""

_STEPPING = frozenset({"Ceil", "Floor", "Hardmax", "Mod", "Round", "Shrink", "Sign", "ThresholdedRelu", "TopK"})
"""Operators that jump, on floats."""

Dim = int | tuple[int, ...]
"""A size, or one size per world where they differ."""


class Unfit(Exception):
    """What was drawn cannot be part of the graph; the operator is left out."""


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the graph in every world.

    Attributes:
        name: in the graph.
        worlds: an array, or a list of arrays for a sequence, per world.
        grain: the coarsest rounding that it follows from; 0 for what is given.
    """

    name: str
    worlds: tuple[Any, ...]
    grain: float = 0.0

    @property
    def is_sequence(self) -> bool:
        return isinstance(self.worlds[0], list)

    @property
    def dtype(self) -> np.dtype:
        return self.worlds[0].dtype

    @property
    def rank(self) -> int:
        return self.worlds[0].ndim

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The sizes; those that differ between the worlds are dynamic."""
        sizes = zip(*(array.shape for array in self.worlds), strict=True)
        return tuple(each[0] if len(set(each)) == 1 else each for each in sizes)

    def is_static(self, *axes: int) -> bool:
        return all(isinstance(self.dims[axis], int) for axis in axes or range(self.rank))

    def within(self, low: float, high: float) -> bool:
        return all(array.size == 0 or (low <= array.min() and array.max() <= high) for array in self.worlds)


@dataclass
class Source:
    """What the scopes of one graph have in common.

    Attributes:
        tape: random bytes; every choice takes some off, and where they end, the simplest choice is made.
        runtime: whether only operators that ONNX Runtime has may be drawn.
        refused: told of every node that did not fit, and why.
        functions: the operators that may be drawn, by function; all where there is none.
        opset: of the graph.
        dynamic: whether dimensions may be symbolic.
        sizes: the sizes of the symbolic dimensions in every world, by name.
        rng: fills arrays.
    """

    tape: bytes
    runtime: bool
    refused: Callable[[str, str], None]
    functions: frozenset[str] = frozenset()
    opset: int = 0
    dynamic: bool = True
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    taken: int = 0
    count: int = 0

    def integer(self, low: int, high: int) -> int:
        """A number between two, the least where the tape has zeros."""
        width = max((high - low).bit_length() + 7, 8) // 8
        piece = self.tape[self.taken : self.taken + width].ljust(width, b"\0")
        self.taken += width
        return low + (int.from_bytes(piece) * (high - low + 1) >> 8 * width)

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def dimension(self, sizes: tuple[int, ...]) -> str:
        """The name of a symbolic dimension with these sizes."""
        for name, known in self.sizes.items():
            if known == sizes:
                return name
        name = self.fresh("dim")
        self.sizes[name] = sizes
        return name


@dataclass
class Scope:
    """A graph, or a subgraph of a node, that grows by one operator at a time.

    Attributes:
        source: what it shares with the graph around it.
        parent: the graph around it, whose values it sees.
        closed: whether it takes no inputs but those that it has.
    """

    source: Source
    parent: Scope | None = None
    closed: bool = False
    inputs: list[Value] = field(default_factory=list)
    symbols: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    # Choosing.

    @property
    def opset(self) -> int:
        return self.source.opset

    @property
    def depth(self) -> int:
        """How many graphs are around this one."""
        return int(self.closed) if self.parent is None else self.parent.depth + 1

    def choose(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def integer(self, low: int, high: int) -> int:
        return low if low == high else self.source.integer(low, high)

    def chance(self, percent: int) -> bool:
        """Whether something that happens in so many of a hundred cases happens."""
        return self.source.integer(0, 255) >= 256 - 2.56 * percent

    def real(self, low: float, high: float) -> float:
        """A number with few digits, which every dtype holds alike."""
        return low + (high - low) * self.integer(0, 16) / 16

    def maybe(self, value: T) -> T | None:
        return value if self.chance(50) else None

    def dtype(self, dtypes: Sequence[np.dtype]) -> np.dtype:
        """One of several, the first most often."""
        return dtypes[0] if self.chance(75) else self.choose(dtypes)

    def axis(self, value: Value, low: int = 0) -> int:
        """An axis, counted from either end, which is allowed since opset 11."""
        if value.rank <= low:
            raise Unfit
        axis = self.integer(low, value.rank - 1)
        return axis - value.rank if self.opset >= 11 and self.chance(30) else axis

    def dims(self, rank: int) -> tuple[Dim, ...]:
        return tuple(self.dim() for _ in range(rank))

    def dim(self) -> Dim:
        if self.source.dynamic and self.chance(30):
            return self.choose([self.source.sizes["n"], self.source.sizes["t"]])
        return self.choose([3, 2, 4, 1, 5, 6])

    # Values.

    def visible(self) -> list[Value]:
        outer = self.parent.visible() if self.parent is not None else []
        return outer + self.values

    def root(self) -> Scope:
        return self if self.parent is None else self.parent.root()

    def value(
        self,
        dtypes: Sequence[np.dtype] = FLOATS,
        rank: int | Sequence[int] | None = None,
        where: Callable[[Value], bool] = lambda value: True,
        fresh: Callable[[], Value] | None = None,
    ) -> Value:
        """A value that fits: one that is there, a late one more often, or else a new one."""
        ranks = range(7) if rank is None else (rank,) if isinstance(rank, int) else tuple(rank)
        found = [
            value
            for value in self.visible()
            if not value.is_sequence and value.dtype in dtypes and value.rank in ranks and where(value)
        ]
        if found and not self.chance(20):
            return self.choose((found[-4:] if self.chance(70) else found)[::-1])
        if fresh is not None:
            return fresh()
        few = [each for each in (3, 2, 4, 1, 5, 0) if each in ranks]
        new = self.leaf(self.dims(self.choose(few)), self.dtype(dtypes))
        if not where(new):
            raise Unfit
        return new

    def bounded(self, low: float, high: float, dtypes: Sequence[np.dtype] = FLOATS, rank: Any = None) -> Value:
        """A value whose elements lie between two numbers."""
        ranks = (3, 2, 4, 1) if rank is None else (rank,) if isinstance(rank, int) else tuple(rank)

        def fresh() -> Value:
            return self.leaf(self.dims(self.choose(ranks)), self.dtype(dtypes), low, high)

        return self.value(dtypes, rank, lambda value: value.within(low, high), fresh)

    def beside(self, value: Value, dtypes: Sequence[np.dtype] | None = None, low: float = -2, high: float = 2) -> Value:
        """A value that broadcasts with another."""

        def fits(other: Value) -> bool:
            pairs = zip(value.dims[::-1], other.dims[::-1], strict=False)
            return other.within(low, high) and all(a == b or a == 1 or b == 1 for a, b in pairs)

        def fresh() -> Value:
            start = self.integer(0, value.rank)
            dims = [1 if self.chance(30) else dim for dim in value.dims[start:]]
            return self.leaf(dims, self.dtype(dtypes or (value.dtype,)), low, high)

        return self.value(dtypes or (value.dtype,), None, fits, fresh)

    def array(self, shape: Sequence[int], dtype: np.dtype, low: float = -2, high: float = 2) -> np.ndarray:
        """Random elements between two numbers."""
        rng = self.source.rng
        if dtype == BOOL:
            return np.asarray(rng.random(tuple(shape)) < 0.5)
        if dtype in INTEGERS:
            least = max(math.ceil(low), 0) if dtype == U8 else math.ceil(low)
            return np.asarray(rng.integers(least, max(math.floor(high), least), tuple(shape), endpoint=True), dtype)
        found = rng.uniform(low, high, tuple(shape))
        if low == -2 and high == 2 and rng.random() < 0.2:
            found = np.round(found) + 0.0
        return np.asarray(np.clip(found, low, high), dtype)

    def leaf(self, dims: Sequence[Dim], dtype: np.dtype = F32, low: float = -2, high: float = 2) -> Value:
        """A new input of the graph, or an initializer where every size is static."""
        static = all(isinstance(dim, int) for dim in dims)
        if static and self.chance(35):
            return self.weight(dims, dtype, low, high)
        root = self.root()
        if root.closed or len(root.inputs) >= MAX_INPUTS:
            if not static:
                raise Unfit
            return self.weight(dims, dtype, low, high)
        shapes = [[dim if isinstance(dim, int) else dim[world] for dim in dims] for world in range(2)]
        arrays = [self.array(shape, dtype, low, high) for shape in shapes]
        if any(array.size > MAX_ELEMENTS for array in arrays):
            raise Unfit
        value = Value(self.source.fresh("x"), (*arrays, *arrays))
        root.inputs.append(value)
        root.symbols[value.name] = tuple(dims)
        root.values.append(value)
        return value

    def weight(self, dims: Sequence[Any], dtype: np.dtype = F32, low: float = -2, high: float = 2) -> Value:
        """A new initializer; all sizes are static."""
        if not all(isinstance(dim, int) for dim in dims):
            raise Unfit
        return self.given(self.array(dims, dtype, low, high), "w")

    def ints(self, numbers: Any, dtype: np.dtype = I64) -> Value:
        """Integers that are known before the graph runs."""
        return self.given(np.asarray(numbers, dtype), "c")

    def given(self, array: np.ndarray, stem: str = "c") -> Value:
        """An array as an initializer or a Constant.

        A setting in floats, such as the scales of a Resize, is for its operator alone: what else read it would make a
        weight of it.
        """
        if array.size > MAX_ELEMENTS:
            raise Unfit
        value = Value(self.source.fresh(stem), (array,) * 4)
        tensor = numpy_helper.from_array(array, value.name)
        scope = self if stem == "c" or self.chance(50) else self.root()
        if stem == "c" and self.chance(40):
            self.nodes.append(helper.make_node("Constant", [], [value.name], value=tensor))
        else:
            scope.initializers.append(tensor)
        if stem == "w" or array.dtype not in GRAIN:
            scope.values.append(value)
        return value

    # Nodes.

    def op(self, op_type: str, *inputs: Value | None, **attributes: Any) -> Value:
        """A node with one output."""
        return self.ops(op_type, inputs, (True,), **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[Value | None], outputs: Sequence[bool] = (True,), **attributes: Any
    ) -> list[Value]:
        """A node with the outputs that are wanted; an attribute that is None is left to its default.

        Raises:
            Unfit: the node is not valid, or hangs on the last bit.
        """
        given = list(inputs)
        while given and given[-1] is None and not self.chance(20):
            given.pop()
        names = [self.source.fresh("v") if wanted else "" for wanted in outputs]
        node = helper.make_node(
            op_type,
            ["" if value is None else value.name for value in given],
            names,
            name=self.source.fresh("node") if self.chance(50) else "",
            **{name: value for name, value in attributes.items() if value is not None and value != []},
        )
        if self.source.runtime and self._casts_again(node):
            raise Unfit
        read = {value.name: value for value in given if value is not None} | self._captured(node)
        try:
            found = self._evaluated(node, read)
        except (oracle.NoOracle, Unfit) as error:
            self.source.refused(op_type, str(error))
            raise Unfit from error
        self.nodes.append(node)
        self.values.extend(found)
        return found

    def _casts_again(self, node: onnx.NodeProto) -> bool:
        """ONNX Runtime takes the second of two casts away, also from the branches that read it."""
        casts = ("Cast", "CastLike")
        return node.op_type in casts and any(
            node.input[0] in made.output for made in self.nodes if made.op_type in casts
        )

    def _captured(self, node: onnx.NodeProto) -> dict[str, Value]:
        known = {value.name: value for value in self.visible()}
        return {name: known[name] for name in free_names(node) if name in known}

    def _evaluated(self, node: onnx.NodeProto, read: Mapping[str, Value]) -> list[Value]:
        feeds = [{name: value.worlds[world] for name, value in read.items()} for world in range(4)]
        if node.op_type in _CANCELLING:
            feeds[2:] = [{name: self._noisy(array, zeros=True) for name, array in f.items()} for f in feeds[2:]]
        types = oracle.inferred_types(node, feeds[0], self.opset)
        if self.source.runtime:
            oracle.check_runtime(node, feeds[:2], self.opset)
        results = oracle.evaluate(node, feeds, self.opset)
        given = max((value.grain for value in read.values()), default=0.0)
        if node.op_type not in _COPIES:
            given = max([given, *(grain_of(value.worlds[0]) for value in read.values())])
        found = []
        for place, name in enumerate(name for name in node.output if name):
            worlds = [results[world][place] for world in range(4)]
            for array in worlds:
                _check_array(array, types[name])
            if not isinstance(worlds[0], list) and len({array.ndim for array in worlds}) > 1:
                raise Unfit("a rank that depends on sizes")
            grain = given
            if node.op_type not in _COPIES or 0 < given < grain_of(worlds[0]):
                grain = max(given, grain_of(worlds[0]))
                worlds[2:] = [self._noisy(array, zeros=node.op_type in _CANCELLING) for array in worlds[2:]]
            for exact, noisy in zip(worlds[:2], worlds[2:], strict=True):
                check_noise(exact, noisy, grain)
            found.append(Value(name, tuple(worlds), grain))
        if given and (node.op_type in _STEPPING or any(grain_of(value.worlds[0]) == 0 for value in found)):
            self._check_again(node, read, found)
        return found

    def _check_again(self, node: onnx.NodeProto, read: Mapping[str, Value], found: Sequence[Value]) -> None:
        """More noise: of two elements that are alike, one draw leaves the same one the larger in half of all cases.

        Raises:
            Unfit: a choice hangs on the last bit.
        """
        for world in (2, 3) * 4:
            feed = {
                name: self._noisy(value.worlds[world], zeros=False) if value.grain else value.worlds[world]
                for name, value in read.items()
            }
            (results,) = oracle.evaluate(node, [feed], self.opset)
            for value, result in zip(found, results, strict=True):
                check_noise(value.worlds[world - 2], result, 2 * value.grain)

    def _noisy(self, array: Any, zeros: bool) -> Any:
        if isinstance(array, list) or array.dtype not in GRAIN or array.size == 0:
            return array
        wide = array.astype(np.float64)
        rng = self.source.rng
        size = np.abs(wide) + 0.1 * max(np.abs(wide).max(), FLOOR * zeros) * (zeros | (wide != 0))
        return (wide + GRAIN[array.dtype] * size * rng.uniform(-1, 1, wide.shape)).astype(array.dtype)

    # Trying.

    def attempt(self, operator: Callable[[Scope], object]) -> bool:
        """Let an operator add its nodes; all of them or none."""
        scopes: list[Scope] = []
        scope: Scope | None = self
        while scope is not None:
            scopes.append(scope)
            scope = scope.parent
        marks = [(each, len(each.nodes), len(each.values), len(each.initializers), len(each.inputs)) for each in scopes]
        try:
            operator(self)
        except Unfit:
            for each, nodes, values, initializers, inputs in marks:
                del each.nodes[nodes:], each.values[values:], each.initializers[initializers:], each.inputs[inputs:]
            return False
        return True

    def inner(self) -> Scope:
        """A subgraph, which sees what is there."""
        return Scope(self.source, self)


def grain_of(array: Any) -> float:
    """The noise that an array has where it is computed; 0 for integers."""
    if isinstance(array, list):
        return max(map(grain_of, array), default=0.0)
    return GRAIN.get(array.dtype, 0.0)


def free_names(node: onnx.NodeProto) -> set[str]:
    """What the subgraphs of a node read from outside."""
    found: set[str] = set()
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []
        for graph in graphs:
            inside = {each.name for each in (*graph.input, *graph.initializer)}
            for each in graph.node:
                found |= ({name for name in each.input if name} | free_names(each)) - inside
                inside |= set(each.output)
            found |= {each.name for each in graph.output} - inside
    return found


def _check_array(array: Any, kind: onnx.TypeProto) -> None:
    """What the evaluator found is what the standard infers, and of a size that can be compared."""
    if isinstance(array, list):
        return
    if not isinstance(array, np.ndarray):
        raise Unfit("an output that is no tensor")
    wanted = kind.tensor_type.elem_type
    if wanted and wanted != oracle.tensor_type(array):
        raise Unfit(f"ORACLE dtype {array.dtype}, the standard infers {wanted}")
    if array.size > MAX_ELEMENTS or array.ndim > 6:
        raise Unfit("too large")
    if array.dtype in GRAIN:
        wide = array.astype(np.float64)
        if not np.isfinite(wide).all() or (array.size and np.abs(wide).max() > LIMIT):
            raise Unfit("not finite or too large")
    elif array.dtype.kind in "iu" and array.size and max(abs(int(array.min())), abs(int(array.max()))) > 2**31:
        raise Unfit("too large")


def check_noise(exact: Any, noisy: Any, grain: float) -> None:
    """The noise has changed nothing but the last bits.

    Raises:
        Unfit: it has.
    """
    if isinstance(exact, list):
        if len(exact) != len(noisy):
            raise Unfit("noise")
        for one, other in zip(exact, noisy, strict=True):
            check_noise(one, other, grain)
        return
    if exact.shape != noisy.shape:
        raise Unfit("noise")
    if exact.size == 0:
        return
    if exact.dtype not in GRAIN:
        if not np.array_equal(exact, noisy):
            raise Unfit("noise")
        return
    if difference(exact, noisy) > 20 * max(grain, GRAIN[exact.dtype]):
        raise Unfit("noise")


def difference(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest difference, relative to the largest element."""
    wide = wanted.astype(np.float64)
    return float(np.abs(wide - found.astype(np.float64)).max() / max(np.abs(wide).max(), FLOOR))
