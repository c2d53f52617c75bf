"""Operators that no framework has, written out as what the standard says they are.

SequenceMap and FlexAttention have bodies in the onnx package itself; the optimizers of the training preview have
formulas, which stand here as functions.
"""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir

from modelport.core.errors import UnsupportedOpError
from modelport.graph.inline import replace_node, splice_graph
from modelport.graph.names import make_names_unique
from modelport.graph.shapes.infer import infer
from modelport.graph.subgraphs import captured, subgraphs

TRAINING = "ai.onnx.preview.training"

_ADAGRAD = """<domain: "ai.onnx.preview.training", opset_import: ["" : 21]>
Adagrad <epsilon, decay_factor, norm_coefficient> (R, T, X, G, H) => (X_new, H_new) {
  one = Constant <value_float: float = 1.0> ()
  decay = Constant <value_float: float = @decay_factor> ()
  steps = CastLike (T, one)
  slowed = Mul (steps, decay)
  divisor = Add (one, slowed)
  divisor_x = CastLike (divisor, X)
  rate_x = CastLike (R, X)
  rate = Div (rate_x, divisor_x)
  norm = Constant <value_float: float = @norm_coefficient> ()
  norm_x = CastLike (norm, X)
  shrunk = Mul (norm_x, X)
  gradient = Add (shrunk, G)
  square = Mul (gradient, gradient)
  H_new = Add (H, square)
  root = Sqrt (H_new)
  small = Constant <value_float: float = @epsilon> ()
  small_x = CastLike (small, X)
  adaptive = Add (root, small_x)
  scaled = Mul (rate, gradient)
  step = Div (scaled, adaptive)
  X_new = Sub (X, step)
}"""

_ADAM = """<domain: "ai.onnx.preview.training", opset_import: ["" : 21]>
Adam <alpha, beta, epsilon, norm_coefficient, norm_coefficient_post> (R, T, X, G, V, H) => (X_final, V_new, H_new) {
  one = Constant <value_float: float = 1.0> ()
  one_x = CastLike (one, X)
  norm = Constant <value_float: float = @norm_coefficient> ()
  norm_x = CastLike (norm, X)
  shrunk = Mul (norm_x, X)
  gradient = Add (shrunk, G)
  alpha_value = Constant <value_float: float = @alpha> ()
  alpha_x = CastLike (alpha_value, X)
  beta_value = Constant <value_float: float = @beta> ()
  beta_x = CastLike (beta_value, X)
  rest_alpha = Sub (one_x, alpha_x)
  rest_beta = Sub (one_x, beta_x)
  V_old = Mul (alpha_x, V)
  V_add = Mul (rest_alpha, gradient)
  V_new = Add (V_old, V_add)
  square = Mul (gradient, gradient)
  H_old = Mul (beta_x, H)
  H_add = Mul (rest_beta, square)
  H_new = Add (H_old, H_add)
  root = Sqrt (H_new)
  small = Constant <value_float: float = @epsilon> ()
  small_x = CastLike (small, X)
  divisor = Add (root, small_x)
  rate_x = CastLike (R, X)
  steps = CastLike (T, X)
  beta_power = Pow (beta_x, steps)
  beta_left = Sub (one_x, beta_power)
  beta_root = Sqrt (beta_left)
  alpha_power = Pow (alpha_x, steps)
  alpha_left = Sub (one_x, alpha_power)
  zero = Constant <value_int: int = 0> ()
  started = Greater (T, zero)
  safe_left = Where (started, alpha_left, one_x)
  corrected = Mul (rate_x, beta_root)
  adjusted = Div (corrected, safe_left)
  rate = Where (started, adjusted, rate_x)
  scaled = Mul (rate, V_new)
  step = Div (scaled, divisor)
  moved = Sub (X, step)
  post = Constant <value_float: float = @norm_coefficient_post> ()
  post_x = CastLike (post, X)
  kept = Sub (one_x, post_x)
  X_final = Mul (kept, moved)
}"""

_MOMENTUM = """<domain: "ai.onnx.preview.training", opset_import: ["" : 21]>
Momentum <alpha, beta, norm_coefficient> (R, T, X, G, V) => (X_new, V_new) {
  one = Constant <value_float: float = 1.0> ()
  norm = Constant <value_float: float = @norm_coefficient> ()
  norm_x = CastLike (norm, X)
  shrunk = Mul (norm_x, X)
  gradient = Add (shrunk, G)
  zero = Constant <value_int: int = 0> ()
  started = Greater (T, zero)
  beta_value = Constant <value_float: float = @beta> ()
  beta_now = Where (started, beta_value, one)
  beta_x = CastLike (beta_now, X)
  alpha_value = Constant <value_float: float = @alpha> ()
  alpha_x = CastLike (alpha_value, X)
  V_old = Mul (alpha_x, V)
  V_add = Mul (beta_x, gradient)
  V_new = Add (V_old, V_add)
  rate = CastLike (R, X)
  STEP
  X_new = Sub (X, step)
}"""

_STANDARD = "step = Mul (rate, V_new)"
_NESTEROV = """ahead = Mul (alpha_x, V_new)
  looked = Add (gradient, ahead)
  step = Mul (rate, looked)"""


