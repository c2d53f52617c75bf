"""ONNX Runtime's quantizers work on files: a graph goes there and comes back."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import onnx
import onnx_ir as ir


def through_files(model: ir.Model, quantize: Callable[..., None]) -> ir.Model:
    """What a quantizer of ONNX Runtime makes of a graph; products of two activations stay as they are.

    Args:
        model: the graph; it is left as it was.
        quantize: takes the path of the graph and that of the result, and has its own settings.
    """
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        write_runnable(model, source)
        with _quiet():
            quantize(source, target, use_external_data_format=True, extra_options={"MatMulConstBOnly": True})
        return _in_memory(ir.load(target))


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantizer prints to standard output, and its first warning would configure the root logger."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeHandler(handler)


def write_runnable(model: ir.Model, path: Path) -> None:
    """Write a graph under an opset that ONNX Runtime takes; what its quantizer moves, it infers the shapes of."""
    from modelport.backends.onnx.opset import runnable

    ir.save(model, path, external_data=f"{path.name}.data")
    program = runnable(onnx.load(path, load_external_data=False))
    del program.graph.value_info[:]
    onnx.save(program, path)


def _in_memory(model: ir.Model) -> ir.Model:
    """The graph without the files that it was read from."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)
    return model


def in_float16(model: ir.Model, blocked: list[str]) -> ir.Model:
    """A graph in float16, by ONNX Runtime's conversion; its inputs and outputs keep their types.

    Args:
        model: the graph; it is left as it was.
        blocked: the names of the nodes that stay in float32.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        source = Path(folder) / "float.onnx"
        write_runnable(model, source)
        program = convert_float_to_float16(str(source), keep_io_types=True, op_block_list=[], node_block_list=blocked)
    found = ir.from_proto(program)
    found.graph.sort()
    return found
