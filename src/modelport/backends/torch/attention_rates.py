"""The dropout inside the attentions of a `GraphModule`, which a trace of the evaluated model does not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def restore_rates(graph: fx.Graph, layers: Mapping[str, nn.Module], owner: Callable[[fx.Node], str]) -> None:
    """Give every attention of a traced program the rate at which the `GraphModule` that calls it drops in training.

    Args:
        graph: of the program; changed in place.
        layers: the modules of the model by path.
        owner: the path of the module whose code made a call.
    """
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target is _ATTENTION and isinstance(layers.get(owner(node)), fx.GraphModule):
            calls.setdefault(owner(node), []).append(node)
    for path, nodes in calls.items():
        module = layers[path]
        assert isinstance(module, fx.GraphModule)
        rates = [_rate(module, n) for n in module.graph.nodes if n.target is F.scaled_dot_product_attention]
        for node, rate in zip(nodes, rates, strict=False) if len(nodes) == len(rates) else ():
            if rate and len(node.args) < 5:
                node.update_kwarg("dropout_p", rate)


def _rate(module: fx.GraphModule, node: fx.Node) -> float:
    """The `p` of the Dropout from which a call takes its rate; 0 where it takes none."""
    front = [node.kwargs.get("dropout_p")]
    while front:
        here = front.pop()
        if not isinstance(here, fx.Node):
            continue
        if here.op == "get_attr":
            found = module.get_submodule(str(here.target))
            return float(found.p) if isinstance(found, nn.Dropout) else 0.0
        front += here.all_input_nodes
    return 0.0
