"""The operators of the normal form in torch, grouped as the field groups them."""

from modelport.backends.torch import layers
from modelport.backends.torch.ops import (
    activation,
    attention,
    conv,
    elementwise,
    image,
    index,
    logic,
    loss,
    matrix,
    norm,
    pool,
    quant,
    recurrent,
    reduce,
    shape,
    signal,
    sizes,
)
from modelport.backends.torch.registry import OPS, SIZE_OPS, CannotBuild, support

__all__ = [
    "OPS",
    "SIZE_OPS",
    "CannotBuild",
    "activation",
    "attention",
    "conv",
    "elementwise",
    "image",
    "index",
    "layers",
    "logic",
    "loss",
    "matrix",
    "norm",
    "pool",
    "quant",
    "recurrent",
    "reduce",
    "shape",
    "signal",
    "sizes",
    "support",
]
