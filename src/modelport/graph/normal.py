"""The normal form: one opset, no functions, no constant computations, every shape inferred."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
)

from modelport.graph.control import settle_control_flow
from modelport.graph.fold import fold_constants
from modelport.graph.names import make_names_unique, unique_name
from modelport.graph.scopes import CALL, name_calls, torch_call
from modelport.graph.sequences import unpack_sequences
from modelport.graph.shapes.infer import ShapeInfo, infer
from modelport.graph.splice import discard
from modelport.graph.upgrade.bodies import write_out
from modelport.graph.upgrade.contrib import write_standard
from modelport.graph.upgrade.to_newest import NORMAL_OPSET, upgrade
from modelport.graph.weights import lift_weights, roles, set_roles

__all__ = ["NORMAL_OPSET", "normalize", "tidied", "tidy"]


def normalize(model: ir.Model, *, keep: Collection[str] = ()) -> ir.Model:
    """A copy of a graph in normal form.

    Local functions are inlined, operators brought to `NORMAL_OPSET`, constants are initializers of the main graph and
    what follows from them is folded, identities and dead nodes are gone, dtypes and shapes are on every value. Branches
    that are known and short loops that are counted are written out (`control`), and so are operators that stand for
    others (`bodies`).
    Weights stay as they are, used or not, and so do Dropout, the names of inputs, outputs and weights, and the
    metadata. Tensors are shared with the original, not copied.

    Args:
        model: any portable graph; it stays as it was.
        keep: operators of ONNX Runtime's own domain that stay as they are (`"MatMulNBits"`).

    Raises:
        UnsupportedOpError: a node of an old opset, or of ONNX Runtime's own, has no equivalent in the new one.
    """
    model = _prepared(model)
    graph = model.graph
    write_standard(model, keep)
    upgrade(model)
    if write_out(model):
        _name_nodes(graph)
        _lift_constants(model)
    tidy(model)
    while settle_control_flow(model):
        tidy(model)
    return model


def tidied(model: ir.Model) -> ir.Model:
    """A copy of a graph without the noise (see `tidy`), at its own opset, with the operators that it has.

    Local functions are inlined, and constant weights are initializers with their roles. Tensors are shared with the
    original, not copied.
    """
    model = _prepared(model)
    tidy(model)
    return model


def _prepared(model: ir.Model) -> ir.Model:
    """A copy of a graph without functions, with names for all it has, and with roles for its weights."""
    model = model.clone()
    _say_standard_domain(model)
    lift_weights(model)
    set_roles(model, roles(model))
    _drop_weight_inputs(model.graph)
    if model.functions:
        model = _inlined(model)
    make_names_unique(model)
    _name_nodes(model.graph)
    _lift_constants(model)
    return model


def tidy(model: ir.Model) -> None:
    """Take the noise out of a graph, in place and at its own opset.

    Constants become initializers of the main graph and what follows from them is folded, sequences that are only taken
    apart become tensors, identities and dead nodes go, dtypes and shapes are on every value. Weights stay.

    Args:
        model: a graph without local functions, whose weights have their roles.
    """
    _lift_constants(model)
    info = infer(model)
    if unpack_sequences(model, info):
        info = infer(model)
    fold_constants(model, info)
    drop_identities(model.graph, info)
    drop_expands(model.graph, info)
    drop_dead_nodes(model)
    info.write()


def drop_identities(graph: ir.Graph, info: ShapeInfo) -> None:
    """Remove what changes nothing from a graph and its subgraphs; what gives an output another's name stays."""
    for node in list(graph.all_nodes()):
        if not node.inputs or node.inputs[0] is None or not _is_identity(node, info):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if result.is_graph_output():
            owner = source.producer()
            if owner is None or owner.graph is not node.graph or source.is_graph_output():
                continue
            name = result.name
            result.name = f"{name}/identity"
            source.name = name
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _is_identity(node: ir.Node, info: ShapeInfo) -> bool:
    """Whether a node hands on its first input as it is."""
    if node.domain or len(node.outputs) != 1 or node.inputs[0] is None:
        return False
    source, result = node.inputs[0], node.outputs[0]
    dims = info.dims(source)
    match node.op_type:
        case "Identity":
            return True
        case "Cast":
            return info.dtype(source) is not None and info.dtype(source) == info.dtype(result)
        case "Concat":
            return len(node.inputs) == 1
        case "Transpose":
            perm = node.attributes.get_ints("perm")
            return perm is not None and list(perm) == sorted(perm)
        case "Slice":
            steps = info.elements(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else (1,)
            forward = steps is not None and set(steps) == {1}
            return forward and dims is not None and dims == info.dims(result)
        case "Expand" | "Reshape":
            return dims is not None and dims == info.dims(result)
    return False


BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Less", "Greater"})


def drop_expands(graph: ir.Graph, info: ShapeInfo) -> None:
    """Let operators that broadcast do so themselves: an Expand goes where another operand has the size it makes."""
    for node in list(graph.all_nodes()):
        if node.domain or node.op_type != "Expand" or node.inputs[0] is None:
            continue
        result = node.outputs[0]
        for user, index in list(result.uses()):
            others = (value for place, value in enumerate(user.inputs) if place != index)
            fits = any(value is not None and info.dims(value) == info.dims(result) for value in others)
            if fits and info.dims(result) is not None and user.op_type in BROADCASTING and not user.domain:
                user.replace_input_with(index, node.inputs[0])


def drop_dead_nodes(model: ir.Model) -> None:
    """Remove the nodes and constants that no output needs, in place; weights stay."""
    graph = model.graph
    for node in reversed(list(graph.all_nodes())):
        if node.graph is not None and not any(value.uses() or value.is_graph_output() for value in node.outputs):
            discard(node)
    weights = roles(model)
    for name, value in list(graph.initializers.items()):
        if name not in weights and not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _say_standard_domain(model: ir.Model) -> None:
    """The standard's domain has two names; here it is called by the empty one."""
    for imports in (model.graph.opset_imports, *(function.opset_imports for function in model.functions.values())):
        if "ai.onnx" in imports:
            version = imports.pop("ai.onnx")
            imports.setdefault("", version)


def _inlined(model: ir.Model) -> ir.Model:
    """The model without local functions; a node from a function of another opset than the model's says so."""
    imports = model.graph.opset_imports
    for function in model.functions.values():
        version = function.opset_imports.get("")
        if version is not None and imports.setdefault("", version) != version:
            for node in function.all_nodes():
                node.version = node.version if node.domain else version
        shared = {domain: version for domain, version in imports.items() if domain in function.opset_imports}
        function.opset_imports.update(shared)
    return InlinePass()(model).model


def _name_nodes(graph: ir.Graph) -> None:
    """Give a node without a name that of its first output, and every node a name of its own.

    Where torch's exporter tells of a node which module made it, it is named after that.
    """
    taken: set[str] = set()
    calls = {node: call for node in graph.all_nodes() if (call := torch_call(node)) is not None}
    for node in graph.all_nodes():
        node.name = unique_name(node.name or node.outputs[0].name or node.op_type, taken)
        taken.add(node.name)
        if node in calls:
            node.meta[CALL] = calls[node]
    if calls:
        name_calls(graph)


def _drop_weight_inputs(graph: ir.Graph) -> None:
    """Old exporters list every initializer among the inputs too."""
    for value in [value for value in graph.inputs if value.name in graph.initializers]:
        graph.inputs.remove(value)


def _lift_constants(model: ir.Model) -> None:
    """Make constants initializers of the main graph; one that a graph returns stays a node with a tensor."""
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    LiftSubgraphInitializersToMainGraphPass()(model)
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and not node.domain and "value" not in node.attributes:
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            if tensor is not None:
                node.attributes.clear()
                node.attributes["value"] = ir.AttrTensor("value", tensor)
