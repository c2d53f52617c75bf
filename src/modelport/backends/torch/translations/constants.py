"""Constants and nodes as the translations write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript


def constant(values: Any, dtype: ir.DataType) -> Any:
    """Numbers as a tensor of a dtype: that of the tensors that it meets."""
    tensor = ir.tensor(np.asarray(values).astype(dtype.numpy()), dtype)
    return onnxscript.opset21.Constant(value=ir.serde.serialize_tensor(tensor))


def ints(*values: int) -> Any:
    """A vector of axes, sizes or places."""
    return onnxscript.opset21.Constant(value_ints=[int(value) for value in values])


def emit(op_type: str, *inputs: Any, **attributes: Any) -> Any:
    """A node, as the functions of `graph.elimination` and `graph.special` write it."""
    return getattr(onnxscript.opset21, op_type)(*map(_operand, inputs), **attributes)


def _operand(item: Any) -> Any:
    if isinstance(item, np.ndarray):
        return constant(item, ir.DataType.from_numpy(item.dtype))
    return ints(*item) if isinstance(item, list) else item
