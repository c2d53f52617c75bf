"""Values of the portable graph in the form that an operator's function takes them."""

from __future__ import annotations

import re
import typing
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from modelport.backends.torch.dtypes import STORAGE_ONLY, from_numpy, torch_dtype
from modelport.backends.torch.host import constant_on_host
from modelport.backends.torch.registry import CannotBuild
from modelport.backends.torch.traced import (
    Array,
    Constant,
    Held,
    Ints,
    Items,
    Nothing,
    Operand,
    Scalar,
    Size,
    Sizes,
    Tensor,
    Weight,
    WeightRef,
    is_tensor,
)
from modelport.backends.torch.weights import Weights
from modelport.core.report import Note, NoteKind

MAX_SIZES = 64
"""Longer integer vectors are data, not sizes."""

_SIZE_TYPES = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


class _Tracer(fx.Tracer):
    """Makes `Tensor` proxies; nodes are recorded as plain calls of torch."""

    def proxy(self, node: fx.Node) -> Tensor:
        return Tensor(node, self)


class Operands:
    """The graph under construction, and every form of a value in it.

    Attributes:
        graph: the `torch.fx.Graph` that takes the nodes.
        constants: holds the constant tensors. It is an `nn.Identity` on the path of the first input, because
            `GraphModule` copies a called module whole: the tensors then stay out of `state_dict` in every copy too.
        weights: the weights of the module.
        notes: what does not cross as it is.
    """

    def __init__(self, weights: Weights) -> None:
        self.graph = fx.Graph()
        self.constants = torch.nn.Identity()
        self.weights = weights
        self._tracer = _Tracer()
        self._tracer.graph = self.graph
        self._tracer.root = weights.root
        self.notes: list[Note] = []
        self._cache: dict[int, tuple[Operand, Tensor]] = {}
        self._anchor: Tensor | None = None

    def wrap(self, node: fx.Node, value: ir.Value | None = None) -> Tensor:
        """A node as a tensor; `value` is what the portable graph says of it."""
        return Tensor(node, self._tracer, value)

    def settle(self, node: fx.Node, value: ir.Value) -> Tensor | Held:
        """A node as what the portable graph says of its value."""
        return self.wrap(node, value) if is_tensor(value) else Held(node, self._tracer, value)

    def create(self, kind: str, target: Any, *args: Any, name: str | None = None) -> Tensor:
        """A new node."""
        return typing.cast(Tensor, self._tracer.create_proxy(kind, target, args, {}, name=name))

    def call(self, path: str, *args: Any) -> Tensor:
        """The result of the module at a path."""
        return self.create("call_module", path, *args)

    def note(self, kind: NoteKind, node: ir.Node, message: str) -> None:
        """Say what the module does not do as the graph does."""
        self.notes.append(Note(kind, node.name or node.op_type, message))

    @cached_property
    def anchor(self) -> Tensor:
        """A tensor on the model's device, from which operators without an input make theirs."""
        return self._anchor if self._anchor is not None else self._register("anchor", np.zeros(0, np.float32))

    def set_anchor(self, tensor: Tensor) -> None:
        """Take the first input tensor for the anchor; later calls change nothing."""
        self._anchor = self._anchor if self._anchor is not None else tensor

    def convert(self, operand: Operand | None, hint: Any) -> Any:
        """An operand in the form that an annotation names.

        Raises:
            CannotBuild: the value is not known while building, and the form needs it.
        """
        forms = {Sizes: self.sizes, Size: self.size, Scalar: self.scalar, Array: self.array, Tensor: self.tensor}
        if operand is None or hint == Weight or hint == (Weight | None):
            return operand
        for form, convert in forms.items():
            if hint == form or hint == (form | None):
                return convert(operand)
        raise TypeError(f"an operator's function annotates an input as {hint}")

    def tensor(self, operand: Operand) -> Tensor:
        """As a tensor; one node per value, however often it is asked for."""
        if isinstance(operand, Tensor):
            return operand
        if isinstance(operand, (Held, Items, Nothing)):
            raise CannotBuild("it takes a sequence, an optional or strings where torch has tensors only")
        if id(operand) not in self._cache:
            # The operand is kept beside its tensor, so that its id stays its own.
            self._cache[id(operand)] = (operand, self._materialise(operand))
        return self._cache[id(operand)][1]

    def argument(self, operand: Operand | None) -> Any:
        """As the module hands it on: a tensor, a list of tensors, or `None`."""
        if isinstance(operand, Items):
            return [self.argument(item) for item in operand.tensors]
        if operand is None or isinstance(operand, Nothing):
            return None
        if isinstance(operand, Held):
            return operand
        if isinstance(operand, Constant) and not is_tensor(operand.value):
            return self.text(operand)
        return self.tensor(operand)

    def text(self, operand: Constant) -> Any:
        """A constant of strings, which no buffer holds."""
        return self.call(self.add_module("text", constant_on_host(operand.value)))[0]

    def add_module(self, name: str, module: torch.nn.Module) -> str:
        """Put a module that is no layer of the source into the tree; its path."""
        path = self.weights.free(identifier(name))
        self.weights.add(path, module)
        return path

    def _materialise(self, operand: Constant | WeightRef | Ints) -> Tensor:
        if isinstance(operand, WeightRef):
            path = self.weights.path(operand.name)
            return self.wrap(self.create("get_attr", path, name=identifier(path)).node, operand.value)
        if isinstance(operand, Constant):
            return self._register(operand.value.name or "constant", operand.array, operand.value)
        value = ir.Value(type=ir.TensorType(operand.dtype), shape=ir.Shape([len(operand.items)] * operand.rank))
        if operand.known:
            return self._register("sizes", operand.array(), value)
        dtype = torch_dtype(operand.dtype)
        parts = [self.anchor.new_full((), item, dtype=dtype) for item in operand.items]
        made = typing.cast(Tensor, torch.stack(parts) if operand.rank else parts[0])
        return self.wrap(made.node, value)

    def stored(self, name: str, array: np.ndarray) -> Tensor:
        """A constant that the module keeps out of its state."""
        return self._register(name, array)

    def _register(self, name: str, array: np.ndarray, value: ir.Value | None = None) -> Tensor:
        name = stem = identifier(name)
        count = 0
        while hasattr(self.constants, name):
            count += 1
            name = f"{stem}_{count}"
        self.constants.register_buffer(name, from_numpy(np.array(array)), persistent=False)
        return self.wrap(self.create("get_attr", f"{self.weights.constants_path}.{name}", name=name).node, value)

    def ints(self, operand: Operand | None) -> Ints | None:
        """As sizes, if it is one already or a small integer constant; else `None`."""
        if isinstance(operand, Ints):
            return operand
        if not isinstance(operand, Constant) or operand.array.ndim > 1 or operand.array.size > MAX_SIZES:
            return None
        dtype = ir.DataType.from_numpy(operand.array.dtype)
        if dtype not in _SIZE_TYPES:
            return None
        return Ints(tuple(operand.array.reshape(-1).tolist()), operand.array.ndim, dtype)

    def sizes(self, operand: Operand) -> list[Any]:
        """As a list of numbers or traced sizes; a tensor is read when the module runs."""
        if isinstance(operand, Ints):
            return list(operand.items)
        if isinstance(operand, Constant):
            return typing.cast(list[Any], operand.array.reshape(-1).tolist())
        tensor = self.tensor(operand)
        if tensor.rank == 0:
            return [tensor.item()]
        count = tensor.dims[0]
        if count is None:
            raise CannotBuild(f"the length of {tensor.node.name!r} is not known; give it a static shape")
        values = tensor.tolist()
        return [values[index] for index in range(count)]

    def size(self, operand: Operand) -> Any:
        """As one number or traced size."""
        if isinstance(operand, (Ints, Constant)):
            return self.sizes(operand)[0]
        return self.tensor(operand).item()

    def scalar(self, operand: Operand) -> Any:
        """As a Python number where a single value is known, else as a tensor."""
        if isinstance(operand, Ints) and operand.rank == 0:
            return operand.items[0]
        if isinstance(operand, Constant) and operand.array.ndim == 0 and operand.array.dtype.kind in "fiub":
            return operand.array.item()
        return self.tensor(operand)

    def array(self, operand: Operand) -> np.ndarray:
        """As a known value.

        Raises:
            CannotBuild: the value is computed when the model runs.
        """
        if isinstance(operand, Constant):
            return operand.array
        if isinstance(operand, Ints) and operand.known:
            return operand.array()
        raise CannotBuild("an input that must be constant is computed by the model; make it an initializer")

    def widened(self, tensor: Tensor) -> Tensor:
        """The tensor in int64 if torch has no arithmetic for its dtype."""
        if tensor.value is None or tensor.value.dtype is None or tensor.element not in STORAGE_ONLY:
            return tensor
        return self.wrap(tensor.to(torch.int64).node, tensor.value)


def identifier(name: str) -> str:
    """A name as a Python identifier."""
    text = re.sub(r"\W+", "_", name.removesuffix("_output_0")).strip("_") or "value"
    return f"value_{text}" if text[0].isdigit() else text
