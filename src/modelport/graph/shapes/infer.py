"""The shape of every value of a graph, as expressions over the named dimensions of its inputs.

ONNX's own inference does each operator; what it lacks is beside it: arithmetic on symbolic dimensions (`shape_rules`,
`shape_windows`, `shape_subgraphs`), and the contents of the small integer tensors that shapes are computed in
(`shape_values`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import onnx
import onnx.shape_inference
import onnx_ir as ir

from modelport.graph.shapes.bodies import SUBGRAPHS
from modelport.graph.shapes.expr import Expr, Size, parse
from modelport.graph.shapes.info import FOLLOWED, MAX_ELEMENTS, ShapeInfo, Site, Source, as_objects, record, stated_dim
from modelport.graph.shapes.rules import RULES
from modelport.graph.shapes.untold import UNTOLD, Typed
from modelport.graph.shapes.values import VALUES
from modelport.graph.shapes.windows import WINDOWS
from modelport.graph.weights import roles

__all__ = ["ShapeInfo", "Source", "infer"]


def infer(model: ir.Model) -> ShapeInfo:
    """Infer the shape of every value, those in subgraphs too; the graph is left as it was.

    Shapes that the graph states already (an exporter's) fill what cannot be inferred.

    Args:
        model: local functions inlined.

    Returns:
        The dims of every value whose rank is known, and the elements of the small tensors that shapes are made of.
    """
    info = ShapeInfo()
    weights = roles(model)
    _read_inputs(model.graph.inputs, info)
    for name, value in model.graph.initializers.items():
        _read_constant(value, info, is_weight=name in weights)
    _walk(model.graph, info, model.graph.opset_imports)
    return info


def _walk(graph: ir.Graph, info: ShapeInfo, opsets: dict[str, int]) -> None:
    """Infer the nodes of a graph whose inputs are recorded."""
    for node in graph:
        key = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if key in SUBGRAPHS:
            SUBGRAPHS[key](node, info, lambda inner: _walk(inner, info, opsets))
            continue
        site = Site(node, info)
        found: dict[ir.Value, Typed] = dict(_infer_with_onnx(node, info, opsets))
        if key in UNTOLD:
            found[node.outputs[0]] = UNTOLD[key](site)
        rule = RULES.get(key) or WINDOWS.get(key)
        dims = None if rule is None else rule(site)
        for index, value in enumerate(node.outputs):
            own = dims[index] if dims is not None and index < len(dims) else None
            record(value, info, found.get(value, (None, None)), own)
        values = VALUES.get(key)
        arrays = values(site) if values is not None else None
        for index, value in enumerate(node.outputs):
            info.set_elements(value, arrays[index] if arrays is not None and index < len(arrays) else None)


def _read_inputs(inputs: Iterable[ir.Value], info: ShapeInfo) -> None:
    values = list(inputs)
    stated = [(value, axis, dim) for value in values for axis, dim in enumerate(value.shape or ())]
    names = [(value, axis, dim.value) for value, axis, dim in stated if isinstance(dim, ir.SymbolicDim) and dim.value]
    # A dim "2*seq" is a formula where another input has the dim "seq", and only a name where none has.
    for value, axis, name in sorted(names, key=lambda item: not item[2].isidentifier()):
        size = None if name.isidentifier() else parse(name)
        if not (isinstance(size, Expr) and size.symbols() <= info.sources.keys()):
            info.sources.setdefault(name, Source(str(value.name), axis, None, True))
    for value in values:
        dims = None if value.shape is None else [stated_dim(dim, info) for dim in value.shape]
        info.set(value, value.type, dims, is_input=True)
        info.set_elements(value, None)


def _read_constant(value: ir.Value, info: ShapeInfo, is_weight: bool = False) -> None:
    tensor = value.const_value
    if tensor is None:
        info.set(value, value.type, None if value.shape is None else [stated_dim(d, info) for d in value.shape])
        return
    info.set(value, ir.TensorType(tensor.dtype), [int(dim) for dim in tensor.shape.numpy()])
    if not is_weight and tensor.dtype in FOLLOWED and tensor.size <= MAX_ELEMENTS:
        info.set_elements(value, as_objects(tensor.numpy()))


@cache
def _schema(op_type: str, version: int, domain: str) -> Any:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:  # no operator of ONNX, or a newer one than this opset
        return None


def _infer_with_onnx(
    node: ir.Node, info: ShapeInfo, opsets: dict[str, int]
) -> dict[ir.Value, tuple[ir.TypeProtocol | None, list[Size | None] | None]]:
    """What ONNX's inference says of one node's outputs; nothing where it knows the operator not, or refuses."""
    if node.version is not None:
        opsets = {**opsets, node.domain: node.version}
    schema = _schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    if schema is None or any(value is not None and info.type(value) is None for value in node.inputs):
        return {}
    proto = ir.serde.serialize_node(node)
    while proto.input and not proto.input[-1]:
        # Some of ONNX's rules count the inputs to see which are given.
        del proto.input[-1]
    sizes: dict[str, Expr] = {}
    types = {str(value.name): _type_proto(value, info, sizes) for value in node.inputs if value is not None}
    data = {str(value.name): proto for value in node.inputs if value is not None for proto in _data(value, info)}
    try:
        results = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=_opset_protos(tuple(opsets.items()))
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError):
        # The node breaks the operator's rules or needs what is not known; the shapes that the graph states remain.
        return {}
    outputs = {str(value.name): value for value in node.outputs}
    return {outputs[name]: _read_type(proto, sizes) for name, proto in results.items() if name in outputs}


@cache
def _opset_protos(opsets: tuple[tuple[str, int], ...]) -> list[Any]:
    return [onnx.helper.make_opsetid(domain, version) for domain, version in opsets]


def _type_proto(value: ir.Value, info: ShapeInfo, sizes: dict[str, Expr]) -> onnx.TypeProto:
    kind = info.type(value)
    proto = onnx.TypeProto()
    dims: Sequence[Size | None] | None = info.dims(value)
    if isinstance(kind, ir.TensorType):
        proto.tensor_type.elem_type = kind.dtype.value
    else:
        ir.serde.serialize_type_into(proto, kind)
        dims = info.held(value)
    if dims is not None and (tensor := _tensor_type(proto)) is not None:
        tensor.shape.SetInParent()
        for dim in dims:
            _write_dim(tensor.shape.dim.add(), dim, sizes)
    return proto


def _write_dim(proto: Any, dim: Size | None, sizes: dict[str, Expr]) -> None:
    if isinstance(dim, int):
        proto.dim_value = dim
    elif dim is not None:
        token = f"size{hash(dim)}"
        sizes[token] = dim  # type: ignore[assignment]
        proto.dim_param = token


def _tensor_type(proto: onnx.TypeProto) -> Any:
    """The type of the tensor, or of the tensors inside; `None` where there are none."""
    while not proto.HasField("tensor_type"):
        kind = proto.WhichOneof("value")
        if kind not in ("sequence_type", "optional_type"):
            return None
        proto = getattr(proto, kind).elem_type
    return proto.tensor_type


def _data(value: ir.Value, info: ShapeInfo) -> Iterable[onnx.TensorProto]:
    array, dtype = info.array(value), info.dtype(value)
    if array is None or dtype is None or not all(isinstance(item, (int, Fraction)) for item in array.ravel()):
        return
    yield onnx.numpy_helper.from_array(array.astype(dtype.numpy()), value.name)


def _read_type(
    proto: onnx.TypeProto, sizes: dict[str, Expr]
) -> tuple[ir.TypeProtocol | None, list[Size | None] | None]:
    tensor = _tensor_type(proto)
    if tensor is None:
        return ir.serde.deserialize_type_proto_for_type(proto), None
    kind: ir.TypeProtocol | None = ir.TensorType(ir.DataType(tensor.elem_type)) if tensor.elem_type else None
    if not proto.HasField("tensor_type"):
        kind = ir.serde.deserialize_type_proto_for_type(proto)
    if not tensor.HasField("shape"):
        return kind, None
    return kind, [d.dim_value if d.HasField("dim_value") else sizes.get(d.dim_param) for d in tensor.shape.dim]
