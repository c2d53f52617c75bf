"""What a node computes: ONNX's reference evaluator, and ONNX Runtime where that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper
from onnx.reference import ReferenceEvaluator

from modelport.backends.onnx.opset import runnable
from modelport.graph.host import misreads

Values = list[Any]

Condition = Callable[[onnx.NodeProto, int], bool]
"""Whether something holds for a node of an opset."""


def _always(node: onnx.NodeProto, opset: int) -> bool:
    return True


def _before(first: int) -> Condition:
    return lambda node, opset: opset < first


def _setting(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name]
    return found[0] if found else default


REFERENCE_IS_WRONG: dict[str, tuple[Condition, str]] = {
    "BatchNormalization": (_before(14), "it takes the statistics of the batch, as in training"),
    "Hardmax": (_before(13), "it has the meaning of opset 13, which normalises one axis"),
    "LogSoftmax": (_before(13), "it has the meaning of opset 13, which normalises one axis"),
    "Loop": (_always, "it joins what it collects along the first axis instead of stacking it"),
    "ReduceSumSquare": (_always, "it widens int32"),
    "RoiAlign": (_before(16), "it shifts by half a pixel, which opset 10 does not"),
    "Softmax": (_before(13), "it has the meaning of opset 13, which normalises one axis"),
    "Squeeze": (_before(13), "it removes axes one after another in the order in which they are given"),
    "Unsqueeze": (_before(13), "it inserts axes one after another in the order in which they are given"),
}
"""Operators that the reference evaluator computes otherwise than the standard says: for which nodes, and how.

ONNX Runtime is the oracle for them, as for what `modelport.graph.host.misreads` knows of the newest opsets.
"""


_PLACED_OTHERWISE = (b"align_corners", b"pytorch_half_pixel", b"half_pixel_symmetric")

RUNTIME_IS_WRONG: dict[str, tuple[Condition, str]] = {
    "Attention": (
        lambda node, opset: bool(_setting(node, "is_causal", 0)) and len(node.input) > 4 and bool(node.input[4]),
        "a single query sees all keys, also those behind the causal diagonal",
    ),
    "Resize": (
        lambda node, opset: (
            (place := _setting(node, "coordinate_transformation_mode", b"half_pixel")) in _PLACED_OTHERWISE
            or (bool(_setting(node, "antialias", 0)) and place != b"half_pixel")
        ),
        "it rounds the size to a whole number before it places the samples, and smooths from the middles of pixels",
    ),
    "RoiAlign": (
        lambda node, opset: _setting(node, "mode") == b"max" and _setting(node, "sampling_ratio", 0) != 1,
        "it weighs before it takes the largest sample, and says so in a warning",
    ),
}
"""Operators that ONNX Runtime computes otherwise than the standard's own test data says; it is not compared on them."""


class NoOracle(Exception):
    """The node cannot be evaluated: it is not valid, or nobody implements it."""


