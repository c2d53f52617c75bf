"""What runs along an axis: each round takes in twice as many elements as the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, emit, ints
from modelport.core.errors import UnsupportedOpError
from modelport.graph.special import running_product


def _running(name: str, better: str) -> Callable[[Any, int], tuple[Any, Any]]:
    def translate(x: Any, dim: int) -> tuple[Any, Any]:
        """The extreme of everything up to each element of an axis, and where it last was."""
        op, size = onnxscript.opset21, _fixed_size(x, dim, name)
        shape = [1] * len(x.shape)
        if shape:
            shape[dim] = size
        places = op.Expand(constant(np.arange(size).reshape(shape), ir.DataType.INT64), op.Shape(x))
        is_float = x.dtype.is_floating_point()
        values, step = op.Identity(x), 1
        while step < size:
            before, places_before = _moved(values, step, size, dim), _moved(places, step, size, dim)
            kept = getattr(op, better)(values, before)
            if is_float:
                kept = op.Or(kept, op.IsNaN(values))
            values, places = op.Where(kept, values, before), op.Where(kept, places, places_before)
            step *= 2
        return values, places

    return translate


def product(x: Any, dim: int, dtype: int = -1) -> Any:
    """The product of everything up to each element of an axis."""
    op, size = onnxscript.opset21, _fixed_size(x, dim, "cumprod")
    kind = x.dtype if dtype == -1 else ir.DataType(dtype)
    if not kind.is_floating_point():
        kind = ir.DataType.INT64
    return running_product(emit, op.Cast(x, to=kind.value), dim, size, kind.numpy())


def _fixed_size(x: Any, dim: int, name: str) -> int:
    size = x.shape[dim] if len(x.shape) else 1
    if isinstance(size, int):
        return size
    raise UnsupportedOpError(
        f"{name} along axis {dim}, whose size {size} is not fixed, has no ONNX form: fix the size of that axis.",
        op_type=f"aten.{name}",
        node="",
    )


def _moved(x: Any, step: int, size: int, dim: int) -> Any:
    """Every element the one that is so many places before it; the first ones are themselves."""
    op = onnxscript.opset21
    return op.Concat(*(op.Slice(x, ints(0), ints(end), ints(dim)) for end in (step, size - step)), axis=dim)


aten = torch.ops.aten
TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    aten.cummax.default: _running("cummax", "GreaterOrEqual"),
    aten.cummin.default: _running("cummin", "LessOrEqual"),
    aten.cumprod.default: product,
}
"""What `torch.onnx.export` needs to know."""
