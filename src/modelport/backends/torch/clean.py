"""Taking the noise out of a graph that torch.onnx wrote: what is constant, identical or without effect."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import IdentityEliminationPass, RemoveUnusedNodesPass

LARGEST = 1024
"""Elements of the largest constant that is computed here; larger results are cheaper to compute than to store."""

_FULL = np.iinfo(np.int64).max


def clean(model: ir.Model, keep: Collection[str]) -> None:
    """Fold what is constant and remove what does nothing, in place; initializers named in `keep` count as variable."""
    graph = model.graph
    for node in list(graph):
        _constant_value(node)
        if node.op_type == "Dropout" and len(node.outputs) > 1 and not node.outputs[1].uses():
            node.resize_outputs(1)
        if node.op_type in ("Constant", "Dropout") or node.domain:
            continue
        if node.op_type in ("Conv", "ConvTranspose") and len(node.inputs) > 2 and _is_zeros(node.inputs[2], keep):
            node.resize_inputs(2)
        known = _known_result(node, keep)
        if known is not None:
            _replace_by_constant(graph, node, known)
        elif (same := _same_as(node)) is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(same)
    _merge_constants(graph, keep)
    for initializer in list(graph.initializers.values()):
        # The pass below drops unused initializers; one that is a weight comes back with its role.
        if initializer.name not in keep and not initializer.uses():
            graph.initializers.pop(str(initializer.name))
    IdentityEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


def separate_outputs(graph: ir.Graph) -> None:
    """Give every output of the graph a value of its own: what is an input, a weight or an output already is copied."""
    seen: set[int] = set()
    for i, value in enumerate(graph.outputs):
        if id(value) in seen or value.is_graph_input() or value.is_initializer():
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[i] = value = node.outputs[0]
        seen.add(id(value))


def name_nodes(model: ir.Model) -> None:
    """Name every node after the module that made it (`encoder.0.linear`) and forget where its source code lies."""
    counts: dict[str, int] = {}
    for node in model.graph:
        scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
        # The scopes are dotted paths of modules, outermost first, and at last the operator.
        path = re.sub(r"@\d+", "", scopes[-2]) if len(scopes) > 1 else ""
        operator = re.sub(r"_\d+$", "", scopes[-1]) if scopes else node.op_type.lower()
        name = f"{path}.{operator}" if path and not path.startswith("_") else operator
        counts[name] = counts.get(name, 0) + 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name] - 1}"
        _forget(node)
        for value in node.outputs:
            _forget(value)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _forget(value)
    _forget(model.graph)


def _forget(thing: ir.Node | ir.Value | ir.Graph | ir.Model) -> None:
    thing.metadata_props.clear()
    thing.meta.clear()
    thing.doc_string = None


def _constant_value(node: ir.Node) -> None:
    """Let the output of a Constant node know its value."""
    if node.op_type == "Constant" and node.outputs[0].const_value is None:
        node.outputs[0].const_value = ir.convenience.get_const_tensor(node.outputs[0])


def _known_result(node: ir.Node, keep: Collection[str]) -> np.ndarray | None:
    if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return None
    if node.op_type == "Shape":
        return _known_shape(node)
    arrays = [_array(value, keep) for value in node.inputs]
    if node.op_type == "CastLike" and arrays[0] is not None and node.inputs[1] is not None and node.inputs[1].dtype:
        return arrays[0].astype(node.inputs[1].dtype.numpy())
    given = [array for value, array in zip(node.inputs, arrays, strict=True) if value is not None]
    if not given or any(array is None for array in given) or node.op_type.startswith(("Random", "Multinomial")):
        return None
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        return None
    return _evaluate(node, arrays)


def _known_shape(node: ir.Node) -> np.ndarray | None:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return None
    start, end = (node.attributes[key].as_int() if key in node.attributes else None for key in ("start", "end"))
    dims = list(shape)[start:end]
    return np.array(dims, np.int64) if all(isinstance(dim, int) for dim in dims) else None


def _array(value: ir.Value | None, keep: Collection[str]) -> np.ndarray | None:
    if value is None or value.const_value is None or value.name in keep or value.const_value.size > LARGEST:
        return None
    return value.const_value.numpy()


def _evaluate(node: ir.Node, arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    proto = ir.serde.serialize_node(node)
    feeds = {str(v.name): array for v, array in zip(node.inputs, arrays, strict=True) if v is not None}
    result = ReferenceEvaluator(proto, opsets={"": 21}).run(None, feeds)[0]
    return result if result.size <= LARGEST else None


def _replace_by_constant(graph: ir.Graph, node: ir.Node, array: np.ndarray) -> None:
    tensor = ir.tensor(np.asarray(array))
    constant = ir.node("Constant", [], attributes={"value": tensor}, name=node.name)
    value = constant.outputs[0]
    value.type, value.shape, value.const_value = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape), tensor
    constant.metadata_props.update(node.metadata_props)
    graph.insert_before(node, constant)
    old = node.outputs[0]
    value.name, old.name = old.name, None
    old.replace_all_uses_with(value)
    graph.remove(node, safe=True)


def _same_as(node: ir.Node) -> ir.Value | None:
    """The value that a node's output is equal to, where the node does nothing."""
    x = node.inputs[0] if node.inputs else None
    if x is None:
        return None
    if node.op_type == "Cast" and x.dtype is not None and x.dtype == ir.DataType(node.attributes["to"].as_int()):
        return x
    if node.op_type == "Slice" and _takes_all(node):
        return x
    if node.op_type == "Reshape" and (producer := x.producer()) is not None and producer.op_type == "Squeeze":
        # A size that was made a scalar and is made a list again.
        target, source = _array(node.inputs[1], ()), producer.inputs[0]
        made = source.producer() if source is not None else None
        if made is not None and made.op_type == "Shape" and target is not None and target.tolist() == [-1]:
            return source
    return None


def _takes_all(node: ir.Node) -> bool:
    starts, ends = (_array(node.inputs[i], ()) for i in (1, 2))
    steps = _array(node.inputs[4], ()) if len(node.inputs) > 4 else np.ones(1)
    if starts is None or ends is None or steps is None:
        return False
    return bool((starts == 0).all() and (ends == _FULL).all() and (steps == 1).all())


def _is_zeros(value: ir.Value | None, keep: Collection[str]) -> bool:
    """Whether a value is a constant of zeros, small or still to be expanded."""
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Expand":
        value = producer.inputs[0]
    array = _array(value, keep)
    return array is not None and not array.any()


def _merge_constants(graph: ir.Graph, keep: Collection[str]) -> None:
    """Constants of equal dtype, shape and bytes become one node, at the top of the graph."""
    known: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for node in [node for node in graph if node.op_type == "Constant" and not node.domain]:
        value = node.outputs[0]
        array = _array(value, keep)
        if array is None or value.is_graph_output():
            continue
        key = (array.dtype.name, array.shape, array.tobytes())
        if key in known:
            value.replace_all_uses_with(known[key])
        else:
            known[key] = value
            graph.remove(node)
            graph.insert_before(graph[0], node)
