"""Classical machine learning (ai.onnx.ml): what scikit-learn's models become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import OnHost, op
from modelport.backends.torch.traced import Tensor
from modelport.graph.trees import COMPARISONS, Forest, read_forest

ML = "ai.onnx.ml"


def _floats(x: Tensor) -> Any:
    """A matrix of features: whatever is no float64 as float32."""
    return x if x.element in (torch.float32, torch.float64) else x.to(torch.float32)


def _row(values: Sequence[float], name: str, operands: Operands) -> Tensor:
    return operands.stored(name, np.array(values, np.float32))


@op("Scaler", domain=ML)
def scaler(x: Tensor, *, offset: Sequence[float], scale: Sequence[float], operands: Operands) -> Any:
    return (x.to(torch.float32) - _row(offset, "offset", operands)) * _row(scale, "scale", operands)


@op("Normalizer", domain=ML)
def normalizer(x: Tensor, *, norm: str = "MAX") -> Any:
    order = {"MAX": float("inf"), "L1": 1, "L2": 2}[norm]
    wide = x.to(torch.float32)
    return wide / torch.clamp_min(torch.linalg.vector_norm(wide, order, -1, True), 1e-30)


@op("LinearRegressor", domain=ML)
def linear_regressor(
    x: Tensor, *, coefficients: Sequence[float], intercepts: Sequence[float] | None = None, targets: int = 1,
    post_transform: str = "NONE", operands: Operands,
) -> Any:  # fmt: skip
    return _transformed(_linear(_floats(x), coefficients, intercepts, targets, operands), post_transform)


def _linear(
    x: Any, coefficients: Sequence[float], intercepts: Sequence[float] | None, targets: int, operands: Operands
) -> Any:
    matrix = operands.stored("coefficients", np.array(coefficients, np.float32).reshape(targets, -1).T)
    scores = torch.matmul(x, matrix.to(x.dtype))
    return scores if not intercepts else scores + _row(intercepts, "intercepts", operands)


def _transformed(scores: Any, post_transform: str) -> Any:
    match post_transform:
        case "NONE":
            return scores
        case "LOGISTIC":
            return torch.sigmoid(scores)
        case "SOFTMAX":
            return torch.softmax(scores, -1)
    raise OnHost(f"torch has no {post_transform}")


@op("LinearClassifier", domain=ML)
def linear_classifier(
    x: Tensor, *, coefficients: Sequence[float], intercepts: Sequence[float] | None = None,
    classlabels_ints: Sequence[int] | None = None, classlabels_strings: Sequence[str] | None = None,
    multi_class: int = 0, post_transform: str = "NONE", operands: Operands,
) -> Any:  # fmt: skip
    rows = len(intercepts) if intercepts else len(coefficients) // (x.dims[-1] or 1)
    labels = list(classlabels_ints or ())
    if rows == 1 and len(labels) != 2:
        raise OnHost("it has one class")
    scores = _linear(_floats(x), coefficients, intercepts, rows, operands)
    scores = torch.cat([-scores, scores], -1) if rows == 1 else scores
    scores = _transformed(scores, post_transform)
    return _chosen(scores, labels, operands), scores


def _chosen(scores: Any, labels: Sequence[int], operands: Operands) -> Any:
    best = torch.argmax(scores, -1)
    if list(labels) == list(range(len(labels))):
        return best
    return operands.stored("labels", np.array(labels, np.int64))[best]


@op("LabelEncoder", domain=ML)
def label_encoder(
    x: Tensor, *, keys_floats: Sequence[float] | None = None, keys_int64s: Sequence[int] | None = None,
    keys_tensor: np.ndarray | None = None, values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None, values_tensor: np.ndarray | None = None,
    default_float: float = -0.0, default_int64: int = -1, default_string: str = "_Unused",
    default_tensor: np.ndarray | None = None, operands: Operands,
) -> Any:  # fmt: skip
    keys = next(np.asarray(k) for k in (keys_int64s, keys_floats, keys_tensor) if k is not None)
    if values_int64s is not None:
        table = np.array([*values_int64s, default_int64], np.int64)
    elif values_floats is not None:
        table = np.array([*values_floats, default_float], np.float32)
    else:
        assert values_tensor is not None
        default = 0 if default_tensor is None else default_tensor.item()
        table = np.append(values_tensor.ravel(), np.array(default, values_tensor.dtype))
    known = operands.stored("keys", keys.ravel())
    same = x.unsqueeze(-1) == known
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        same = torch.logical_or(same, torch.logical_and(torch.isnan(x).unsqueeze(-1), torch.isnan(known)))
    # One more column, which holds where no other does: argmax gives the first.
    found = torch.cat([same, torch.ones_like(same[..., :1])], -1)
    return operands.stored("values", table)[torch.argmax(found.to(torch.uint8), -1)]


@op("OneHotEncoder", domain=ML)
def one_hot_encoder(
    x: Tensor, *, cats_int64s: Sequence[int] | None = None, cats_strings: Sequence[str] | None = None, zeros: int = 1,
    operands: Operands,
) -> Any:  # fmt: skip
    if not zeros or not cats_int64s:
        raise OnHost("it raises an error for a value that is no category")
    return (x.unsqueeze(-1) == operands.stored("categories", np.array(cats_int64s, np.int64))).to(torch.float32)


@op("Imputer", domain=ML)
def imputer(
    x: Tensor, *, imputed_value_floats: Sequence[float] | None = None,
    imputed_value_int64s: Sequence[int] | None = None,
    replaced_value_float: float = 0.0, replaced_value_int64: int = 0, operands: Operands,
) -> Any:  # fmt: skip
    if imputed_value_floats:
        value, gone = np.array(imputed_value_floats, np.float32), replaced_value_float
    else:
        value, gone = np.array(imputed_value_int64s, np.int64), replaced_value_int64
    missing = torch.isnan(x) if np.isnan(gone) else x == gone
    return torch.where(missing, operands.stored("imputed", value).to(x.element), x)


@op("FeatureVectorizer", domain=ML)
def feature_vectorizer(*tensors: Tensor, inputdimensions: Sequence[int]) -> Any:
    parts = [torch.reshape(x, [x.size_of(0), -1]).to(torch.float32) for x in tensors]
    return torch.cat([part[:, :size] for part, size in zip(parts, inputdimensions, strict=True)], 1)


_COMPARE = dict(zip(COMPARISONS, (torch.le, torch.lt, torch.ge, torch.gt, torch.eq, torch.ne), strict=False))


def _leaves(x: Any, forest: Forest, operands: Operands) -> Any:
    """The leaf that every row reaches in every tree, (rows, trees)."""
    if forest.asks_for_members:
        raise OnHost("a node asks whether its feature is in a set")
    features, splits = operands.stored("features", forest.features), operands.stored("splits", forest.splits)
    yes, no = operands.stored("yes", forest.yes), operands.stored("no", forest.no)
    modes = [mode for mode in COMPARISONS[:6] if (forest.modes == COMPARISONS.index(mode)).any()]
    kinds = operands.stored("modes", forest.modes) if len(modes) > 1 else None
    missing = operands.stored("missing", forest.missing) if forest.missing.any() else None
    place = operands.stored("roots", forest.roots).unsqueeze(0).expand(x.size(0), -1)
    for _ in range(forest.depth):
        value, split = torch.gather(x, 1, features[place]), splits[place].to(x.dtype)
        holds = _COMPARE[modes[0]](value, split) if modes else torch.ones_like(value, dtype=torch.bool)
        for mode in modes[1:]:
            asked = kinds[place] == COMPARISONS.index(mode)  # type: ignore[index]
            holds = torch.where(asked, _COMPARE[mode](value, split), holds)
        if missing is not None:
            holds = torch.logical_or(holds, torch.logical_and(torch.isnan(value), missing[place]))
        place = torch.where(holds, yes[place], no[place])
    return place


def _aggregated(x: Any, forest: Forest, function: str, operands: Operands) -> Any:
    """What the trees give together, (rows, targets)."""
    place = _leaves(x, forest, operands)
    fill = {"MIN": np.finfo(np.float32).max, "MAX": np.finfo(np.float32).min}.get(function, 0.0)
    weights = np.where(np.isnan(forest.weights), fill, forest.weights)
    given = operands.stored("leaf_weights", weights)[place].to(x.dtype)
    if function in ("MIN", "MAX"):
        return (torch.amin if function == "MIN" else torch.amax)(given, 1)
    return torch.mean(given, 1) if function == "AVERAGE" else torch.sum(given, 1)


@op("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(
    x: Tensor, *, aggregate_function: str = "SUM", base_values: Sequence[float] | None = None,
    base_values_as_tensor: np.ndarray | None = None, post_transform: str = "NONE", node: ir.Node, operands: Operands,
    **trees: Any,
) -> Any:  # fmt: skip
    wide = _floats(x)
    scores = _aggregated(wide, read_forest(node), aggregate_function, operands)
    scores = _based(scores, base_values, base_values_as_tensor, operands)
    return _transformed(scores, post_transform).to(torch.float32)


def _based(scores: Any, values: Sequence[float] | None, tensor: np.ndarray | None, operands: Operands) -> Any:
    base = tensor if tensor is not None else np.array(values or [], np.float32)
    return scores + operands.stored("base_values", base).to(scores.dtype) if base.size else scores


@op("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(
    x: Tensor, *, classlabels_int64s: Sequence[int] | None = None, base_values: Sequence[float] | None = None,
    base_values_as_tensor: np.ndarray | None = None, class_ids: Sequence[int] = (), post_transform: str = "NONE",
    node: ir.Node, operands: Operands, **trees: Any,
) -> Any:  # fmt: skip
    labels = list(classlabels_int64s or ())
    binary = len(set(class_ids)) == 1
    if len(labels) < 2 or (binary and len(labels) != 2):
        raise OnHost("it has one class")
    forest = read_forest(node)
    scores = _aggregated(_floats(x), forest, "SUM", operands)
    if binary:
        # The trees give one number, that of the second class.
        second = _based(torch.narrow(scores, 1, class_ids[0], 1), base_values, base_values_as_tensor, operands)
        shares = post_transform == "NONE" and bool(np.nanmin(forest.weights) >= 0)
        scores = torch.cat([1 - second if shares else -second, second], 1)
    else:
        scores = _based(scores, base_values, base_values_as_tensor, operands)
    scores = _transformed(scores, post_transform).to(torch.float32)
    return _chosen(scores, labels, operands), scores


_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@op("TreeEnsemble", domain=ML)
def tree_ensemble(
    x: Tensor, *, aggregate_function: int = 1, post_transform: int = 0, node: ir.Node, operands: Operands, **trees: Any
) -> Any:
    scores = _aggregated(x, read_forest(node), _AGGREGATES[aggregate_function], operands)
    return _transformed(scores, _TRANSFORMS[post_transform])
