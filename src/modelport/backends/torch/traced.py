"""The forms in which an operator's function may take an input, named by the annotation of its parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.registry import CannotBuild


class Tensor(fx.Proxy):
    """A tensor of the graph under construction; torch functions called on it become nodes.

    The inputs of an operator also know what the portable graph says of them: `rank`, `dims` and `element`.
    """

    def __init__(self, node: fx.Node, tracer: fx.Tracer, value: ir.Value | None = None) -> None:
        super().__init__(node, tracer)
        self.value = value

    @property
    def rank(self) -> int:
        """The number of axes.

        Raises:
            CannotBuild: shape inference does not know it.
        """
        if self.value is None or self.value.shape is None:
            name = self.node.name if self.value is None else self.value.name
            raise CannotBuild(f"the rank of {name!r} is not known; export the model with the shapes of its inputs")
        return len(self.value.shape)

    @property
    def dims(self) -> tuple[int | None, ...]:
        """The static sizes; `None` for a symbolic one."""
        known = range(self.rank)
        shape = cast(ir.Value, self.value).shape
        return tuple(dim if isinstance(dim, int) else None for dim in cast(ir.Shape, shape)) if known else ()

    @property
    def element(self) -> torch.dtype:
        """The dtype.

        Raises:
            CannotBuild: type inference does not know it, or torch has none like it.
        """
        if self.value is None or self.value.dtype is None:
            raise CannotBuild(f"the dtype of {self.node.name!r} is not known")
        return torch_dtype(self.value.dtype)

    def size_of(self, axis: int) -> Any:
        """One size: an `int` where it is static, else a traced `size(axis)`."""
        return self.dims[axis] if self.dims[axis] is not None else self.size(axis)


class Held(fx.Proxy):
    """What is no tensor of torch when the module runs: a list of them, `None` or a tensor, an array of strings."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, value: ir.Value) -> None:
        super().__init__(node, tracer)
        self.value = value


@dataclass(frozen=True, eq=False)
class Ints:
    """A small integer or boolean tensor of rank 0 or 1 that is kept as Python numbers.

    Sizes stay numbers from `Shape` to `Reshape`, so that the built module can be exported again with dynamic sizes.

    Attributes:
        items: numbers, or traced sizes.
        rank: 0 or 1.
        dtype: what the portable graph calls it.
    """

    items: tuple[Any, ...]
    rank: int = 1
    dtype: ir.DataType = ir.DataType.INT64

    @property
    def known(self) -> bool:
        return not any(isinstance(item, fx.Proxy) for item in self.items)

    def array(self) -> np.ndarray:
        return np.array(self.items if self.rank else self.items[0], self.dtype.numpy())


@dataclass(frozen=True, eq=False)
class Constant:
    """An initializer that is not a weight."""

    value: ir.Value
    array: np.ndarray


@dataclass(frozen=True, eq=False)
class WeightRef:
    """An initializer that is a weight: a parameter, a frozen parameter or a buffer."""

    value: ir.Value
    name: str

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes."""
        assert self.value.const_value is not None
        return tuple(self.value.const_value.shape.numpy())


@dataclass(frozen=True, eq=False)
class Items:
    """A sequence of tensors whose length is known; it exists while building only."""

    tensors: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Nothing:
    """An optional that is known to be empty."""


@dataclass(frozen=True, eq=False)
class Body:
    """A graph inside a node, as a module.

    Attributes:
        module: takes the graph's own inputs, then what it uses from around it; gives a tuple.
        arguments: what it uses from around it.
        around: the values that these are, in order.
    """

    module: fx.GraphModule
    arguments: tuple[Any, ...]
    around: tuple[ir.Value, ...]


Operand = Tensor | Held | Ints | Constant | WeightRef | Items | Nothing
"""What a value of the portable graph is during the build."""

Sizes = Annotated[list[Any], "sizes"]
"""A list of numbers or traced sizes (`Reshape`'s shape)."""

Size = Annotated[Any, "size"]
"""One number or traced size (`TopK`'s k)."""

Scalar = Annotated[Any, "scalar"]
"""A Python number where the value is known, else a tensor."""

Array = Annotated[np.ndarray, "array"]
"""A known value; the operator cannot be built without it."""

Weight = Annotated[Any, "operand"]
"""The `Operand` itself: a layer asks which weight it is."""


def is_tensor(value: ir.Value) -> bool:
    """Whether torch can hold a value of the portable graph as a tensor; one of an unknown type is taken for that."""
    if isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return False
    return value.dtype != ir.DataType.STRING
