"""Lists of tensors (`tf.TensorArray`) as one tensor with the elements along axis 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.static import Unknown
from modelport.backends.keras.lower.table import op


@dataclass(frozen=True)
class Reserved:
    """A list of which only the length is known.

    Attributes:
        count: the symbolic tensor with the length.
    """

    count: Any


@op("TensorListReserve", "EmptyTensorList", needs=())
def reserve(g: Context) -> Reserved:
    if g.op.type == "EmptyTensorList":
        raise g.fail("a list that grows has no portable form; give the tf.TensorArray its size")
    return Reserved(g.op.inputs[1])


@op("TensorListFromTensor", needs=(0,))
def from_tensor(g: Context, x: ir.Value) -> ir.Value:
    return x


@op("TensorListStack", "TensorListGather", needs=(0,))
def stack(g: Context, elements: Any) -> ir.Value:
    x = filled(g, elements)
    return g("Gather", x, g.value(g.op.inputs[1]), axis=0) if g.op.type == "TensorListGather" else x


@op("TensorListGetItem", needs=(0, 1))
def get_item(g: Context, elements: Any, index: ir.Value) -> ir.Value:
    return g("Gather", filled(g, elements), index, axis=0)


@op("TensorListLength", needs=(0,))
def length(g: Context, elements: Any) -> ir.Value:
    if isinstance(elements, Reserved):
        return g.value(elements.count)
    first = g("Shape", elements, start=0, end=1)
    return g.cast(g("Squeeze", first, [0]), g.result_dtype())


@op("TensorListSetItem", needs=(0, 1, 2))
def set_item(g: Context, elements: Any, index: ir.Value, item: ir.Value) -> ir.Value:
    if isinstance(elements, Reserved):
        elements = zeros(g, elements, item)
    place = g("Reshape", g.int64(index), [1, 1])
    return g("ScatterND", elements, place, g("Unsqueeze", item, [0]))


def zeros(g: Context, elements: Reserved, item: ir.Value) -> ir.Value:
    """A list of zeros, shaped like one item of it."""
    count = g.frame.statics.elements(elements.count)
    if count is not None and not any(isinstance(n, Unknown) for n in count):
        length: Any = np.asarray(count, np.int64)
    else:
        length = g("Reshape", g.int64(g.value(elements.count)), [1])
    sizes = None if item.shape is None else list(item.shape)
    known = sizes is not None and all(isinstance(n, int) for n in sizes)
    inner = np.asarray(sizes, np.int64) if known else g("Shape", item)
    return g("Expand", g.operand(0, (item,)), g("Concat", length, inner, axis=0))


def filled(g: Context, elements: Any) -> ir.Value:
    """A list that has been written.

    Raises:
        UnsupportedOpError: nothing has been written into it.
    """
    if not isinstance(elements, ir.Value):
        raise g.fail("a list of tensors is read that was never filled")
    return elements
