"""Run a model in ONNX Runtime."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from modelport.backends.onnx.build import build
from modelport.backends.onnx.held import LOCK, held
from modelport.backends.onnx.opset import runnable
from modelport.backends.onnx.weights import tensor_at
from modelport.core.errors import (
    IntegrityError,
    ModelPortError,
    SignatureError,
    UnsupportedModelError,
    UnsupportedOpError,
)
from modelport.core.signature import Arrays, Signature

_IR_VERSION = 10
"""What newer IR versions add (metadata, device placement) is not in the program that a session gets."""

_SHARED = 1 << 10
"""Weights of at least as many bytes are given to ONNX Runtime where they lie; smaller ones travel with the program.

A session copies what it is given while it opens, so nothing of it has to stay."""


def run(native: Any, inputs: Arrays, signature: Signature) -> Arrays:
    """The outputs by name.

    The session is opened once per model and kept while the model lives; a ModelProto that is changed by hand after
    its first run has to be copied to be seen.

    Raises:
        UnsupportedOpError: ONNX Runtime has no kernel for an operator.
        SignatureError: the model cannot take inputs of these sizes.
    """
    session = session_of(native)
    names = [spec.name for spec in signature.outputs]
    specs = (*signature.inputs, *signature.outputs)
    with _translated():
        if all(_is_plain(spec.dtype) for spec in specs):
            outputs = session.run(names, inputs)
        else:
            feeds = {name: _value(array) for name, array in inputs.items()}
            outputs = [_array(value) for value in session.run_with_ort_values(names, feeds)]
    return dict(zip(names, outputs, strict=True))


def session_of(native: Any) -> Any:
    """The open session of a model.

    Raises:
        UnsupportedOpError: ONNX Runtime has no kernel for an operator.
        UnsupportedModelError: ONNX Runtime refuses the model.
    """
    entry = held(native)
    with LOCK:
        if entry.session is None:
            if isinstance(native, ir.Model) and entry.program is None:
                entry.program = build(native).native
            entry.session = _open(native if entry.program is None else entry.program, entry.device)
        return entry.session


def forget(native: Any) -> None:
    """Close the session of a model that has changed."""
    entry = held(native)
    with LOCK:
        entry.session = entry.program = None


def _open(native: onnx.ModelProto, device: str) -> Any:
    program, arrays = _program(native)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, not printed
    weights = [_value(array, dtype) for array, dtype in arrays.values()]
    if weights:
        options.add_external_initializers(list(arrays), weights)
    with _translated():
        # Without enable_fallback=0 a model that a device refuses would silently run on the CPU.
        session = onnxruntime.InferenceSession(
            runnable(program).SerializeToString(),
            options,
            providers=_providers(device),
            enable_fallback=0,
            disabled_optimizers=_unsound_optimizers(program),
        )
    return session


def _unsound_optimizers(program: onnx.ModelProto) -> list[str]:
    """Graph optimizers that crash on a program: NchwcTransformer of ONNX Runtime 1.31 does on float16 attention."""
    half = onnx.TensorProto.FLOAT16
    tensors = (*program.graph.initializer, *(value.type.tensor_type for value in program.graph.input))
    kinds = {getattr(tensor, "data_type", None) or getattr(tensor, "elem_type", None) for tensor in tensors}
    return ["NchwcTransformer"] if half in kinds else []


def _providers(device: str) -> list[Any]:
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _program(native: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, tuple[np.ndarray, int]]]:
    """The model without its large weights, and those weights: so a model may be larger than protobuf's 2 GB."""
    program = onnx.ModelProto(ir_version=min(native.ir_version, _IR_VERSION))
    program.opset_import.extend(native.opset_import)
    program.functions.extend(native.functions)
    program.graph.name = native.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer", "quantization_annotation"):
        getattr(program.graph, field).extend(getattr(native.graph, field))
    arrays: dict[str, tuple[np.ndarray, int]] = {}
    used, inputs = _used(native.graph), {value.name for value in native.graph.input}
    for tensor in native.graph.initializer:
        if tensor.name not in used:
            continue
        array = None if tensor.name in inputs else _shareable(native, tensor)
        if array is None:
            program.graph.initializer.append(_inside(native, tensor))
        else:
            arrays[tensor.name] = (array, tensor.data_type)
            program.graph.initializer.append(_stand_in(tensor))
    return program, arrays


def _used(graph: onnx.GraphProto) -> set[str]:
    """The names that nodes read, in subgraphs too, or that are outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                names |= _used(inner)
    return names


def _shareable(native: onnx.ModelProto, tensor: onnx.TensorProto) -> np.ndarray | None:
    """An initializer's memory, where ONNX Runtime can take it as it is."""
    dtype = ir.DataType(tensor.data_type)
    if dtype == ir.DataType.STRING or dtype.bitwidth < 8:
        return None
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        array = tensor_at(native, tensor).numpy()
        return array if array.nbytes >= _SHARED else None
    if len(tensor.raw_data) < _SHARED:
        return None
    return np.frombuffer(tensor.raw_data, dtype.numpy()).reshape(tuple(tensor.dims))


