"""Constants as the translations write them: of the dtype of the tensors that they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript


def constant(values: Any, dtype: ir.DataType) -> Any:
    """Numbers as a tensor of a dtype."""
    tensor = ir.tensor(np.asarray(values).astype(dtype.numpy()), dtype)
    return onnxscript.opset21.Constant(value=ir.serde.serialize_tensor(tensor))


def ints(*values: int) -> Any:
    """A vector of axes, sizes or places."""
    return onnxscript.opset21.Constant(value_ints=[int(value) for value in values])
