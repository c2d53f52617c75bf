"""What the names that a user gives stand for: nodes, weights, and layers with all below them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelport.core.errors import StepError
from modelport.graph.names import dotted
from modelport.graph.weights import aliases, roles


class Named:
    """The nodes and weights of a graph that some names mean.

    Args:
        names: of nodes, of weights, or of layers around them.
        model: the graph.
        setting: the step and its setting that has the names, for the message (`"Prune: exclude"`).

    Raises:
        StepError: nothing has one of the names.
    """

    def __init__(self, names: Sequence[str], model: ir.Model, setting: str) -> None:
        self._names = tuple(names)
        tied = aliases(model)
        known = {node.name or "" for node in model.graph.all_nodes()} | set(model.graph.initializers) | set(tied)
        for name in names:
            if not any(_is_below(each, name) or _is_below(dotted(each), dotted(name)) for each in known):
                raise StepError(
                    f"{setting} names {name!r}, but no node, layer or weight of the model is called so; its weights "
                    f"are {', '.join(list(roles(model))[:8])}, …"
                )
        self._tied = {weight for alias, weight in tied.items() if self._is_below(alias)}

    def node(self, node: ir.Node) -> bool:
        """Whether a node, or a layer around it, is named."""
        return self._is_below(node.name or "")

    def weight(self, value: ir.Value) -> bool:
        """Whether a weight, by any of its names, or a layer around it is named."""
        return self._is_below(value.name or "") or value.name in self._tied

    def _is_below(self, name: str) -> bool:
        return any(_is_below(name, above) or _is_below(dotted(name), dotted(above)) for above in self._names)


def _is_below(name: str, above: str) -> bool:
    return name == above or name.startswith((f"{above}.", f"{above}/"))