def _inside(native: onnx.ModelProto, tensor: onnx.TensorProto) -> onnx.TensorProto:
    """An initializer with its data inside."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    data = tensor_at(native, tensor).tobytes()
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=data)


def _stand_in(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """An initializer that ONNX Runtime gets the memory of when the session opens."""
    found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    found.data_location = onnx.TensorProto.EXTERNAL
    found.external_data.add(key="location", value="memory")
    return found


def _is_plain(dtype: str) -> bool:
    """Whether NumPy has a dtype itself; bfloat16, 8-bit floats and what is narrower than a byte are ml_dtypes'."""
    return dtype == "str" or "(" in dtype or np.dtype(dtype).isbuiltin != 2


def _value(array: np.ndarray, dtype: int | None = None) -> Any:
    """An OrtValue in an array's own memory."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    if array.dtype.isbuiltin != 2:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    code = ir.DataType.from_numpy(array.dtype) if dtype is None else ir.DataType(dtype)
    bits = _packed(array, code) if code.bitwidth < 8 else array.view(np.dtype(f"uint{8 * array.itemsize}"))
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, int(code))


def _packed(array: np.ndarray, dtype: ir.DataType) -> np.ndarray:
    """The packed elements, in as many bytes as there are elements: the binding takes the shape from the bytes."""
    data = np.frombuffer(ir.Tensor(array, dtype).tobytes(), np.uint8)
    found = np.zeros(array.size, np.uint8)
    found[: data.size] = data
    return found.reshape(array.shape)


def _array(value: Any) -> Any:
    """An OrtValue as an array; the bits of dtypes that ONNX Runtime cannot give to NumPy are copied out."""
    dtype = _ML_DTYPES.get(value.data_type())
    if dtype is None:
        return value.numpy()
    shape, size = tuple(value.shape()), -(-math.prod(value.shape()) * dtype.bitwidth // 8)
    data = np.frombuffer(bytearray(ctypes.string_at(value.data_ptr(), size) if size else b""), np.uint8)
    if dtype.bitwidth < 8:
        return ir.PackedTensor(data, dtype, shape=shape).numpy()
    return data.view(dtype.numpy()).reshape(shape)


_ML_DTYPES = {
    f"tensor({dtype.name.lower().replace('_', '')})": dtype
    for dtype in ir.DataType
    if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING) and np.dtype(dtype.numpy()).isbuiltin == 2
}
"""The dtypes that NumPy lacks, by ONNX Runtime's names of their tensors."""

_NO_KERNEL = re.compile(r"Could not find an implementation for (?:[\w.]+:)?(\w+)\(\d+\) node with name '([^']*)'")
_NO_DTYPE = re.compile(r"Failed to find kernel for (\w+)\(\d+\) \(node:'([^']*)'")
_NO_SCHEMA = re.compile(r"No Op registered for (\w+)|(?:Fatal error: |error: )?([\w.:]+)\(-?\d+\) is not a registered")
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")


@contextmanager
def _translated() -> Iterator[None]:
    """ONNX Runtime's errors as modelport's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    try:
        yield
    except (
        ort.InvalidGraph,
        ort.NotImplemented,
        ort.Fail,
        ort.EPFail,
        ort.InvalidArgument,
        ort.RuntimeException,
    ) as error:
        raise _error(error, refused_inputs=isinstance(error, ort.InvalidArgument)) from error
    except UnicodeDecodeError as error:
        raise IntegrityError("the model has names that are not UTF-8: it is damaged. Export it again.") from error
    except (ort.InvalidProtobuf, ort.NoSuchFile, ort.ModelLoadCanceled) as error:
        raise IntegrityError(f"ONNX Runtime cannot read the model: {_text(error)}. Export it again.") from error


def _text(error: Exception) -> str:
    return _CODE.sub("", str(error)).strip()


def _error(error: Exception, *, refused_inputs: bool) -> ModelPortError:
    text = _text(error)
    if found := _NO_KERNEL.search(text) or _NO_DTYPE.search(text):
        op_type, node = found.groups()
        return UnsupportedOpError(
            f"ONNX Runtime has no kernel for {op_type} (node {node!r}) with these dtypes: {text}. Run the model on "
            "another backend, or export it without this operator.",
            op_type=op_type,
            node=node,
        )
    if found := _NO_SCHEMA.search(text):
        op_type = (found[1] or found[2]).rpartition(":")[2].rpartition(".")[2]
        return UnsupportedOpError(
            f"ONNX Runtime does not know the operator {op_type}: {text}. Export the model without it.", op_type=op_type
        )
    if refused_inputs or "Non-zero status code returned while running" in text:
        return SignatureError(f"the model cannot run on these inputs: {text}. Check their sizes against the signature.")
    return UnsupportedModelError(f"ONNX Runtime refuses the model: {text}. Export it again, or run it elsewhere.")
