"""Parts of a graph, and whole graphs, as programs for the layer and the model that compute them at run time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from modelport.backends.keras.dynamic.evaluate import implementation
from modelport.backends.keras.dynamic.host import HOST
from modelport.backends.keras.runtime import encoded
from modelport.core.errors import UnsupportedOpError
from modelport.graph.host import host_computes
from modelport.graph.subgraphs import captured, subgraphs


def needed(nodes: Sequence[ir.Node]) -> tuple[ir.Value, ...]:
    """The values from outside some nodes that they, or their subgraphs, use; each once."""
    made = {value for node in nodes for value in node.outputs}
    used: dict[ir.Value, None] = {}
    for node in nodes:
        used.update(dict.fromkeys(value for value in node.inputs if value is not None))
        used.update(dict.fromkeys(captured(*subgraphs(node))))
    return tuple(value for value in used if value not in made)


def exposed(nodes: Sequence[ir.Node], graph: ir.Graph) -> list[ir.Value]:
    """The results of some nodes of a graph that its other nodes, or its caller, use."""
    made = [value for node in nodes for value in node.outputs if value.name]
    if len(nodes) == 1:
        return [value for value in made if value.uses() or value.is_graph_output()] or made
    used = {*graph.outputs, *needed([node for node in graph if node not in set(nodes)])}
    return [value for value in made if value in used]


def part(
    nodes: Sequence[ir.Node],
    inputs: Iterable[ir.Value],
    outputs: Iterable[ir.Value],
    opsets: Mapping[str, int],
    known: Mapping[ir.Value, np.ndarray] | None = None,
) -> str:
    """Some nodes as a program of their own, as text.

    Args:
        nodes: in their order, with the types and shapes of their values.
        inputs: the values that a call gives; what else the nodes need are constants, and go inside.
        outputs: the values that it returns.
        opsets: of the graph.
        known: what is no constant of the graph and yet known, such as a size of an input.
    """
    given, known = list(inputs), known or {}
    graph = onnx.GraphProto(name="part", node=[ir.serde.serialize_node(node) for node in nodes])
    graph.input.extend(_info(value) for value in given)
    graph.output.extend(_info(value) for value in outputs)
    graph.value_info.extend(_info(value) for node in nodes for value in node.outputs if value.name)
    for value in needed(nodes):
        if value not in given and value.const_value is not None:
            graph.initializer.append(_tensor(value))
        elif value not in given and value in known:
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(known[value]), str(value.name)))
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return encoded(onnx.helper.make_model(graph, opset_imports=imports))


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    return ir.serde.serialize_value(value)


def _tensor(value: ir.Value) -> onnx.TensorProto:
    assert value.const_value is not None
    array, dtype, name = value.const_value.numpy(), value.const_value.dtype, str(value.name)
    if dtype == ir.DataType.STRING:
        return ir.serde.serialize_tensor(ir.StringTensor(array.astype(object), shape=ir.Shape(array.shape), name=name))
    return ir.serde.serialize_tensor(ir.tensor(array, dtype=dtype, name=name))


def whole(model: ir.Model, weights: Collection[str]) -> str:
    """A whole graph as a program, as text; its weights become its last inputs."""
    nodes = list(model.graph)
    held = [value for name, value in model.graph.initializers.items() if name in weights]
    return part(nodes, [*model.graph.inputs, *held], model.graph.outputs, model.graph.opset_imports)


def settle_hosts(nodes: Iterable[ir.Node], opsets: Mapping[str, int]) -> list[str]:
    """Mark the nodes, those in subgraphs too, that neither Keras nor TensorFlow can express; call it before `part`.

    Returns:
        Their operators.

    Raises:
        UnsupportedOpError: the host does not know one of them either.
    """
    found: dict[str, None] = {}
    for node in nodes:
        if HOST in node.metadata_props or implementation(node) is None:
            found[put_on_host(node, opsets)] = None
            continue
        for graph in subgraphs(node):
            found.update(dict.fromkeys(settle_hosts(graph, opsets)))
    return list(found)


def put_on_host(node: ir.Node, opsets: Mapping[str, int], why: str = "") -> str:
    """Have a node computed on the host; returns its operator.

    Args:
        node: the node.
        opsets: of the graph.
        why: what keeps Keras from computing it.

    Raises:
        UnsupportedOpError: the host does not know it either.
    """
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    if not host_computes(node, opsets):
        raise UnsupportedOpError(
            f"Keras has no counterpart for {name} at node {node.name!r}{why and f' ({why})'}, and the host has none "
            "either. Replace the operator in the source model, or use the onnx backend.",
            op_type=node.op_type,
            node=node.name or "",
        )
    node.metadata_props[HOST] = json.dumps(dict(opsets))
    return name
