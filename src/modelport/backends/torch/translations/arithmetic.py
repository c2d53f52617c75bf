"""Numbers, element by element, that torch has no translation for or takes apart unfortunately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

from modelport.backends.torch.translations.constants import constant, emit, ints
from modelport.graph import special


def taken_from(x: Any, other: float, alpha: float = 1) -> Any:
    """`other - alpha * x`; torch takes it apart into a difference whose first operand is no tensor."""
    op, dtype = onnxscript.opset21, x.dtype
    if isinstance(other, float) and not dtype.is_floating_point():
        x, dtype = op.Cast(x, to=ir.DataType.FLOAT), ir.DataType.FLOAT
    # A size that the run tells is a value of the graph.
    number = constant(other, dtype) if isinstance(other, int | float) else op.Cast(other, to=dtype)
    return op.Sub(number, x if alpha == 1 else op.Mul(x, constant(alpha, dtype)))


def _ignoring_nan(better: str) -> Callable[[Any, Any], Any]:
    def translate(x: Any, y: Any) -> Any:
        """The larger or smaller one; where one of them is NaN, the other."""
        op = onnxscript.opset21
        if not x.dtype.is_floating_point():
            return getattr(op, better)(x, y)
        return op.Where(op.IsNaN(x), y, op.Where(op.IsNaN(y), x, getattr(op, better)(x, y)))

    return translate


def hypotenuse(x: Any, y: Any) -> Any:
    """`sqrt(x^2 + y^2)`, with the larger one taken out so that no square overflows."""
    op, dtype = onnxscript.opset21, x.dtype
    x, y = op.Abs(x), op.Abs(y)
    large, small = op.Max(x, y), op.Min(x, y)
    one, none = constant(1.0, dtype), constant(0.0, dtype)
    ratio = op.Div(small, op.Where(op.Equal(large, none), one, large))
    return op.Mul(large, op.Sqrt(op.Add(op.Mul(ratio, ratio), one)))


def sign_bit(x: Any) -> Any:
    """Whether a number is below zero, or is the zero below zero."""
    op, dtype = onnxscript.opset21, x.dtype
    below = op.Less(x, constant(0, dtype))
    if not dtype.is_floating_point():
        return below
    return op.Or(below, op.Less(op.Reciprocal(x), constant(0, dtype)))


def copied_sign(x: Any, y: Any) -> Any:
    """The size of one number with the sign of another."""
    op = onnxscript.opset21
    size = op.Abs(x)
    return op.Where(sign_bit(y), op.Neg(size), size)


def inverse_error_function(x: Any) -> Any:
    """The number whose error function is `x`."""
    return special.inverse_error_function(emit, x, x.dtype.numpy())


def product_of_three(
    x: Any, y: Any, z: Any, expand1: Sequence[int], expand2: Sequence[int], expand3: Sequence[int],
    sumdim: Sequence[int], unroll_dim: int = 1,
) -> Any:  # fmt: skip
    """Three tensors with axes of one added to each, multiplied and summed: what a Bilinear layer is."""
    op = onnxscript.opset21
    widened = ((x, expand1), (y, expand2), (z, expand3))
    first, second, third = (op.Unsqueeze(each, ints(*axes)) if len(axes) else each for each, axes in widened)
    return op.ReduceSum(op.Mul(op.Mul(first, second), third), ints(*sumdim), keepdims=0)


def evaluated_rrelu(
    x: Any, noise: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> tuple[Any, Any]:
    """A randomized ReLU of an evaluated model: the slope is the middle of its range."""
    op = onnxscript.opset21
    return op.LeakyRelu(x, alpha=(lower + upper) / 2), op.Identity(noise)


aten = torch.ops.aten
TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    aten.rsub.Scalar: taken_from,
    aten.fmax.default: _ignoring_nan("Max"),
    aten.fmin.default: _ignoring_nan("Min"),
    aten.hypot.default: hypotenuse,
    aten.signbit.default: sign_bit,
    aten.copysign.Tensor: copied_sign,
    aten.erfinv.default: inverse_error_function,
    aten._trilinear.default: product_of_three,
    aten.rrelu_with_noise_functional.default: evaluated_rrelu,
}
"""What `torch.onnx.export` needs to know."""
