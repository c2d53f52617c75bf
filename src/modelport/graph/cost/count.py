"""What a graph costs at given sizes of its inputs, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from modelport.core.costs import LayerCost, Uncounted
from modelport.graph.cost.elementwise import MOVES, OTHERS
from modelport.graph.cost.memory import Memory, Peak
from modelport.graph.cost.products import PRODUCTS, Work
from modelport.graph.cost.sized import Sized, Sizes, Untold
from modelport.graph.cost.weights import Layers, Weight, claimed, follows_from_weights, weights
from modelport.graph.subgraphs import subgraphs

_ENDLESS = 1 << 31
"""A loop of so many rounds is one that its condition ends."""


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node costs in one run of the graph.

    Attributes:
        name: the node's name in the normal form.
        op_type: its operator; empty for weights that no node reads.
        layer: the module path that it belongs to.
        output: the shape of its first output; `None` where only the run tells it.
        parameters: the weights' elements that are counted here, those of shared weights at their first reader.
        nbytes: what its weights, buffers and scales take.
        macs: multiply-accumulates.
        flops: floating-point operations, two per multiply-accumulate.
    """

    name: str
    op_type: str
    layer: str
    output: tuple[int, ...] | None = None
    parameters: int = 0
    nbytes: int = 0
    macs: int = 0
    flops: int = 0


@dataclass(frozen=True)
class GraphCost:
    """What a graph costs in one run.

    Attributes:
        nodes: every node of the normal form, in order; those of a graph inside a node follow it.
        peak: the most bytes of activations that are alive at once, and where.
        uncounted: what the sums lack.
    """

    nodes: tuple[NodeCost, ...]
    peak: Peak
    uncounted: tuple[Uncounted, ...] = ()

    @property
    def macs(self) -> int:
        return sum(node.macs for node in self.nodes)

    @property
    def flops(self) -> int:
        return sum(node.flops for node in self.nodes)

    @property
    def parameters(self) -> int:
        return sum(node.parameters for node in self.nodes)

    @property
    def nbytes(self) -> int:
        return sum(node.nbytes for node in self.nodes)

    def layers(self) -> tuple[LayerCost, ...]:
        """The nodes by module path, in the order of the graph."""
        groups: dict[str, list[NodeCost]] = {}
        for node in self.nodes:
            groups.setdefault(node.layer, []).append(node)
        return tuple(_layer(name, nodes) for name, nodes in groups.items())


def _layer(name: str, nodes: list[NodeCost]) -> LayerCost:
    spent: dict[str, int] = {}
    for node in nodes:
        spent[node.op_type] = spent.get(node.op_type, 0) + node.flops
    dearest = sorted((op for op in spent if op), key=lambda op: -spent[op])
    return LayerCost(
        name,
        tuple(dearest),
        nodes[-1].output,
        sum(node.parameters for node in nodes),
        sum(node.nbytes for node in nodes),
        sum(node.macs for node in nodes),
        sum(node.flops for node in nodes),
    )


