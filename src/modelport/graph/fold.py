"""Constant folding: what follows from constants alone is computed once. Weights are never folded."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from modelport.graph.chance import RANDOM
from modelport.graph.host import misreads
from modelport.graph.shapes.expr import is_known
from modelport.graph.shapes.info import INTEGERS, ShapeInfo
from modelport.graph.simplify import simplify
from modelport.graph.weights import roles

MAX_FOLDED_BYTES = 1 << 20
"""A larger result stays a computation, so that folding a fill or an expansion does not blow up the model."""

_KEPT = RANDOM | {"Constant", "DequantizeLinear", "Dropout", "Resize"}
"""Operators that mean more than their value, by chance, in training or in how little a weight takes; and `Resize`.

Where a sample of `Resize` lies on a pixel, rounding makes the evaluator take the next two for its neighbours.
"""


def fold_constants(model: ir.Model, info: ShapeInfo) -> int:
    """Replace values that follow from constants, or from the shapes that are known, by initializers, in place.

    Nodes that stay are simplified on the way (`simplify`).

    Args:
        model: the graph, at an opset that onnx's reference evaluator knows, names unique across its subgraphs.
        info: the shapes of its values; the new initializers are added to it.

    Returns:
        How many nodes went.
    """
    weights = roles(model)
    graph, opsets = model.graph, model.graph.opset_imports
    count = 0
    for node in list(graph.all_nodes()):
        simplify(node, graph, info, weights)
        if any(value.is_graph_output() for value in node.outputs) or not _is_foldable(node):
            continue
        arrays = _known(node, info)
        if arrays is None and _is_constant(node, weights) and _is_small(node, info):
            arrays = _evaluate(node, info, opsets)
        if arrays is not None:
            _replace(node, arrays, graph, info)
            count += 1
    return count


def _is_foldable(node: ir.Node) -> bool:
    if node.domain or node.op_type in _KEPT or _is_stored_scale(node):
        return False
    return not any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values())


def _is_stored_scale(node: ir.Node) -> bool:
    """Whether a node widens the scales of a weight, which are stored in fewer bytes than they are used in."""
    uses = node.outputs[0].uses()
    scales = all(user.op_type == "DequantizeLinear" and place == 1 for user, place in uses)
    return node.op_type == "Cast" and bool(uses) and scales


def _known(node: ir.Node, info: ShapeInfo) -> list[np.ndarray] | None:
    """The outputs where shape inference has followed their contents to plain integers."""
    found = []
    for value in node.outputs:
        array, dtype = info.array(value), info.dtype(value)
        if array is None or dtype is None or dtype not in INTEGERS:
            return None
        if not all(type(item) is int for item in array.ravel()):
            return None
        found.append(array.astype(dtype.numpy()))
    return found


def _is_constant(node: ir.Node, weights: Collection[str]) -> bool:
    return all(value is None or (value.const_value is not None and value.name not in weights) for value in node.inputs)


def _is_small(node: ir.Node, info: ShapeInfo) -> bool:
    total = 0
    for value in node.outputs:
        dims, dtype = info.dims(value), info.dtype(value)
        if dims is None or dtype is None or not is_known(dims):
            return False
        total += math.prod(dims) * dtype.itemsize
    return total <= MAX_FOLDED_BYTES


def _evaluate(node: ir.Node, info: ShapeInfo, opsets: dict[str, int]) -> list[np.ndarray] | None:
    """The outputs as onnx's reference evaluator computes them; `None` where it cannot, the node then stays."""
    if misreads(node):
        return None
    tensors = {value.name: value.const_value for value in node.inputs if value is not None}
    inputs = {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
    try:
        results = ReferenceEvaluator(_alone(node, opsets)).run(None, inputs)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return None
    for value, array in zip(node.outputs, results, strict=True):
        dtype = info.dtype(value)
        if not isinstance(array, np.ndarray | np.generic) or dtype is None or array.dtype != dtype.numpy():
            return None
    return [np.asarray(array) for array in results]


def _alone(node: ir.Node, opsets: dict[str, int]) -> onnx.ModelProto:
    names = dict.fromkeys(str(value.name) for value in node.inputs if value is not None)
    graph = onnx.GraphProto(name="node", node=[ir.serde.serialize_node(node)])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in names)
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in node.outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opsets.get("", 1))])


def _replace(node: ir.Node, arrays: Sequence[np.ndarray], graph: ir.Graph, info: ShapeInfo) -> None:
    constants = []
    for value, array in zip(node.outputs, arrays, strict=True):
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=info.dtype(value), name=value.name)
        constant = ir.Value(name=value.name, type=ir.TensorType(tensor.dtype), const_value=tensor)
        constant.shape = ir.Shape(array.shape)
        info.adopt(constant, value)
        value.replace_all_uses_with(constant)
        constants.append(constant)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    for constant in constants:
        graph.register_initializer(constant)
