"""The types and shapes of operators for which onnx has no inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from modelport.graph.shapes.expr import Size
from modelport.graph.shapes.info import Site

Typed = tuple[ir.TypeProtocol | None, Sequence[Size | None] | None]

_FLOAT = ir.TensorType(ir.DataType.FLOAT)


def _like_first(site: Site) -> Typed:
    value = site.node.inputs[0]
    return (None, None) if value is None else (site.info.type(value), site.info.dims(value))


def _floats_like_first(site: Site) -> Typed:
    return _FLOAT, site.dims(0)


def _rows(targets: Callable[[Site], int | None]) -> Callable[[Site], Typed]:
    """A number per row and target."""

    def rule(site: Site) -> Typed:
        data = site.dims(0)
        return _FLOAT, None if not data else (data[0] if len(data) > 1 else 1, targets(site))

    return rule


def _matmul_n_bits(site: Site) -> Typed:
    kind, dims = _like_first(site)
    return kind, None if dims is None else (*dims[:-1], site.attr("N"))


UNTOLD: dict[str, Callable[[Site], Typed]] = {
    # Its inference fails where the state is not asked for.
    "CausalConvWithState": _like_first,
    "GroupNormalization": _like_first,
    "MeanVarianceNormalization": _like_first,
    "ai.onnx.ml.FeatureVectorizer": _rows(lambda site: sum(site.attr("inputdimensions", ()))),
    "ai.onnx.ml.Imputer": _like_first,
    "ai.onnx.ml.LinearRegressor": _rows(lambda site: site.attr("targets", 1)),
    "ai.onnx.ml.Normalizer": _floats_like_first,
    "ai.onnx.ml.SVMRegressor": _rows(lambda site: 1),
    "ai.onnx.ml.Scaler": _floats_like_first,
    "com.microsoft.MatMulNBits": _matmul_n_bits,
}
"""What the first output is, by operator, `domain.operator` outside ONNX's own domain."""
