"""Branches and loops that only the run decides; those that are known are gone from the normal form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from modelport.backends.torch.control import Empty, If, Loop, Scan, Scanned
from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import op
from modelport.backends.torch.traced import Body, Ints, Operand, Tensor, Weight
from modelport.backends.torch.whole import Whole

BodyOf = Callable[[ir.Graph], Body]
WholeOf = Callable[[ir.Node, int, Sequence[Body]], Whole | None]
"""A node as it goes home, of how many arguments there are before those of its graphs."""


@op("If")
def if_(
    condition: Tensor,
    *,
    then_branch: ir.Graph,
    else_branch: ir.Graph,
    node: ir.Node,
    operands: Operands,
    body_of: BodyOf,
    whole_of: WholeOf,
) -> Any:
    then, other = body_of(then_branch), body_of(else_branch)
    module = If(then.module, other.module, len(then.arguments))
    module.whole = whole_of(node, 1, (then, other))
    return _called(node, module, [condition, *then.arguments, *other.arguments], operands)


@op("Loop")
def loop(
    trips: Weight,
    condition: Tensor | None,
    *states: Weight,
    body: ir.Graph,
    node: ir.Node,
    operands: Operands,
    body_of: BodyOf,
    whole_of: WholeOf,
) -> Any:
    inner = body_of(body)
    stacks = [_empty(value) for value in body.outputs[1 + len(states) :]]
    first = [_count(trips, operands), condition, *(operands.argument(state) for state in states)]
    module = Loop(inner.module, len(states), stacks)
    module.whole = whole_of(node, len(first), (inner,))
    return _called(node, module, [*first, *inner.arguments], operands)


def _count(trips: Operand | None, operands: Operands) -> Any:
    """How many rounds: a number or a traced size where it is one, else a tensor."""
    if isinstance(trips, Ints):
        return trips.items[0]
    return None if trips is None else operands.tensor(trips)


@op("Scan")
def scan(
    *values: Weight,
    body: ir.Graph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
    node: ir.Node,
    operands: Operands,
    body_of: BodyOf,
    whole_of: WholeOf,
) -> Any:
    states = len(values) - num_scan_inputs
    inner = body_of(body)
    results = len(body.outputs) - states
    module = Scan(
        inner.module,
        states,
        _ways(scan_input_axes, scan_input_directions, num_scan_inputs),
        _ways(scan_output_axes, scan_output_directions, results),
        [_empty(value) for value in body.outputs[states:]],
    )
    arguments = [operands.argument(value) for value in values]
    module.whole = whole_of(node, len(arguments), (inner,))
    return _called(node, module, [*arguments, *inner.arguments], operands)


def _ways(axes: Sequence[int] | None, directions: Sequence[int] | None, count: int) -> list[Scanned]:
    pairs = zip(axes or [0] * count, directions or [0] * count, strict=True)
    return [Scanned(axis, bool(reverse)) for axis, reverse in pairs]


def _empty(value: ir.Value) -> Empty:
    sizes = tuple(size if isinstance(size, int) else 0 for size in value.shape or ())
    return Empty(sizes, torch_dtype(ir.DataType.FLOAT if value.dtype is None else value.dtype))


def _called(node: ir.Node, module: If | Loop | Scan, arguments: Sequence[Any], operands: Operands) -> tuple[Any, ...]:
    """The outputs of a module that holds the node's graphs."""
    path = operands.add_module(node.name or node.op_type, module)
    results = operands.call(path, *arguments)
    operands.note(
        "custom", node, f"{node.op_type} is a module of modelport's, which has to be installed to unpickle the model"
    )
    return tuple(results[index] for index in range(len(node.outputs)))
