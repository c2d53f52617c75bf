"""The signature of a portable graph: kept in its metadata, or read off its inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.core.errors import SignatureError
from modelport.core.signature import Dim, Signature, TensorSpec, tree_from_json

KEY = "modelport.signature"
"""The metadata entry that holds how the native call nests its inputs and outputs."""


def dtype_name(dtype: ir.DataType) -> str:
    """NumPy's name of a dtype (`"float32"`, `"bfloat16"`, `"float8_e4m3fn"`); `"str"` for strings."""
    return "str" if dtype == ir.DataType.STRING else np.dtype(dtype.numpy()).name


def ir_dtype(name: str) -> ir.DataType:
    """The dtype that `dtype_name` names.

    Raises:
        SignatureError: ONNX has no such dtype.
    """
    for dtype in ir.DataType:
        if dtype != ir.DataType.UNDEFINED and dtype_name(dtype) == name:
            return dtype
    raise SignatureError(f"ONNX has no dtype {name!r}: cast the tensor to one it has, float32 or int64 say.")


def graph_inputs(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """The inputs a caller must give; old files list the initializers among the inputs too."""
    return tuple(value for value in graph.inputs if value.name not in graph.initializers)


def write_signature(model: ir.Model, signature: Signature) -> None:
    """Keep a signature in a graph: its nesting in the metadata, its dtypes and dims on the inputs and outputs.

    Args:
        model: the graph; changed in place.
        signature: names exactly the graph's inputs and outputs, in order.

    Raises:
        SignatureError: a name or a number of tensors differs, or a dtype is none of ONNX's.
    """
    inputs, outputs = graph_inputs(model.graph), tuple(model.graph.outputs)
    for kind, values, specs in (("inputs", inputs, signature.inputs), ("outputs", outputs, signature.outputs)):
        names = [value.name for value in values]
        if names != [spec.name for spec in specs]:
            raise SignatureError(f"the graph's {kind} are {names}, the signature's {[spec.name for spec in specs]}.")
        for value, spec in zip(values, specs, strict=True):
            if not spec.dtype.startswith(("sequence(", "optional(")):
                value.type = ir.TensorType(ir_dtype(spec.dtype))
                value.shape = None if spec.shape is None else ir.Shape(spec.shape)
    nesting = signature.to_json()
    model.metadata_props[KEY] = json.dumps({key: nesting[key] for key in ("args", "kwargs", "returns")})


def read_signature(model: ir.Model) -> Signature:
    """The signature of a graph.

    A dimension without a size or a name is named after its tensor and axis (`"x_dim0"`). A graph without nesting in
    its metadata takes its inputs as positional arguments and returns one output or a tuple of them.

    Raises:
        SignatureError: the metadata does not fit the graph's inputs and outputs.
    """
    inputs, outputs = _specs(graph_inputs(model.graph)), _specs(model.graph.outputs)
    text = model.metadata_props.get(KEY)
    if text is None:
        return Signature(inputs, outputs)
    try:
        nesting = json.loads(text)
        args = tuple(tree_from_json(tree) for tree in nesting["args"])
        kwargs = {key: tree_from_json(tree) for key, tree in nesting["kwargs"].items()}
        returns = tree_from_json(nesting["returns"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SignatureError(f"the graph's metadata {KEY!r} is not a signature: {text[:200]!r}.") from error
    return Signature(inputs, outputs, args, kwargs, returns)


def _specs(values: Iterable[ir.Value]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(value.name), _type_name(value.type), _dims(value)) for value in values)


def _type_name(kind: Any) -> str:
    if isinstance(kind, ir.SequenceType):
        return f"sequence({_type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({_type_name(kind.elem_type)})"
    # A file may leave an output's type to inference; float32 is what the reader of such a file gets elsewhere too.
    return "float32" if kind is None else dtype_name(kind.dtype)


def _dims(value: ir.Value) -> tuple[Dim, ...] | None:
    if value.shape is None:
        return None
    sizes = (dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return tuple(f"{value.name}_dim{axis}" if size is None else size for axis, size in enumerate(sizes))
