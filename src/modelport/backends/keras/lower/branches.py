"""Branches that depend on data, as ONNX `If`."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.subgraph import Subgraph
from modelport.backends.keras.lower.table import op


@op("If", "StatelessIf", needs=())
def if_(g: Context) -> Any:
    known = g.static(0)
    branches = [g.attr(name).name for name in ("then_branch", "else_branch")]
    if known is not None:
        return g.lowering.call(g, branches[0 if known.all() else 1], list(g.op.inputs)[1:])
    condition = _truth(g, g.value(g.op.inputs[0]))
    then_branch, else_branch = (_branch(g, name) for name in branches)
    return g.many("If", [condition], len(g.op.outputs), then_branch=then_branch, else_branch=else_branch)


@op("Case", "StatelessCase", needs=())
def case(g: Context) -> Any:
    names, known = [branch.name for branch in g.attr("branches")], g.static(0)
    if known is not None:
        place = int(known) if 0 <= int(known) < len(names) else -1
        return g.lowering.call(g, names[place], list(g.op.inputs)[1:])
    return _cases(g, g.value(g.op.inputs[0]), names, 0)


def _cases(g: Context, index: ir.Value, names: list[str], place: int) -> Any:
    """The branch of each number in its turn; the last one is for every other number too."""
    if len(names) == 1:
        return g.lowering.call(g, names[0], list(g.op.inputs)[1:])
    rest = Subgraph(g, f"{g.path or 'case'}.otherwise")
    rest.finish(_cases(rest.context(), index, names[1:], place + 1))
    settings = {"then_branch": _branch(g, names[0]), "else_branch": rest.graph}
    return g.many("If", [g("Equal", index, place)], len(g.op.outputs), **settings)


def _truth(g: Context, value: ir.Value) -> ir.Value:
    """A condition as TensorFlow takes it: of a number, whether it is not 0."""
    return value if value.dtype == ir.DataType.BOOL else g.cast(value, ir.DataType.BOOL)


def _branch(g: Context, name: str) -> ir.Graph:
    inner = Subgraph(g, name)
    return inner.finish(g.lowering.call(inner.context(), name, list(g.op.inputs)[1:]))
