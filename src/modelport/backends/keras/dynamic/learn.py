"""The operators of ai.onnx.ml that look up values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic

ML = "ai.onnx.ml"


@dynamic("LabelEncoder", domain=ML)
def label_encoder(
    x: Any,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Any = None,
    result: Any,
    **tables: Any,
) -> Any:
    keys, values = (_table(tables, side) for side in ("keys", "values"))
    default = (
        default_tensor.reshape(-1)[0]
        if default_tensor is not None
        else {"floats": default_float, "int64s": default_int64, "strings": default_string}.get(_kind(tables), 0)
    )
    data = x[..., None]
    hit = tf.equal(data, tf.constant(keys, x.dtype))
    if x.dtype.is_floating:
        hit |= tf.math.is_nan(data) & np.isnan(np.asarray(keys, np.float64))
    # The default stands behind the last key.
    place = tf.argmax(tf.concat([tf.cast(hit, tf.int32), tf.ones_like(data, tf.int32)], -1), -1)
    return tf.gather(tf.constant([*values, default], result), place)


def _table(tables: dict[str, Any], side: str) -> list[Any]:
    """The keys or the values."""
    found = next(value for name, value in tables.items() if name.startswith(f"{side}_"))
    return list(np.asarray(found).reshape(-1))


def _kind(tables: dict[str, Any]) -> str:
    return next(name.partition("_")[2] for name in tables if name.startswith("values_"))


@dynamic("OneHotEncoder", domain=ML)
def one_hot_encoder(
    x: Any, *, cats_int64s: Sequence[int] = (), cats_strings: Sequence[str] = (), zeros: int = 1
) -> Any:
    return tf.cast(tf.equal(x[..., None], tf.constant(list(cats_strings or cats_int64s), x.dtype)), tf.float32)


@dynamic("CategoryMapper", domain=ML)
def category_mapper(
    x: Any,
    *,
    cats_int64s: Sequence[int],
    cats_strings: Sequence[str],
    default_int64: int = -1,
    default_string: str = "_Unused",
    result: Any,
) -> Any:
    words: dict[str, Any] = {"keys_strings": cats_strings, "values_int64s": cats_int64s}
    numbers: dict[str, Any] = {"keys_int64s": cats_int64s, "values_strings": cats_strings}
    tables: dict[str, Any] = words if x.dtype == tf.string else numbers
    return label_encoder(x, default_int64=default_int64, default_string=default_string, result=result, **tables)


_BRANCHES = ("less_equal", "less", "greater_equal", "greater", "equal", "not_equal")
_MEMBER = 6
_AGGREGATES = (tf.reduce_mean, tf.reduce_sum, tf.reduce_min, tf.reduce_max)


@dynamic("TreeEnsemble", domain=ML)
def tree_ensemble(
    x: Any,
    *,
    aggregate_function: int = 1,
    leaf_targetids: Sequence[int],
    leaf_weights: np.ndarray,
    membership_values: np.ndarray | None = None,
    n_targets: int,
    nodes_falseleafs: Sequence[int],
    nodes_falsenodeids: Sequence[int],
    nodes_featureids: Sequence[int],
    nodes_hitrates: Any = None,
    nodes_missing_value_tracks_true: Sequence[int] = (),
    nodes_modes: np.ndarray,
    nodes_splits: np.ndarray,
    nodes_trueleafs: Sequence[int],
    nodes_truenodeids: Sequence[int],
    post_transform: int = 0,
    tree_roots: Sequence[int],
) -> Any:
    leaves = _reached(
        x, list(tree_roots), nodes_modes, nodes_splits, nodes_featureids, _members(nodes_modes, membership_values),
        np.stack([_followers(nodes_falsenodeids, nodes_falseleafs), _followers(nodes_truenodeids, nodes_trueleafs)], 1),
        np.asarray(nodes_missing_value_tracks_true or np.zeros(len(nodes_modes)), bool),
    )  # fmt: skip
    weights, targets = tf.gather(leaf_weights, leaves), tf.gather(np.asarray(leaf_targetids), leaves)
    mine = targets[..., None] == tf.range(n_targets, dtype=targets.dtype)
    # A tree without a leaf for a target says nothing of it: it neither lowers a minimum nor raises a maximum.
    silent = (0.0, 0.0, np.inf, -np.inf)[aggregate_function]
    votes = tf.where(mine, weights[..., None], tf.cast(silent, weights.dtype))
    return _post(_AGGREGATES[aggregate_function](votes, 1), post_transform)


def _followers(nodes: Sequence[int], are_leaves: Sequence[int]) -> np.ndarray:
    """Where a branch leads: to a node, or to a leaf as a negative number, -1 for leaf 0."""
    ids = np.asarray(nodes, np.int64)
    return np.where(np.asarray(are_leaves, bool), -1 - ids, ids)


def _members(modes: np.ndarray, values: np.ndarray | None) -> np.ndarray:
    """(nodes, most members): the set of each node, NaN where it has no more."""
    ends = np.flatnonzero(np.isnan(values)) if values is not None else np.zeros(0, int)
    sets = [] if values is None else np.split(values, ends + 1)
    sets = [each[~np.isnan(each)] for each in sets]
    width = max((len(each) for each in sets), default=1)
    table = np.full((len(modes), max(width, 1)), np.nan)
    for node, each in zip(np.flatnonzero(modes == _MEMBER), sets, strict=False):
        table[node, : len(each)] = each
    return table


def _reached(
    x: Any, roots: list[int], modes: np.ndarray, splits: np.ndarray, features: Sequence[int], members: np.ndarray,
    followers: np.ndarray, missing: np.ndarray,
) -> Any:  # fmt: skip
    """(rows, trees): the leaf that every row comes to in every tree."""
    place = tf.broadcast_to(tf.constant(roots, tf.int64), (tf.shape(x)[0], len(roots)))

    def down(place: Any) -> tuple[Any]:
        node = tf.maximum(place, 0)
        value = tf.gather(x, tf.gather(np.asarray(features), node), batch_dims=1)
        split, mode = tf.gather(splits.astype(x.dtype.as_numpy_dtype), node), tf.gather(modes.astype(np.int32), node)
        is_member = tf.reduce_any(value[..., None] == tf.gather(members.astype(x.dtype.as_numpy_dtype), node), -1)
        tests = [getattr(tf, name)(value, split) for name in _BRANCHES]
        holds = tf.gather(tf.stack([*tests, is_member], -1), mode, batch_dims=2)
        holds |= tf.math.is_nan(value) & tf.gather(missing, node)
        following = tf.gather(tf.gather(followers, node), tf.cast(holds, tf.int32), batch_dims=2)
        return (tf.where(place < 0, place, following),)

    return -1 - tf.while_loop(lambda place: tf.reduce_any(place >= 0), down, (place,))[0]


def _post(scores: Any, transform: int) -> Any:
    match transform:
        case 1:
            return tf.nn.softmax(scores)
        case 2:
            return tf.sigmoid(scores)
        case 3:
            shares = tf.exp(scores - tf.reduce_max(scores, -1, keepdims=True)) * tf.cast(scores != 0, scores.dtype)
            return shares / tf.reduce_sum(shares, -1, keepdims=True)
        case 4:
            return tf.cast(np.sqrt(2), scores.dtype) * tf.math.erfinv(2 * scores - 1)
    return scores