def count(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> GraphCost:
    """Operations, weights and memory of a graph in one run of inference.

    One multiply-accumulate (MAC) is one product added to a sum, and two floating-point operations (FLOPs). MACs are
    those of convolutions, matrix products, attention and recurrences, floating or integer, as fvcore and
    `torch.utils.flop_counter` count them (what fvcore and torchvision's tables call FLOPs are MACs); FLOPs have biases,
    elementwise work, normalizations and poolings too (`elementwise`). Arithmetic on integers and booleans, which finds
    indices and masks, is none. Of an `If` the dearest branch counts, a loop as often as it may run.

    Args:
        model: a portable graph; it stays as it was.
        shapes: the shape of every input, by name; a size that is not given stays open.

    Returns:
        The costs of every node of the normal form. What has no rule, or a size that only the run tells, is in
        `uncounted` and in no sum.

    Raises:
        UnsupportedOpError: the graph has no normal form.

    Example:
        >>> count(graph, {"image": (1, 3, 224, 224)}).macs    # doctest: +SKIP
        4089184256
    """
    sizes = Sizes(model, shapes)
    graph = sizes.model.graph
    constant = follows_from_weights(graph)
    walk = _Walk(sizes, constant, weights(sizes.model))
    nodes = [*walk.graph(graph), *walk.unread()]
    memory = Memory(sizes, constant)
    peak = memory.peak(graph)
    untold = [Uncounted(name, "memory", _UNTOLD.format(name)) for name in memory.untold]
    return GraphCost(tuple(nodes), peak, (*walk.uncounted.values(), *untold))


_UNTOLD = "only the run tells the size of {!r}"


class _Walk:
    """Goes through a graph and what is inside it, node by node."""

    def __init__(self, sizes: Sizes, constant: set[ir.Value], table: dict[ir.Value, Weight]) -> None:
        self._sizes, self._constant, self._weights = sizes, constant, table
        claims = claimed(sizes.model.graph, constant)
        self._owned = {node: [table[value] for value in claim.weights if value in table] for node, claim in claims}
        names = {node: [weight.name for weight in found] for node, found in self._owned.items()}
        self._layers = Layers(names, {before: node for node, claim in claims for before in claim.nodes})
        self.uncounted: dict[tuple[str, str], Uncounted] = {}

    def graph(self, graph: ir.Graph, times: int = 1) -> Iterator[NodeCost]:
        """The costs of the nodes of a graph that runs some times."""
        for node in graph:
            yield self._node(node, times)
            yield from self._inside(node, times)

    def unread(self) -> Iterator[NodeCost]:
        """The weights that no node reads."""
        read = {weight.name for found in self._owned.values() for weight in found}
        for weight in self._weights.values():
            if weight.name not in read:
                yield NodeCost(weight.name, "", weight.name, None, weight.parameters, weight.nbytes)

    def _node(self, node: ir.Node, times: int) -> NodeCost:
        key = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        work = self._work(node, key)
        found = self._owned.get(node, [])
        return NodeCost(
            str(node.name),
            key,
            self._layers.of(node),
            self._output(node),
            sum(weight.parameters for weight in found),
            sum(weight.nbytes for weight in found),
            times * work.macs,
            times * work.flops,
        )

    def _output(self, node: ir.Node) -> tuple[int, ...] | None:
        try:
            return self._sizes.shape(node.outputs[0]) if node.outputs else None
        except Untold:
            return None

    def _work(self, node: ir.Node, key: str) -> Work:
        site = Sized(node, self._sizes)
        product = PRODUCTS.get(key)
        # Runtimes apply the scale of a quantized weight to the product, not to the weight.
        scaled = key == "DequantizeLinear" and node.outputs[0] in self._constant
        if key in MOVES or scaled or (product is None and not node.domain and not site.floats()):
            return Work()
        rule = product or OTHERS.get(key)
        if rule is None:
            self._lack(node, key, "its operator has no rule")
            return Work()
        try:
            return rule(site)
        except Untold as error:
            self._lack(node, key, _UNTOLD.format(str(error)))
            return Work()

    def _lack(self, node: ir.Node, key: str, reason: str) -> None:
        self.uncounted[str(node.name), reason] = Uncounted(str(node.name), key, reason)

    def _inside(self, node: ir.Node, times: int) -> Iterator[NodeCost]:
        bodies = [list(self.graph(body, times * self._rounds(node))) for body in subgraphs(node)]
        dearest = max(bodies, key=lambda found: sum(cost.flops for cost in found), default=None)
        for body in bodies:
            yield from body if body is dearest else (replace(cost, macs=0, flops=0) for cost in body)

    def _rounds(self, node: ir.Node) -> int:
        """How often the graph inside a node runs."""
        if node.op_type == "If":
            return 1
        try:
            rounds = self._scanned(node) if node.op_type == "Scan" else self._trips(node)
        except Untold:
            rounds = None
        if rounds is None:
            self._lack(node, node.op_type, "only the run tells how often it goes round: one round is counted")
        return 1 if rounds is None else rounds

    def _trips(self, node: ir.Node) -> int | None:
        limit = node.inputs[0] if node.inputs else None
        rounds = None if limit is None else self._sizes.number(limit)
        return rounds if rounds is not None and 0 <= rounds < _ENDLESS else None

    def _scanned(self, node: ir.Node) -> int | None:
        scanned = node.attributes["num_scan_inputs"].as_int()
        axes = node.attributes["scan_input_axes"].as_ints() if "scan_input_axes" in node.attributes else (0,)
        first = node.inputs[len(node.inputs) - scanned]
        return None if first is None else self._sizes.shape(first)[axes[0]]
