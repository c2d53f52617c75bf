"""What a rounding boundary does: where two runtimes sum floats in other orders, one may round up and one down."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.quantized_parts import producer
from modelport.graph.names import unique_name
from modelport.graph.splice import insert

NOISE = 1e-6
"""How far a float may be from what another runtime computes, as a share of the largest one beside it."""

_ROUNDING = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
_SAME_VALUES = ("Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


def rounds(model: ir.Model) -> bool:
    """Whether a graph rounds floats to integers that stand for them."""
    return any(node.op_type in _ROUNDING and not node.domain for node in model.graph.all_nodes())


def output_steps(model: ir.Model) -> dict[str, float]:
    """The step of every output that is integers times a scale, by name: the largest scale, where there are several."""
    found = {}
    for output in model.graph.outputs:
        value: ir.Value | None = output
        while (node := producer(value, *_SAME_VALUES)) is not None:
            value = node.inputs[0]
        node = producer(value, "DequantizeLinear")
        scale = None if node is None or node.inputs[1] is None else node.inputs[1].const_value
        if scale is not None:
            found[str(output.name)] = float(np.abs(scale.numpy()).max())
    return found


def nudged(model: ir.Model, share: float) -> ir.Model:
    """A copy of a graph in which everything that is rounded is off by a share of its largest element."""
    model = model.clone()
    taken = set(model.graph.initializers)
    for index, node in enumerate([n for n in model.graph.all_nodes() if n.op_type in _ROUNDING and not n.domain]):
        x = node.inputs[0]
        if x is None or x.dtype not in (None, ir.DataType.FLOAT):
            continue
        name = unique_name(f"nudge_{index}", taken)
        tensor = ir.tensor(np.float32(share), name=name)
        factor = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(()), const_value=tensor)
        model.graph.register_initializer(factor)
        largest = insert(node, "ReduceMax", [insert(node, "Abs", [x])], {"keepdims": 0})
        moved = insert(node, "Add", [x, insert(node, "Mul", [largest, factor])])
        moved.type, moved.shape = x.type, x.shape
        node.replace_input_with(0, moved)
    return model
