"""Which operators may write their result over an input, as `nn.ReLU(inplace=True)` in a net written by hand."""

from __future__ import annotations

import onnx_ir as ir

_FRESH = frozenset(
    """
    Add BatchNormalization Conv ConvTranspose Gemm GroupNormalization InstanceNormalization LayerNormalization Linear
    MatMul
    """.split()  # noqa: SIM905
)
"""Operators whose result is a tensor of its own that no gradient asks for again."""

_SUMMANDS = frozenset({"BatchNormalization", "Conv"})
"""Of these, the ones whose result takes a sum: under autocast a Linear's is narrower than what is added to it."""


def is_spent(node: ir.Node, index: int) -> bool:
    """Whether an input of a node is a tensor of its own that nothing but this node reads."""
    value = node.inputs[index]
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.op_type not in _FRESH or value is not producer.outputs[0]:
        return False
    return producer.graph is node.graph and not value.is_graph_output() and len(value.uses()) == 1


def takes_result(node: ir.Node, index: int) -> bool:
    """Whether the sum that a node makes goes into an input of it that is spent: of the same dtype and shape."""
    value, result = node.inputs[index], node.outputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.op_type not in _SUMMANDS or not is_spent(node, index):
        return False
    if value.dtype is None or value.dtype != result.dtype:
        return False
    if value.shape is None or result.shape is None or len(value.shape) != len(result.shape):
        return False
    sizes = zip(value.shape, result.shape, strict=True)
    return all(a == b and (isinstance(a, int) or a.value is not None) for a, b in sizes)
