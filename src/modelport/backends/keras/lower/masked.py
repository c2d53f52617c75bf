"""Recurrent layers on a sequence with a mask, by operators that have none.

Keras skips a masked step: the state and the output stay as they were. So the steps that count are gathered side by
side, the layer runs over them, and each output is put where it belongs. That is exact for every mask, and what crosses
is the layer itself with a few operators around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context

_FAR = 1 << 62


@dataclass(frozen=True)
class Steps:
    """The steps of a mask, as int64 tensors.

    Attributes:
        mask: (batch, steps), whether a step counts.
        order: (batch, steps), the number of the step at each place after they are gathered.
        seen: (batch, steps), how many steps have counted when one is over.
        count: (batch, 1), how many count.
    """

    mask: ir.Value
    order: ir.Value
    seen: ir.Value
    count: ir.Value


def steps(g: Context, mask: ir.Value, *, backwards: bool = False, at_end: bool = False) -> Steps:
    """The steps of a mask (batch, steps).

    Args:
        g: the layer.
        mask: as Keras carries it.
        backwards: whether the steps are taken from the last to the first; `mask` and `seen` are in that order too.
        at_end: whether the steps that count are gathered at the end; else at the start.
    """
    size = g("Shape", mask, start=1, end=2)
    last = g("Squeeze", size, [0])
    numbers = g("Range", np.asarray(0, np.int64), last, np.asarray(1, np.int64))
    if backwards:
        numbers = g("Sub", g("Sub", last, np.asarray(1, np.int64)), numbers)
    later = g("Add", numbers, last)
    # Every key is there once: no sort has to be stable.
    keys = g("Where", mask, later, numbers) if at_end else g("Where", mask, numbers, later)
    order = g.many("TopK", [keys, size], 2, axis=1, largest=0)[1]
    mask = g("Slice", mask, [-1], [-_FAR], [1], [-1]) if backwards else mask
    kept = g("Cast", mask, to=ir.DataType.INT64.value)
    seen = g("CumSum", kept, np.asarray(1, np.int64))
    count = g("ReduceSum", kept, [1], keepdims=1)
    for value in (order, kept, seen, count):
        value.type = ir.TensorType(ir.DataType.INT64)
    return Steps(mask, order, seen, count)


def gathered(g: Context, x: ir.Value, where: ir.Value) -> ir.Value:
    """Rows of (batch, steps, features) by their number, (batch, places)."""
    result = g("GatherND", x, g("Unsqueeze", where, [2]), batch_dims=1)
    result.type = x.type
    if x.shape is not None:
        result.shape = ir.Shape([x.shape[0], None, x.shape[2]])
    return result


def spread(g: Context, y: ir.Value, found: Steps, *, at_end: bool = False, zero: bool = False) -> ir.Value:
    """The outputs of the gathered steps at their own places: a step that is skipped has the output before it.

    Args:
        g: the layer.
        y: (batch, steps, features).
        found: the steps that were gathered.
        at_end: whether they were gathered at the end and taken from there; then a skipped step has the output after it.
        zero: whether a step that is skipped has zeros.
    """
    if at_end:
        kept = g("Cast", found.mask, to=ir.DataType.INT64.value)
        reached = g("Add", g("Sub", found.count, found.seen), kept)
        size = g("Shape", found.mask, start=1, end=2)
        place = g("Sub", size, g("Max", reached, np.asarray(1, np.int64)))
    else:
        reached = found.seen
        place = g("Sub", g("Max", reached, np.asarray(1, np.int64)), np.asarray(1, np.int64))
    there = found.mask if zero else g("Greater", reached, np.asarray(0, np.int64))
    return _or_zero(g, gathered(g, y, place), g("Unsqueeze", there, [2]))


def last(g: Context, y: ir.Value, found: Steps, initial: Any = None, *, at_end: bool = False) -> ir.Value:
    """The output of the last step that counts, (batch, features); what it starts from where no step does."""
    most = g("Max", found.count, np.asarray(1, np.int64))
    if at_end:
        place = g("Sub", g("Shape", found.mask, start=1, end=2), most)
    else:
        place = g("Sub", most, np.asarray(1, np.int64))
    end = g("Squeeze", gathered(g, y, place), [1])
    any_ = g("Greater", found.count, np.asarray(0, np.int64))
    return _or_zero(g, end, any_) if initial is None else g("Where", any_, end, initial)


def _or_zero(g: Context, value: ir.Value, there: ir.Value) -> ir.Value:
    return g("Where", there, value, g.operand(0, (value,)))
