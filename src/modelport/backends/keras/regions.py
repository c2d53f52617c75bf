"""Which nodes are built together, because a value passes between them that a functional model cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from modelport.backends.keras.parts import needed

Group = list[ir.Node]


def groups(graph: ir.Graph, holds: Callable[[ir.Value], bool]) -> list[Group]:
    """The nodes of a graph in an order in which they can be built, each alone or with those it cannot be parted from.

    A sequence, say, stays inside one group: the node that makes it and those that use it. So does everything on a way
    from the group back into it, since a group is built as one.

    Args:
        graph: in topological order.
        holds: whether a functional model can hold a value.
    """
    nodes = list(graph)
    place = {node: index for index, node in enumerate(nodes)}
    sources = [_sources(node, place) for node in nodes]
    group = list(range(len(nodes)))
    for index, node in enumerate(nodes):
        for value in needed([node]):
            maker = value.producer()
            if maker in place and not holds(value):
                _join(group, group[place[maker]], group[index])
    if len(set(group)) == len(nodes):
        return [[node] for node in nodes]
    while _close(group, sources):
        pass
    return _ordered(nodes, group, sources)


def _sources(node: ir.Node, place: dict[ir.Node, int]) -> set[int]:
    """The places of the nodes whose results a node uses."""
    makers = (value.producer() for value in needed([node]))
    return {place[maker] for maker in makers if maker in place}


def _join(group: list[int], one: int, other: int) -> None:
    group[:] = [one if each == other else each for each in group]


def _close(group: list[int], sources: Sequence[set[int]]) -> bool:
    """Take into a group what lies on a way out of it and back; whether there was any."""
    for mine in {each for each in group if group.count(each) > 1}:
        before = _reached(group, mine, sources, range(len(group) - 1, -1, -1), upwards=True)
        after = _reached(group, mine, sources, range(len(group)), upwards=False)
        between = {group[index] for index in before & after} - {mine}
        for each in between:
            _join(group, mine, each)
        if between:
            return True
    return False


def _reached(
    group: Sequence[int], mine: int, sources: Sequence[set[int]], order: Iterable[int], *, upwards: bool
) -> set[int]:
    """The nodes that a group needs, or those that need it; it is among them."""
    found = {index for index, each in enumerate(group) if each == mine}
    for index in order:
        if upwards and index in found:
            found |= sources[index]
        elif not upwards and sources[index] & found:
            found.add(index)
    return found


def _ordered(nodes: Sequence[ir.Node], group: Sequence[int], sources: Sequence[set[int]]) -> list[Group]:
    """The groups, each after what it needs, otherwise in the order of the graph."""
    members: dict[int, list[int]] = {}
    for index, each in enumerate(group):
        members.setdefault(each, []).append(index)
    done: dict[int, None] = {}
    for each in members:
        waiting = [each]
        while waiting:
            current = waiting[-1]
            needs = {group[source] for index in members[current] for source in sources[index]} - {current}
            missing = [need for need in sorted(needs) if need not in done]
            waiting.extend(missing)
            if not missing:
                done[waiting.pop()] = None
    return [[nodes[index] for index in members[each]] for each in done]
