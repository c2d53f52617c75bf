"""Modules that stay one node of ONNX on their way home.

What only the run decides, and what runs on the host, torch cannot trace. While a model is traced to be exported, such
a module is one call of an operator instead, which stands for the node that the module was built from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import onnx
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.dtypes import NARROW, from_numpy, torch_dtype
from modelport.backends.torch.registry import CannotBuild
from modelport.graph.host import HostNode
from modelport.graph.names import make_names_unique
from modelport.graph.shapes.expr import Expr, parse
from modelport.graph.splice import is_text
from modelport.graph.upgrade.to_newest import STABLE_OPSET

TEXT = torch.uint8
"""The dtype of the tensors that stand for strings while a model is traced; only these modules touch them."""

Dims = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Given:
    """One value that a node takes, found among the arguments of its module.

    Attributes:
        places: the argument that it is, or those that hold its unknown sizes.
        sizes: where it is a vector of sizes (or one size), these; `None` for one that an argument holds.
        dims: of the value, as far as the graph knows them.
        dtype: of the value, `TEXT` for strings.
    """

    places: tuple[int, ...]
    sizes: tuple[int | None, ...] | None
    dims: Dims | None
    dtype: torch.dtype

    def value(self, arguments: Sequence[Any]) -> torch.Tensor | None:
        """The value as one tensor; `None` where it is none, or another than the node was built for."""
        if self.sizes is None:
            found = arguments[self.places[0]]
            if isinstance(found, torch.Tensor):
                return found if found.dtype == self.dtype else self._widened(found)
            parts = [found]
        else:
            unknown = iter(self.places)
            parts = [arguments[next(unknown)] if size is None else size for size in self.sizes]
        if not all(isinstance(part, (int, torch.SymInt, torch.SymBool, torch.Tensor)) for part in parts):
            return None
        scalars = [part if isinstance(part, torch.Tensor) else torch.scalar_tensor(part) for part in parts]
        scalars = [scalar.to(self.dtype) for scalar in scalars]
        return torch.stack(scalars) if self.dims else scalars[0]

    def _widened(self, found: torch.Tensor) -> torch.Tensor | None:
        """A value of a narrower floating dtype than the node was built for, as `model.half()` makes it."""
        floating = found.is_floating_point() and self.dtype.is_floating_point
        fits = floating and torch.promote_types(found.dtype, self.dtype) == self.dtype
        return found.to(self.dtype) if fits else None


@dataclass(frozen=True)
class Result:
    """One value that a node gives: its dims as far as the graph knows them, and its dtype; `TEXT` for strings."""

    dims: Dims
    dtype: torch.dtype
    text: bool


@dataclass(frozen=True)
class Whole:
    """What a module computes, as the ONNX node that it was built from.

    Attributes:
        node: with its graphs and constants; weights are among the values that it takes.
        given: how each value that it takes is found among the arguments of the module.
        results: what it gives.
    """

    node: HostNode
    given: tuple[Given, ...]
    results: tuple[Result, ...]

    def shapes(self, values: Sequence[torch.Tensor]) -> list[list[Any]]:
        """The sizes of the results for some values; a size that does not follow from theirs is a new symbol."""
        sizes: dict[str, Any] = {}
        for given, value in zip(self.given, values, strict=True):
            for dim, size in zip(given.dims or (), value.shape, strict=False):
                if isinstance(dim, str):
                    sizes.setdefault(dim, size)
        return [[_size(dim, sizes) for dim in result.dims] for result in self.results]


def _size(dim: int | str | None, sizes: dict[str, Any]) -> Any:
    if isinstance(dim, int):
        return dim
    if dim is None:
        return torch.library.get_ctx().new_dynamic_size()
    if dim not in sizes:
        size = parse(dim)
        followed = isinstance(size, Expr) and size.symbols() <= set(sizes) and _is_whole(size)
        new = torch.library.get_ctx().new_dynamic_size
        sizes[dim] = size.compute(sizes.__getitem__) if followed and isinstance(size, Expr) else new()
    return sizes[dim]


def _is_whole(size: Expr) -> bool:
    """Whether torch's symbols take the arithmetic of a size: they know no fractions."""
    return size.is_polynomial() and all(isinstance(factor, int) for factor in size.terms.values())


def whole_node(
    node: ir.Node, host: tuple[HostNode, Sequence[ir.Value]], found: Mapping[ir.Value, tuple[Sequence[int], Any]]
) -> Whole | None:
    """A node as what its module stands for on the way home; `None` where it takes or gives what no tensor stands for.

    Args:
        node: the node.
        host: the node apart from its graph, and the values that it takes.
        found: which arguments of the module each value is, and its sizes where it is made of some (see `Given`).
    """
    program, values = host
    if any(value not in found for value in values):
        return None
    try:
        given = tuple(Given(tuple(found[v][0]), found[v][1], _dims(v), _dtype(v)) for v in values)
        results = tuple(_result(value) for value in node.outputs)
    except CannotBuild:
        return None
    return Whole(program, given, results)


def _result(value: ir.Value) -> Result:
    dims = _dims(value)
    if dims is None:
        raise CannotBuild(f"the rank of {value.name!r} is not known")
    return Result(dims, _dtype(value), is_text(value))


def _dims(value: ir.Value) -> Dims | None:
    shape = value.shape
    return None if shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in shape)


def _dtype(value: ir.Value) -> torch.dtype:
    if not isinstance(value.type, ir.TensorType) or value.dtype in NARROW or value.dtype is None:
        raise CannotBuild(f"{value.name!r} is no tensor of torch")
    return TEXT if value.dtype == ir.DataType.STRING else torch_dtype(value.dtype)