def tensor_type(array: np.ndarray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def type_of(value: Any) -> onnx.TypeProto:
    """The type of an array, or of a list of arrays, with the sizes of an array."""
    if isinstance(value, list):
        element = helper.make_tensor_type_proto(tensor_type(value[0]) if value else onnx.TensorProto.FLOAT, None)
        return helper.make_sequence_type_proto(element)
    return helper.make_tensor_type_proto(tensor_type(value), list(value.shape))


def model_of_node(node: onnx.NodeProto, feeds: Mapping[str, Any], opset: int) -> onnx.ModelProto:
    """The node alone, with what it reads, in its subgraphs too, as inputs."""
    inputs = [helper.make_value_info(name, type_of(value)) for name, value in feeds.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def evaluate(node: onnx.NodeProto, feeds: Sequence[Mapping[str, Any]], opset: int) -> list[Values]:
    """The outputs that have a name, for each of several feeds.

    Raises:
        NoOracle: the node is not valid for them.
    """
    if any(True for _ in trusted_to_runtime(node, opset)):
        return [_by_runtime(node, feed, opset) for feed in feeds]
    try:
        evaluator = ReferenceEvaluator(model_of_node(node, feeds[0], opset))
    except RuntimeError:  # it has no implementation for this opset
        return [_by_runtime(node, feed, opset) for feed in feeds]
    try:
        with np.errstate(all="ignore"):
            return [[_settled(value) for value in evaluator.run(None, dict(feed))] for feed in feeds]
    except Exception as error:  # the evaluator checks nothing: what is not valid fails somewhere inside it
        raise NoOracle(f"{type(error).__name__}: {error}") from error


def _settled(value: Any) -> Any:
    if isinstance(value, list):
        return [np.asarray(item) for item in value]
    return value if value is None else np.asarray(value)


def trusted_to_runtime(node: onnx.NodeProto, opset: int) -> Iterator[str]:
    """The operators in a node and its subgraphs that ONNX Runtime is the oracle for."""
    for each in _with_inner(node):
        found = REFERENCE_IS_WRONG.get(each.op_type)
        if (found is not None and found[0](each, opset)) or misreads(_alone(each)):
            yield each.op_type


def _alone(node: onnx.NodeProto) -> ir.Node:
    """The node without the graph around it, and without subgraphs."""
    inputs = [ir.Value(name=name) if name else None for name in node.input]
    attributes = [ir.serde.deserialize_attribute(each) for each in node.attribute if not each.HasField("g")]
    return ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=len(node.output))


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node and those of its subgraphs."""
    yield node
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _with_inner(inner)


def _by_runtime(node: onnx.NodeProto, feed: Mapping[str, Any], opset: int) -> Values:
    for each in _with_inner(node):
        found = RUNTIME_IS_WRONG.get(each.op_type)
        if found is not None and found[0](each, opset):
            raise NoOracle(f"ONNX Runtime is wrong: {found[1]}")
    if any(array.size == 0 for array in feed.values() if isinstance(array, np.ndarray)):
        raise NoOracle("kernels of ONNX Runtime make other shapes of nothing than the standard")
    try:
        session = open_in_runtime(model_of_node(node, feed, opset))
        return [_settled(value) for value in session.run(None, dict(feed))]
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise NoOracle(f"{type(error).__name__}: {error}") from error


def open_in_runtime(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session that optimises nothing away."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(runnable(model).SerializeToString(), options)


def check_runtime(node: onnx.NodeProto, feeds: Sequence[Mapping[str, Any]], opset: int) -> None:
    """ONNX Runtime takes the node with these inputs.

    Raises:
        NoOracle: it does not, or is known to be wrong.
    """
    for feed in feeds:
        _by_runtime(node, feed, opset)


def inferred_types(node: onnx.NodeProto, feed: Mapping[str, Any], opset: int) -> dict[str, onnx.TypeProto]:
    """The types of the outputs by name, as the standard says.

    Raises:
        NoOracle: the standard does not allow the node.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError as error:
        raise NoOracle(str(error)) from error
    if schema.deprecated or not _types_fit(schema, [feed.get(name) for name in node.input]):
        raise NoOracle("the operator's types do not allow it")
    if any(attribute.name not in schema.attributes for attribute in node.attribute):
        raise NoOracle("the operator has no such attribute")
    model = model_of_node(node, feed, opset)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise NoOracle(str(error)) from error
    return {value.name: value.type for value in inferred.graph.output}


def _types_fit(schema: onnx.defs.OpSchema, values: Sequence[Any]) -> bool:
    if not schema.min_input <= len(values) <= schema.max_input:
        return False
    bound: dict[str, str] = {}
    for place, value in enumerate(values):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if value is None:
            if formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
                return False
            continue
        kind = _type_name(value)
        if kind not in formal.types:
            return False
        if formal.is_homogeneous and bound.setdefault(formal.type_str, kind) != kind:
            return False
    return True


def _type_name(value: Any) -> str:
    if isinstance(value, list):
        return f"seq({_type_name(value[0])})" if value else "seq(tensor(float))"
    name = onnx.TensorProto.DataType.Name(tensor_type(value)).lower()
    return f"tensor({name})"
