"""LSTM, GRU and RNN: whole hidden units go, in every gate and state, in both directions alike."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir

from modelport.compression.prune.axes import Layout, labelled
from modelport.compression.prune.rules.linear import set_int
from modelport.compression.prune.slots import Ids
from modelport.compression.prune.trace import Rule, Trace


def recurrent(trace: Trace, node: ir.Node, gates: int) -> list[Layout]:
    x, weight = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    trace.meet(node, trace.elements(node, x, 2), trace.elements(node, weight, 2))
    units = int(trace.dims(node.inputs[2])[2])  # type: ignore[arg-type]
    hidden = _units(trace, node, 2, 2, 1)
    others = [_units(trace, node, 1, 1, gates), _units(trace, node, 2, 1, gates)]
    others += [_units(trace, node, 3, 1, 2 * gates), _units(trace, node, 5, 2, 1), _units(trace, node, 6, 2, 1)]
    others.append(_units(trace, node, 7, 1, 3))
    for ids in others:
        if ids is not _MISSING:
            trace.meet(node, hidden, ids)
    trace.makes(node, node.inputs[1], trace.layout(node.inputs[2]), 2)
    if hidden is not None:
        trace.fix(lambda cut: set_int(node, "hidden_size", cut.kept(hidden)))
    made = []
    for value in node.outputs:
        dims = trace.info.dims(value)
        assert dims is None or dims[-1] == units
        made.append(labelled([] if dims is None else [*dims[:-1], dims[-1] if hidden is None else hidden]))
    return made


_MISSING = np.empty(0, np.int64)
"""What stands for an input that is not given."""


def _units(trace: Trace, node: ir.Node, index: int, axis: int, gates: int) -> Ids | None:
    """The slots of the hidden units along an axis of an input, after those of all gates are one."""
    if index >= len(node.inputs) or node.inputs[index] is None:
        return _MISSING
    ids = trace.elements(node, trace.layout(node.inputs[index]), axis)
    return None if ids is None else trace.slots.unite_along(ids.reshape(gates, -1), [0])


RECURRENT: dict[str, Rule] = {
    "GRU": partial(recurrent, gates=3),
    "LSTM": partial(recurrent, gates=4),
    "RNN": partial(recurrent, gates=1),
}