_KEEPING: ContextVar[bool] = ContextVar("keeping", default=False)
_KEPT: WeakValueDictionary[str, Whole] = WeakValueDictionary()


@contextmanager
def keeping_whole() -> Iterator[None]:
    """While it is entered, modules that know the node they were built from are one call of an operator."""
    token = _KEEPING.set(True)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def is_keeping() -> bool:
    """Whether modules are kept whole now."""
    return _KEEPING.get()


def kept(whole: Whole | None, arguments: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
    """The results of a module as one call of an operator; `None` where the module has to run."""
    if whole is None or not _KEEPING.get():
        return None
    values = [given.value(arguments) for given in whole.given]
    if any(value is None for value in values):
        return None
    key = f"{whole.node.op_type}_{id(whole):x}"
    _KEPT[key] = whole
    results = torch.ops.modelport.whole(values, key)
    narrow = {a.dtype for a in arguments if isinstance(a, torch.Tensor) and a.is_floating_point()}
    narrow -= {result.dtype for result in whole.results} | {given.dtype for given in whole.given}
    if len(narrow) != 1:
        return tuple(results)
    dtype = narrow.pop()
    return tuple(result.to(dtype) if result.is_floating_point() else result for result in results)


_LIBRARY = torch.library.Library("modelport", "FRAGMENT")
_LIBRARY.define("whole(Tensor[] values, str key) -> Tensor[]")


def _fake(values: Sequence[torch.Tensor], key: str) -> list[torch.Tensor]:
    whole = _KEPT[key]
    device = next((value.device for value in values), torch.device("cpu"))
    found = zip(whole.shapes(values), whole.results, strict=True)
    return [torch.empty(sizes, dtype=result.dtype, device=device) for sizes, result in found]


def _computed(values: Sequence[torch.Tensor], key: str) -> list[torch.Tensor]:
    # torch asks for the numbers only where all values are constants of one element.
    whole = _KEPT[key]
    results = whole.node(*(value.cpu().numpy() for value in values))
    device = next((value.device for value in values), torch.device("cpu"))
    return [from_numpy(result).to(device) for result in results]


torch.library.register_fake("modelport::whole", _fake, lib=_LIBRARY)
_LIBRARY.impl("whole", _computed, "CompositeExplicitAutograd")


@cache
def _schema(count: int) -> onnx.defs.OpSchema:
    schema = onnx.defs.OpSchema
    kinds = ["tensor(float)", "tensor(float16)", "tensor(double)", "tensor(bfloat16)", "tensor(bool)", "tensor(int8)"]
    kinds += [f"tensor({name})" for name in ("int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")]
    options = schema.FormalParameterOption
    inputs = schema.FormalParameter("inputs", "T", param_option=options.Variadic, is_homogeneous=False)
    outputs = [schema.FormalParameter(f"output_{i}", "T") for i in range(count)]
    key = schema.Attribute("key", schema.AttrType.STRING, required=True)
    return schema(
        "whole", "modelport", 1, inputs=[inputs], outputs=outputs, type_constraints=[("T", kinds, "")], attributes=[key]
    )  # fmt: skip


def translate(values: Sequence[Any], key: str) -> Any:
    """Stands in the graph until `lower_whole` puts the node there."""
    count = len(_KEPT[key].results)
    operator = onnxscript.values.Op(onnxscript.values.Opset("modelport", 1), "whole", _schema(count))
    results = operator(*values, key=key)
    return [results] if count == 1 else results


def lower_whole(model: ir.Model) -> None:
    """Put the node of every module that was kept whole where its call is, in place."""
    found = [node for node in model.graph if (node.domain, node.op_type) == ("modelport", "whole")]
    for call in found:
        _lower(call, _KEPT[call.attributes["key"].as_string()], model)
    if found:
        make_names_unique(model)


def _lower(call: ir.Node, whole: Whole, model: ir.Model) -> None:
    program = ir.serde.deserialize_model(onnx.ModelProto.FromString(whole.node.program))
    inner, graph = program.graph, model.graph
    for value, given in zip(inner.inputs, call.inputs, strict=True):
        assert given is not None
        value.replace_all_uses_with(given)
    for name, value in list(inner.initializers.items()):
        del inner.initializers[name]
        value.name = f"{call.name}/{name}"
        graph.register_initializer(value)
    (node,) = inner
    inner.outputs.clear()
    inner.remove(node)
    node.metadata_props.update(call.metadata_props)
    node.name = call.name
    graph.insert_before(call, node)
    for old, new, result in zip(call.outputs, node.outputs, whole.results, strict=True):
        new.name, new.shape = old.name, old.shape
        new.type = ir.TensorType(ir.DataType.STRING) if result.text else old.type
        old.name = None
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(call, safe=True)
    for each in (node, *(n for inside in node.attributes.values() for n in _nodes(inside))):
        version = _needed(each) if not each.domain else program.graph.opset_imports[each.domain]
        graph.opset_imports[each.domain] = max(version, graph.opset_imports.get(each.domain, 1))
        each.version = None


def _nodes(attribute: ir.Attr) -> Iterator[ir.Node]:
    if attribute.type == ir.AttributeType.GRAPH:
        yield from attribute.as_graph().all_nodes()


def _needed(node: ir.Node) -> int:
    """The first opset that has a node's operator with its attributes."""
    newest = onnx.defs.get_schema(node.op_type)
    try:
        schema = onnx.defs.get_schema(node.op_type, STABLE_OPSET)
    except onnx.defs.SchemaError:
        return int(newest.since_version)
    return STABLE_OPSET if set(node.attributes) <= set(schema.attributes) else int(newest.since_version)
