"""A graph in the place of another: it takes and gives what the other does, under the same names."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelport.core.errors import StepError
from modelport.core.signature import Dim, Signature, TensorSpec
from modelport.graph.names import make_names_unique
from modelport.graph.signature import graph_inputs, ir_dtype, read_signature, write_signature


def replacing(graph: ir.Model, wanted: Signature, what: str) -> ir.Model:
    """A copy of a graph with the signature of another one, tensor by tensor in their order.

    A dtype that differs is cast, and images that have their channels elsewhere are turned.

    Args:
        graph: in normal form; it stays as it is.
        wanted: the signature that it shall have.
        what: how the caller calls the graph, for the message.

    Raises:
        StepError: the number of tensors, a rank or a size differs.
    """
    own = read_signature(graph)
    for kind, specs, others in (("inputs", own.inputs, wanted.inputs), ("outputs", own.outputs, wanted.outputs)):
        if len(specs) != len(others):
            raise StepError(
                f"{what} does not fit: it has the {kind} {_listed(specs)}, and the model has {_listed(others)}. Both "
                "need the same tensors in the same order."
            )
    model = graph.clone()
    for value, spec in zip(graph_inputs(model.graph), wanted.inputs, strict=True):
        _take(model.graph, value, spec, what)
    for place, spec in enumerate(wanted.outputs):
        _give(model.graph, place, spec, what)
    make_names_unique(model)
    write_signature(model, wanted)
    return model


def _listed(specs: Sequence[TensorSpec]) -> str:
    return f"({'; '.join(map(str, specs))})"


def _take(graph: ir.Graph, value: ir.Value, spec: TensorSpec, what: str) -> None:
    """Put an input in the place of one that is there."""
    own = TensorSpec(str(value.name), spec.dtype, tuple(_size(dim) for dim in value.shape or ()))
    steps = _between(spec, value, f"{what} does not fit: its input is {own}, and the model's {spec}")
    first = ir.Value(name=spec.name, type=ir.TensorType(ir_dtype(spec.dtype)), shape=ir.Shape(spec.shape or ()))
    graph.inputs[list(graph.inputs).index(value)] = first
    nodes = []
    last = first
    for op_type, attributes in steps:
        nodes.append(ir.node(op_type, [last], attributes, name=f"{spec.name}/{op_type.lower()}"))
        last = nodes[-1].outputs[0]
    value.replace_all_uses_with(last)
    value.name = f"{value.name}/before"
    if nodes:
        graph.insert_before(graph[0], nodes)


def _give(graph: ir.Graph, place: int, spec: TensorSpec, what: str) -> None:
    """Put what another output is made of in the place of one that is there."""
    value = graph.outputs[place]
    own = TensorSpec(str(value.name), spec.dtype, tuple(_size(dim) for dim in value.shape or ()))
    given = ir.Value(name=spec.name, type=ir.TensorType(ir_dtype(spec.dtype)), shape=ir.Shape(spec.shape or ()))
    last = value
    for op_type, attributes in _between(
        own, given, f"{what} does not fit: its output is {own}, and the model's {spec}"
    ):
        node = ir.node(op_type, [last], attributes, name=f"{spec.name}/{op_type.lower()}")
        graph.append(node)
        last = node.outputs[0]
    if value.dtype is not None and value.dtype != ir_dtype(spec.dtype):
        node = ir.node("Cast", [last], {"to": ir_dtype(spec.dtype)}, name=f"{spec.name}/cast")
        graph.append(node)
        last = node.outputs[0]
    graph.outputs[place] = last
    last.name = spec.name


def _between(spec: TensorSpec, value: ir.Value, misfit: str) -> list[tuple[str, dict[str, object]]]:
    """The operators that make a value of a graph from a tensor.

    Raises:
        StepError: it cannot be made.
    """
    steps: list[tuple[str, dict[str, object]]] = []
    if value.dtype is not None and value.dtype != ir_dtype(spec.dtype):
        steps.append(("Cast", {"to": value.dtype}))
    given, taken = spec.shape, None if value.shape is None else tuple(_size(dim) for dim in value.shape)
    if given is None or taken is None or _fits(given, taken):
        return steps
    if len(given) == len(taken) > 2:
        last = len(given) - 1
        for perm in ((0, last, *range(1, last)), (0, *range(2, last + 1), 1)):
            if _fits([given[axis] for axis in perm], taken):
                return [*steps, ("Transpose", {"perm": perm})]
    raise StepError(f"{misfit}. Change the student's layer there, so that both have the same sizes.")


def _size(dim: object) -> Dim:
    return dim if isinstance(dim, int) else str(dim)


def _fits(given: Sequence[Dim], taken: Sequence[Dim]) -> bool:
    """Whether every size that one side has is what the other takes; a size that is open on one side fits all."""
    return len(given) == len(taken) and all(
        first == second or isinstance(second, str) for first, second in zip(given, taken, strict=True)
    )
