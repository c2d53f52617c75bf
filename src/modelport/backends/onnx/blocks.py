"""Weights by blocks that ONNX Runtime would write out at every call, on its kernels that read the blocks.

It does so itself for products of weights whose contracted axis is the first one (`DQMatMulToMatMulNBits`), and for
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from modelport.backends.onnx.program import names_used
from modelport.backends.onnx.weights import tensor_at

_DOMAIN = "com.microsoft"
_BITS = {onnx.TensorProto.UINT4: 4, onnx.TensorProto.UINT8: 8}

_ACCURACY = 4
"""Activations are multiplied as int8 with a scale per block, as in the products that ONNX Runtime fuses itself."""


@dataclass(frozen=True)
class _Table:
    """A DequantizeLinear whose blocks lie along the second axis of a matrix, (rows, columns)."""

    node: onnx.NodeProto
    weight: onnx.TensorProto
    zero: onnx.TensorProto
    block: int

    @property
    def bits(self) -> int:
        return _BITS[self.weight.data_type]


def fuse_blocks(program: onnx.ModelProto, native: onnx.ModelProto) -> None:
    """Let tables and products of a program read blocks, in place.

    Args:
        program: without initializers; what is new is added to them.
        native: the model, which has the weights.
    """
    graph = program.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    fused: dict[str, onnx.NodeProto] = {}
    for table in _tables(native):
        for node in readers.get(table.node.output[0], []):
            if node.op_type == "Gather" and _integer(node, "axis", 0) == 0:
                fused[node.output[0]] = _lookup(table, node)
            elif node.op_type == "Transpose":
                products = readers.get(node.output[0], [])
                if products and all(_multiplies(each, node.output[0]) for each in products):
                    graph.initializer.extend(_operands(native, table))
                    fused |= {each.output[0]: _product(table, each) for each in products}
    if not fused:
        return
    nodes = [fused.get(node.output[0] if node.output else "", node) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    # ONNX Runtime runs them for nobody.
    for op_type in ("Transpose", "DequantizeLinear"):
        read = names_used(graph)
        for node in [node for node in graph.node if node.op_type == op_type and node.output[0] not in read]:
            graph.node.remove(node)
    if all(opset.domain != _DOMAIN for opset in program.opset_import):
        program.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def has_blocks(native: onnx.ModelProto) -> bool:
    """Whether a model has weights by blocks."""
    return any(node.op_type == "DequantizeLinear" and _integer(node, "block_size", 0) for node in native.graph.node)


def _tables(native: onnx.ModelProto) -> Iterator[_Table]:
    stored = {tensor.name: tensor for tensor in native.graph.initializer}
    for node in native.graph.node:
        if node.op_type != "DequantizeLinear" or node.domain or len(node.input) < 3:
            continue
        weight, zero = stored.get(node.input[0]), stored.get(node.input[2])
        block = _integer(node, "block_size", 0)
        if weight is None or zero is None or not block or weight.data_type not in _BITS:
            continue
        if len(weight.dims) == 2 and _integer(node, "axis", 1) in (1, -1) and weight.dims[1] % block == 0:
            yield _Table(node, weight, zero, block)


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)


def _multiplies(node: onnx.NodeProto, name: str) -> bool:
    return node.op_type == "MatMul" and not node.domain and node.input[1] == name and node.input[0] != name


def _lookup(table: _Table, node: onnx.NodeProto) -> onnx.NodeProto:
    inputs = [table.weight.name, node.input[1], table.node.input[1], table.zero.name]
    settings = {"gather_axis": 0, "quantize_axis": 1, "block_size": table.block, "bits": table.bits}
    return helper.make_node(
        "GatherBlockQuantized", inputs, list(node.output), name=node.name, domain=_DOMAIN, **settings
    )


def _product(table: _Table, node: onnx.NodeProto) -> onnx.NodeProto:
    rows, columns = table.weight.dims
    settings = {"K": columns, "N": rows, "bits": table.bits, "block_size": table.block, "accuracy_level": _ACCURACY}
    inputs = [node.input[0], _label(table.weight), table.node.input[1], _label(table.zero)]
    return helper.make_node("MatMulNBits", inputs, list(node.output), name=node.name, domain=_DOMAIN, **settings)


def _label(tensor: onnx.TensorProto) -> str:
    return f"{tensor.name}/blocks"


def _operands(native: onnx.ModelProto, table: _Table) -> list[onnx.TensorProto]:
    """The integers and zero points of a table as MatMulNBits takes them, as bytes."""
    rows, columns = table.weight.dims
    count, size = columns // table.block, table.block * table.bits // 8
    weight = _bytes(native, table.weight).reshape(rows, count, size)
    zero = _bytes(native, table.zero)
    if table.bits == 4 and count % 2:
        # Here every row begins with a byte of its own.
        both = np.stack([zero & 15, zero >> 4], -1).ravel()[: rows * count].reshape(rows, count)
        both = np.pad(both, ((0, 0), (0, 1)))
        zero = both[:, ::2] | both[:, 1::2] << 4
    arrays = ((table.weight, weight), (table.zero, zero.reshape(rows, -1)))
    return [onnx.numpy_helper.from_array(array, _label(tensor)) for tensor, array in arrays]


def _bytes(native: onnx.ModelProto, tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return np.frombuffer(tensor_at(native, tensor).tobytes(), np.uint8)
    return np.frombuffer(ir.from_proto(tensor).tobytes(), np.uint8)
