"""Run a model in ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from modelport.backends.onnx.blocks import fuse_blocks
from modelport.backends.onnx.build import build
from modelport.backends.onnx.held import LOCK, held
from modelport.backends.onnx.opset import runnable
from modelport.backends.onnx.optimizers import unsound_optimizers
from modelport.backends.onnx.program import add_weights, without_weights
from modelport.backends.onnx.values import is_plain, to_array, to_value
from modelport.core.errors import (
    IntegrityError,
    ModelPortError,
    SignatureError,
    UnsupportedModelError,
    UnsupportedOpError,
)
from modelport.core.signature import Arrays, Signature
from modelport.graph.proto import to_graph
from modelport.graph.weights import RECURRENT
from modelport.graph.widen import widen_recurrent


def run(native: Any, inputs: Arrays, signature: Signature) -> Arrays:
    """The outputs by name.

    The session is opened once per model and kept while the model lives; a ModelProto that is changed by hand after
    its first run has to be copied to be seen. While the model runs on borrowed weights, see `borrow`, its session is
    that of the loan.

    Raises:
        UnsupportedOpError: ONNX Runtime has no kernel for an operator.
        SignatureError: the model cannot take inputs of these sizes.
    """
    loan = held(native).loan
    session, borrowed = (session_of(native), {}) if loan is None else loan
    names = [spec.name for spec in signature.outputs]
    specs = (*signature.inputs, *signature.outputs)
    with _translated():
        if all(is_plain(spec.dtype) for spec in specs):
            outputs = session.run(names, {**inputs, **borrowed})
        else:
            feeds = {name: to_value(array) for name, array in inputs.items()}
            outputs = [to_array(value) for value in session.run_with_ort_values(names, {**feeds, **borrowed})]
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
        entry.session = entry.program = entry.loan = None


def _open(native: onnx.ModelProto, device: str) -> Any:
    native = _widened(native)
    program = without_weights(native)
    fuse_blocks(program, native)
    return open_session(program, add_weights(program, native), device)


def _widened(native: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights of recurrent layers in floats: from integers, they would be widened at every call."""
    operators = {node.op_type for node in native.graph.node}
    if not (operators & RECURRENT and "DequantizeLinear" in operators):
        return native
    model = to_graph(native).clone()
    return build(model).native if widen_recurrent(model) else native


def open_session(
    program: onnx.ModelProto, arrays: Mapping[str, tuple[np.ndarray, int]], device: str, options: Any = None
) -> Any:
    """A session of a program.

    Args:
        program: what ONNX Runtime parses.
        arrays: array and dtype of what the program has a stand-in for.
        device: where it runs.
        options: `SessionOptions` to begin with.

    Raises:
        UnsupportedOpError: ONNX Runtime has no kernel for an operator.
        UnsupportedModelError: ONNX Runtime refuses the model.
    """
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, not printed
    if arrays:
        options.add_external_initializers(list(arrays), [to_value(array, dtype) for array, dtype in arrays.values()])
    with _translated():
        # Without enable_fallback=0 a model that a device refuses would silently run on the CPU.
        return onnxruntime.InferenceSession(
            runnable(program).SerializeToString(),
            options,
            providers=_providers(device),
            enable_fallback=0,
            disabled_optimizers=unsound_optimizers(program),
        )


def _providers(device: str) -> list[Any]:
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


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
