"""Naming nodes and values after the place in the source that made them.

A scope is the path of a module or layer of the source (`encoder.layer.0.attention`). A call is one operator that the
source runs there, whatever number of nodes it takes in ONNX. See docs/names.md for the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

CALL = "modelport.call"
"""Where a node keeps its `Call`, in its `meta`."""

_TORCH_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Call:
    """Where a node comes from.

    Attributes:
        scope: the path of the module; empty at the root.
        operator: what it runs there; empty where the call is all that the module does.
        key: what tells this call from others.
    """

    scope: str
    operator: str
    key: object


def torch_call(node: ir.Node) -> Call | None:
    """The call that torch's exporter notes beside a node."""
    # Dotted paths of modules, outermost first, and at last the operator: ['', 'layer1', 'layer1.0', 'relu_3'].
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get(_TORCH_SCOPES, ""))
    if not scopes:
        return None
    path = re.sub(r"@\d+", "", scopes[-2]) if len(scopes) > 1 else ""
    operator = _OPERATORS.get(stem := re.sub(r"_\d+$", "", scopes[-1]), stem.lstrip("_") or stem)
    return Call("" if path.startswith("_") else path, operator, tuple(scopes))


_OPERATORS = {"_native_batch_norm_legit_no_training": "batch_norm", "_native_batch_norm_legit": "batch_norm"}
"""Operators of torch's programs that nobody writes, and what is written."""


def name_calls(graph: ir.Graph) -> None:
    """Name the nodes that have a `Call` after it, and every value after its node, in place.

    The node that gives a call's result has the call's name: the scope's, where the module runs no other operator (so
    that a layer is called as in the source), else the scope's and the operator's. What stands before it in the same
    call has its own operator behind that. Inputs, outputs and initializers keep their names.
    """
    calls = {node: call for node in graph.all_nodes() if (call := node.meta.get(CALL)) is not None}
    last = {call.key: node for node, call in calls.items()}
    lone = _lone_operators(calls.values())
    taken: set[str] = set()
    names: dict[object, str] = {}
    for call in dict.fromkeys(calls.values()):
        stem = call.scope if call.scope and _says_it(call, lone) else f"{call.scope}.{call.operator}".strip(".")
        names[call.key] = _free(stem, taken)
    for node in graph.all_nodes():
        call = calls.get(node)
        if call is None:
            node.name = _free(node.name or node.op_type.lower(), taken)
        elif node is last[call.key]:
            node.name = names[call.key]
        else:
            node.name = _free(f"{names[call.key]}.{node.op_type.lower()}", taken)
        node.meta.pop(CALL, None)


def name_values(graph: ir.Graph, reserved: Iterable[str] = ()) -> None:
    """Name every value after the node that makes it, in place; inputs, outputs and initializers keep their names.

    Args:
        graph: with its subgraphs.
        reserved: further names that no value may have.
    """
    graphs = [graph, *(inner for inner in graph.subgraphs() if inner is not graph)]
    fixed = {
        id(value): value for each in graphs for value in (*each.inputs, *each.outputs, *each.initializers.values())
    }
    taken = {*reserved, *(str(value.name) for value in fixed.values())}
    loose = [(node, index) for node in graph.all_nodes() for index, value in enumerate(node.outputs) if value.name]
    loose = [(node, index) for node, index in loose if id(node.outputs[index]) not in fixed]
    for node, index in loose:
        node.outputs[index].name = None
    for node, index in loose:
        node.outputs[index].name = _free(f"{node.name}.{index}" if index else str(node.name), taken)


def _says_it(call: Call, lone: set[str]) -> bool:
    """Whether the scope alone says what the call does."""
    last = re.sub(r"_\d+$", "", call.scope.rpartition(".")[2])
    return call.scope in lone or call.operator in ("", last)


def _lone_operators(calls: Iterable[Call]) -> set[str]:
    """The scopes of modules that have no others inside and run one operator, once or more."""
    operators: dict[str, set[str]] = {}
    for call in calls:
        operators.setdefault(call.scope, set()).add(call.operator)
    parents = {".".join(parts[:end]) for scope in operators if (parts := scope.split(".")) for end in range(len(parts))}
    return {scope for scope, found in operators.items() if len(found) == 1 and scope not in parents}


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number behind it where it is taken; it is taken then."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
