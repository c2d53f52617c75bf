"""Run a model as it is proved: on the weights of the graph that it was built from, and with exact products.

A ModelProto shows its bytes as copies only, and a session copies what it is given once more: a model that is proved to
compute what its source does would be in memory four times. So its program is opened with large weights as inputs, and
is fed the memory of the graph, which is the source's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

from modelport.backends.onnx.blocks import has_blocks
from modelport.backends.onnx.held import held
from modelport.backends.onnx.program import add_weights, content, names_used, nbytes, without_weights
from modelport.backends.onnx.run import open_session
from modelport.backends.onnx.values import to_value
from modelport.graph.names import unique_name

_LARGE = 1 << 28
"""Models with fewer bytes of weights to lend run in the session that their user gets, which is then open already."""

_LENT = 1 << 16
"""A weight of fewer bytes is no matter."""


@contextmanager
def borrowing(native: Any, graph: ir.Model) -> Iterator[None]:
    """While it is open, a large model runs on the graph's weights; not where its session is open, or not on the CPU.

    The session that it runs in is another one than the user's, which is opened by the first run after: weights that
    are inputs are neither folded nor packed. Everything else of the program is as the model has it, and a weight is
    lent only where the model has the same bytes, so what holds of the outputs holds of the model.

    Products of weights by blocks, which round activations to 8 bits for speed, are computed in float while it is open.
    """
    entry = held(native)
    copies = isinstance(native, onnx.ModelProto) and entry.device == "cpu" and entry.session is None
    lendable = _lendable(native, graph) if copies else []
    if sum(map(nbytes, lendable)) >= _LARGE:
        entry.loan = _open(native, _lent(native, lendable, graph))
    elif isinstance(native, onnx.ModelProto) and entry.device == "cpu" and has_blocks(native):
        program = without_weights(native)
        entry.loan = open_session(program, add_weights(program, native), "cpu", _exact()), {}
    try:
        yield
    finally:
        entry.loan = None


def _lendable(native: onnx.ModelProto, graph: ir.Model) -> list[onnx.TensorProto]:
    """The initializers that can be inputs: those that only standard operators read, whose kernels take either."""
    names = names_used(native.graph) - {value.name for value in (*native.graph.input, *native.graph.output)}
    weights = graph.graph.initializers
    return [
        tensor
        for tensor in native.graph.initializer
        if nbytes(tensor) >= _LENT
        and ir.DataType(tensor.data_type).bitwidth in (8, 16, 32, 64)
        and tensor.name in names
        and tensor.name in weights
        and all(node.domain in ("", "ai.onnx") for node, _ in weights[tensor.name].uses())
    ]


def _lent(native: onnx.ModelProto, lendable: list[onnx.TensorProto], graph: ir.Model) -> dict[str, np.ndarray]:
    """The memory of the graph's weights by name, or of the mapped file that the model and the graph share."""
    found: dict[str, np.ndarray] = {}
    for tensor in lendable:
        own = content(native, tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL and own is not None:
            found[tensor.name] = own
            continue
        weight = graph.graph.initializers[tensor.name].const_value
        array = None if weight is None else weight.numpy()
        if own is not None and array is not None and _same_bytes(own, array):
            found[tensor.name] = array
    return found


def _same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    bits = np.dtype(f"uint{8 * a.itemsize}")
    return a.dtype == b.dtype and np.array_equal(a.view(bits), b.view(bits))


def _open(native: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
    """A session with weights as inputs, and those inputs.

    One whose axes are moved lies in memory as another tensor, which is fed and transposed back.
    """
    codes = {tensor.name: tensor.data_type for tensor in native.graph.initializer}
    taken = {name for node in native.graph.node for name in (*node.input, *node.output)} | set(codes)
    inputs, transposes, fed = [], [], {}
    for name, array in weights.items():
        array, perm = _as_it_lies(array)
        source = name if perm is None else unique_name(f"{name}.moved", taken)
        taken.add(source)
        if perm is not None:
            transposes.append(helper.make_node("Transpose", [source], [name], perm=perm))
        inputs.append(helper.make_tensor_value_info(source, codes[name], array.shape))
        fed[source] = to_value(array, codes[name])
    program = without_weights(native, transposes)
    program.graph.input.extend(inputs)
    options = _exact()
    # A weight that is transposed back is there when it is needed, not all of them at the start.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return open_session(program, add_weights(program, native, weights), "cpu", options), fed


def _exact() -> Any:
    """Options of a session in which products of weights by blocks take activations in float."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return options


def _as_it_lies(array: np.ndarray) -> tuple[np.ndarray, list[int] | None]:
    """An array in one block without a copy, and the permutation of its axes that makes it the array."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    block = array.transpose(order)
    if array.flags.c_contiguous or not block.flags.c_contiguous:
        return np.ascontiguousarray(array), None
    return block, [int(axis) for axis in np.argsort(order)]
