"""A portable graph as a `torch.fx.GraphModule` of torch's own layers and functions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from modelport.backends.torch.operands import identifier
from modelport.backends.torch.traced import Tensor
from modelport.backends.torch.walk import Walk
from modelport.backends.torch.weights import Weights
from modelport.core.backend import Built
from modelport.core.report import Note
from modelport.core.signature import Signature, Tree, leaves, map_tree
from modelport.graph.layers.recognize import recognize_layers
from modelport.graph.normal import normalize
from modelport.graph.signature import read_signature
from modelport.graph.weights import ROLES_KEY
from modelport.graph.widen import WIDENED, widen_recurrent


def build(graph: ir.Model) -> Built:
    """A module that computes a portable graph, in eval mode.

    Weights are parameters and buffers under their portable names, in layers of `torch.nn` where the names fit one. The
    module refers to torch only; where it cannot (a branch or a loop that only the run decides, an operator that runs
    on the host) a note says so, and modelport has to be installed to unpickle it.

    Args:
        graph: a portable graph; it is left as it was.

    Raises:
        UnsupportedOpError: torch has no counterpart for an operator; the message names it and its node.
    """
    signature = read_signature(graph).spread()
    normal = normalize(graph)
    widened = widen_recurrent(normal)
    model = recognize_layers(normal)
    walk = Walk(Weights(model, foreign=ROLES_KEY not in graph.metadata_props), model.graph.opset_imports)
    _inputs(walk, signature, model.graph)
    walk.walk(model.graph)
    values = {value.name: value for value in model.graph.outputs}
    walk.operands.graph.output(map_tree(lambda name: walk.result(values[name]), signature.returns))
    notes = (*walk.operands.notes, *(Note("changed", name, WIDENED) for name in widened))
    return Built(walk.module(), notes, signature=signature)


def _inputs(walk: Walk, signature: Signature, graph: ir.Graph) -> None:
    """One placeholder per argument of the native call, and an item of it for each tensor inside."""
    values = {value.name: value for value in graph.inputs}
    trees: list[tuple[str, Tree]] = [
        (_argument_name(tree, index), tree) for index, tree in enumerate(signature.args or ())
    ]
    trees += list(signature.kwargs.items())
    for name, tree in trees:
        default: Any = inspect.Parameter.empty if any(True for _ in leaves(tree)) else None
        node = walk.operands.graph.placeholder(identifier(name), default_value=default)
        _unpack(walk, walk.operands.wrap(node), tree, values)


def _unpack(walk: Walk, tensor: Tensor, tree: Tree, values: Mapping[str | None, ir.Value]) -> None:
    if isinstance(tree, str):
        walk.known(values[tree], tensor.node)
        return
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree or ())
    for key, item in items:
        if any(True for _ in leaves(item)):
            _unpack(walk, tensor[key], item, values)


def _argument_name(tree: Tree, index: int) -> str:
    return tree if isinstance(tree, str) else f"args_{index}" if index else "inputs"
