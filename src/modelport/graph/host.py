"""One node on the host: computed on NumPy arrays by onnx's reference evaluator.

It is what a backend falls back to for an operator that its framework cannot express, strings say.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import RuntimeContextError

from modelport.core.errors import UnsupportedOpError
from modelport.graph.host_text import StringNormalizer
from modelport.graph.subgraphs import captured, subgraphs
from modelport.graph.upgrade.standard import write_standard_nodes


@dataclass(frozen=True)
class HostNode:
    """A node with its attributes and subgraphs, apart from its graph. It pickles, and its fields are plain data.

    Attributes:
        program: an ONNX model of the one node, serialised; constants that the node takes are inside.
        inputs: the names of the values that a call takes, in order.
        outputs: the names of the results, in order; empty where nothing uses one.
        op_type: the operator, for messages.

    Example:
        >>> node = ir.node("StringConcat", [ir.val("a"), ir.val("b")])
        >>> node.outputs[0].name = "ab"
        >>> host, _ = host_node(node, {"": 20})
        >>> host(np.array(["x"], object), np.array(["y"], object))
        (array(['xy'], dtype=object),)
    """

    program: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    op_type: str

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """The results, one per output; `None` for one that has no name.

        Args:
            values: arrays, lists of arrays for sequences, `None` for an empty optional; strings as arrays of objects.

        Raises:
            UnsupportedOpError: onnx's evaluator cannot compute the node with these values.
        """
        wanted = [name for name in self.outputs if name]
        try:
            results = _evaluator(self.program).run(wanted, dict(zip(self.inputs, values, strict=True)))
        except Exception as error:  # the evaluator raises whatever NumPy, Pillow or its own code does
            raise UnsupportedOpError(
                f"{self.op_type} ({', '.join(wanted)}) runs on the host, and onnx's reference evaluator cannot compute "
                f"it with these inputs: {type(error).__name__}: {error}.",
                op_type=self.op_type,
            ) from error
        found = dict(zip(wanted, map(_plain, results), strict=True))
        return tuple(found.get(name) for name in self.outputs)


def _rank(node: ir.Node) -> int | None:
    value = node.inputs[0]
    return None if value is None or value.shape is None else len(value.shape)


def _is_dilated(node: ir.Node) -> bool:
    return max(node.attributes.get_ints("dilations", (1,)) or (1,)) > 1


_MISREAD: dict[str, Callable[[ir.Node], bool]] = {
    # It leaves out directions, activations, clips and lengths.
    **dict.fromkeys(("GRU", "LSTM", "RNN"), lambda node: True),
    # It puts windows where they do not fit once they are dilated.
    "AveragePool": lambda node: node.attributes.get_string("auto_pad") == "VALID" and _is_dilated(node),
    # It adds the first group's bias to every group.
    "ConvTranspose": lambda node: (node.attributes.get_int("group", 1) or 1) > 1,
    # It reduces two axes, whatever the rank.
    "GlobalMaxPool": lambda node: _rank(node) != 4,
    # It sums over as many channels as the batch has rows.
    "LRN": lambda node: True,
    # It divides by a window that pads do not make smaller.
    "LpPool": lambda node: True,
    # It takes the pads in another order, and none but those of images.
    "MaxPool": lambda node: True,
    # It inserts at the front what belongs behind the last one.
    "SequenceInsert": lambda node: len(node.inputs) > 2 and node.inputs[2] is not None,
    # It flattens what it has found along an axis, and sorts where nothing else is asked for.
    "Unique": lambda node: (
        not node.attributes.get_int("sorted", 1) and ("axis" in node.attributes or len(node.outputs) == 1)
    ),
}
"""Which nodes onnx's evaluator computes otherwise than the standard says, by operator."""


def misreads(node: ir.Node) -> bool:
    """Whether onnx's evaluator has an implementation of a node's operator that is known to be wrong for the node."""
    return not node.domain and node.op_type in _MISREAD and _MISREAD[node.op_type](node)


def host_computes(node: ir.Node, opsets: Mapping[str, int]) -> bool:
    """Whether onnx's evaluator has an implementation of a node's operator that can be relied on."""
    if misreads(node):
        return False
    host, _ = host_node(node, opsets)
    try:
        _evaluator(host.program)
    except NotImplementedError:
        return False
    except RuntimeError as error:
        # A function whose body depends on the types of its inputs is known only when they are; no opset is no operator.
        return isinstance(error, RuntimeContextError)
    return True


def host_node(
    node: ir.Node,
    opsets: Mapping[str, int],
    weights: Container[str] = (),
    known: Mapping[ir.Value, np.ndarray] = MappingProxyType({}),
) -> tuple[HostNode, tuple[ir.Value, ...]]:
    """A node of a graph as something that runs on the host, and the values to call it with.

    Args:
        node: of a graph in normal form; its subgraphs may use values from around them.
        opsets: the graph's opset imports.
        weights: the names of the weights, which are values to call it with. Every other constant goes inside.
        known: values that are as good as constants, and what they are; they go inside too.

    Returns:
        The description, and the graph's values in the order of its inputs.
    """
    around = captured(*subgraphs(node))
    values = dict.fromkeys((*(value for value in node.inputs if value is not None), *around))
    inside = {value for value in values if value.const_value is not None and value.name not in weights}
    taken = tuple(value for value in values if value not in inside and value not in known)
    outputs = tuple(value.name or "" for value in node.outputs)
    proto = ir.serde.serialize_node(node)
    write_standard_nodes(proto)
    graph = onnx.GraphProto(name="node", node=[proto])
    graph.input.extend(onnx.ValueInfoProto(name=str(value.name)) for value in taken)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name)
    graph.initializer.extend(_tensor(value) for value in values if value in inside)
    graph.initializer.extend(
        ir.serde.serialize_tensor(ir.tensor(array, name=value.name))
        for value, array in known.items()
        if value in values and value not in inside
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    program = onnx.helper.make_model(graph, opset_imports=imports).SerializeToString()
    return HostNode(program, tuple(str(value.name) for value in taken), outputs, node.op_type), taken


@cache
def runs_on_host(op_type: str, domain: str = "") -> bool:
    """Whether onnx's reference evaluator has an operator of the standard's newest opset."""
    if not onnx.defs.has(op_type, domain):
        return False
    version = onnx.defs.get_schema(op_type, domain=domain).since_version
    node = onnx.helper.make_node(op_type, [], [], domain=domain)
    graph = onnx.helper.make_graph([node], "node", [], [])
    program = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(domain, version)])
    try:
        ReferenceEvaluator(program)
    except NotImplementedError:
        return False
    except (RuntimeError, AttributeError):
        # It misses the attributes of a real node, so there is something to run.
        return True
    return True


@lru_cache(maxsize=1024)
def _evaluator(program: bytes) -> Any:
    return ReferenceEvaluator(onnx.ModelProto.FromString(program), new_ops=[StringNormalizer])


def _tensor(value: ir.Value) -> onnx.TensorProto:
    assert value.const_value is not None
    proto = ir.serde.serialize_tensor(value.const_value)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        proto = ir.serde.serialize_tensor(ir.tensor(value.const_value.numpy(), dtype=value.const_value.dtype))
    proto.name = str(value.name)
    return proto


def _plain(result: Any) -> Any:
    """A result as the border has it: arrays, of Python strings as objects; sequences as lists."""
    if result is None or isinstance(result, (list, tuple)):
        return None if result is None else [_plain(item) for item in result]
    array = np.asarray(result)
    return array.astype(object) if array.dtype.kind in "US" else array
