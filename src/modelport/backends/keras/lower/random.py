"""Random numbers: each run draws its own, and the seed that TensorFlow is given has no meaning elsewhere."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.backends.keras.lower.context import Context
from modelport.backends.keras.lower.table import op

_SEED = "draws numbers of its own: a seed means other numbers in every framework"


def _like(g: Context) -> ir.Value:
    """A tensor of the shape that is asked for."""
    g.note("changed", _SEED)
    zero = ir.tensor(np.zeros(1, g.result_dtype().numpy()))
    return g("ConstantOfShape", g.int64(g.value(g.op.inputs[0])), value=zero)


@op("RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2", needs=())
def normal(g: Context) -> ir.Value:
    return g("RandomNormalLike", _like(g))


@op("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2", needs=())
def uniform(g: Context) -> ir.Value:
    return g("RandomUniformLike", _like(g))


@op("Multinomial", needs=(0,))
def multinomial(g: Context, logits: ir.Value) -> ir.Value:
    count = g.static(1)
    if count is None:
        raise g.fail("how many numbers are drawn is computed")
    g.note("changed", _SEED)
    # ONNX takes the logarithms of chances that need not add up to one, as TensorFlow does.
    kind = g.result_dtype()
    return g("Multinomial", logits, sample_size=int(count.item()), dtype=kind.value)
