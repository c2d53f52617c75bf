"""The operators of ai.onnx.ml that compute with numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.registry import CannotBuild, op
from modelport.backends.keras.ops.tensors import cast, dtype, is_float, plus

ML = "ai.onnx.ml"


@op("Binarizer", domain=ML)
def binarizer(x: Any, *, threshold: float = 0.0) -> Any:
    return cast(ops.greater(x, cast(np.asarray(threshold), dtype(x))), dtype(x))


@op("Scaler", domain=ML)
def scaler(x: Any, *, offset: Sequence[float], scale: Sequence[float]) -> Any:
    return ops.multiply(ops.subtract(cast(x, "float32"), np.asarray(offset, np.float32)), np.asarray(scale, np.float32))


@op("Normalizer", domain=ML)
def normalizer(x: Any, *, norm: str = "MAX") -> Any:
    data = cast(x, "float32")
    match norm:
        case "MAX":
            length = ops.max(data, axis=-1, keepdims=True)
        case "L1":
            length = ops.sum(ops.abs(data), axis=-1, keepdims=True)
        case "L2":
            length = ops.sqrt(ops.sum(ops.square(data), axis=-1, keepdims=True))
        case _:
            raise CannotBuild(f"its norm {norm!r} is not one of MAX, L1 and L2")
    return ops.divide(data, ops.where(ops.equal(length, 0), ops.ones_like(length), length))


@op("Imputer", domain=ML)
def imputer(
    x: Any,
    *,
    imputed_value_floats: Sequence[float] = (),
    imputed_value_int64s: Sequence[int] = (),
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Any:
    if not is_float(x):
        filling = np.asarray(imputed_value_int64s, dtype(x))
        return ops.where(ops.equal(x, replaced_value_int64), filling, x)
    missing = ops.isnan(x) if np.isnan(replaced_value_float) else ops.equal(x, replaced_value_float)
    return ops.where(missing, np.asarray(imputed_value_floats, dtype(x)), x)


@op("FeatureVectorizer", domain=ML)
def feature_vectorizer(*xs: Any, inputdimensions: Sequence[int] = ()) -> Any:
    return ops.concatenate([cast(x, "float32") for x in xs], axis=-1)


@op("LinearRegressor", domain=ML)
def linear_regressor(
    x: Any,
    *,
    coefficients: Sequence[float],
    intercepts: Sequence[float] = (),
    post_transform: str = "NONE",
    targets: int = 1,
) -> Any:
    if post_transform != "NONE":
        raise CannotBuild(f"its post_transform {post_transform!r} is not translated")
    scores = ops.matmul(cast(x, "float32"), np.asarray(coefficients, np.float32).reshape(targets, -1).T)
    return plus(scores, np.asarray(intercepts, np.float32)) if len(intercepts) else scores