def write_out(model: ir.Model) -> bool:
    """Replace the operators of this room by the operators that they stand for, in place.

    Args:
        model: local functions inlined, constants initializers of the main graph.

    Returns:
        Whether there were any.
    """
    wanted = [node for node in model.graph.all_nodes() if (node.domain, node.op_type) in _WRITERS]
    if not wanted:
        return False
    while wanted:
        # The bodies of the onnx package are written for the types of the inputs, which may follow from another body.
        infer(model).write()
        typed = [node for node in wanted if not _untyped(node)]
        for node in typed or wanted:
            _WRITERS[node.domain, node.op_type](node)
        make_names_unique(model)
        wanted = [node for node in model.graph.all_nodes() if (node.domain, node.op_type) in _WRITERS]
    for domain in {TRAINING, "ai.onnx.preview"} - {node.domain for node in model.graph.all_nodes()}:
        model.graph.opset_imports.pop(domain, None)
    return True


def _untyped(node: ir.Node) -> list[str]:
    """The inputs of a node of which no type is known."""
    return [str(value.name) for value in node.inputs if value is not None and value.type is None]


def _own_body(node: ir.Node) -> None:
    """By the function that the operator's schema makes for these inputs and attributes.

    Raises:
        UnsupportedOpError: nothing tells the type of an input; the onnx package would end the process.
    """
    if missing := _untyped(node):
        raise UnsupportedOpError(
            f"{node.op_type} at node {node.name!r} cannot be written out: the types of its inputs {missing} are not "
            "known. Give them to the graph as `value_info`.",
            op_type=node.op_type, node=node.name or "",
        )  # fmt: skip
    schema = onnx.defs.get_schema(node.op_type, node.domain)
    types = [b"" if value is None else _type(value).SerializeToString() for value in node.inputs]
    proto = ir.serde.serialize_node(node)
    function = onnx.FunctionProto.FromString(schema.get_context_dependent_function(proto.SerializeToString(), types))
    inputs = dict(zip(function.input, node.inputs, strict=False))
    inputs.update((str(value.name), value) for value in captured(*subgraphs(node)))
    present = {name: value for name, value in inputs.items() if value is not None}
    replace_node(node, _spliced(node, function, present))


def _type(value: ir.Value) -> onnx.TypeProto:
    proto = onnx.TypeProto()
    if value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None and isinstance(value.type, ir.TensorType):
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def _optimizer(node: ir.Node) -> None:
    """By its formula, once for each of the tensors that it moves."""
    text = {"Adagrad": _ADAGRAD, "Adam": _ADAM, "Momentum": _MOMENTUM}[node.op_type]
    nesterov = node.op_type == "Momentum" and node.attributes["mode"].as_string() == "nesterov"
    function = onnx.parser.parse_function(text.replace("STEP", _NESTEROV if nesterov else _STANDARD))
    kinds = len(function.input) - 2
    tensors = node.inputs[2:]
    count = len(tensors) // kinds
    results = []
    for index in range(count):
        given = [*node.inputs[:2], *tensors[index::count]]
        inputs = {name: value for name, value in zip(function.input, given, strict=True) if value is not None}
        results.append(_spliced(node, function, inputs))
    replace_node(node, [found[kind] for kind in range(len(function.output)) for found in results])


def _spliced(node: ir.Node, function: onnx.FunctionProto, inputs: dict[str, ir.Value]) -> list[ir.Value]:
    """The outputs of a function's body, put before a node, with the node's attributes."""
    graph = onnx.GraphProto(name=function.name, node=function.node)
    for inner in graph.node:
        for attribute in inner.attribute:
            if attribute.ref_attr_name:
                name, value = attribute.name, _attribute(node, attribute.ref_attr_name)
                attribute.CopyFrom(value)
                attribute.name = name
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
    return splice_graph(node, ir.serde.deserialize_graph(graph), list(inputs.values()), node.name or node.op_type)


def _attribute(node: ir.Node, name: str) -> onnx.AttributeProto:
    """An attribute of a node, or its default."""
    if name in node.attributes:
        return ir.serde.serialize_attribute(node.attributes[name])
    return onnx.defs.get_schema(node.op_type, node.domain).attributes[name].default_value


def _category_mapper(node: ir.Node) -> None:
    """The encoder of labels that came after it."""
    words = node.attributes["cats_strings"].as_strings()
    numbers = list(node.attributes["cats_int64s"].as_ints())
    source = node.inputs[0]
    if source is not None and source.dtype == ir.DataType.STRING:
        default = node.attributes.get_int("default_int64", -1)
        attributes = {"keys_strings": words, "values_int64s": numbers, "default_int64": default}
    else:
        default = node.attributes.get_string("default_string", "_Unused")
        attributes = {"keys_int64s": numbers, "values_strings": words, "default_string": default}
    encoder = ir.node("LabelEncoder", node.inputs, attributes, domain="ai.onnx.ml", name=node.name)
    assert node.graph is not None
    node.graph.insert_before(node, encoder)
    encoder.outputs[0].type = node.outputs[0].type
    encoder.outputs[0].shape = node.outputs[0].shape
    replace_node(node, encoder.outputs)


_WRITERS = {
    ("ai.onnx.ml", "CategoryMapper"): _category_mapper,
    ("", "SequenceMap"): _own_body,
    ("ai.onnx.preview", "FlexAttention"): _own_body,
    **{(TRAINING, name): _optimizer for name in ("Adagrad", "Adam", "Momentum")},
}
