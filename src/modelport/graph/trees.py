"""Tree ensembles as arrays: what the attributes of ai.onnx.ml's operators say, in the form that array code walks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

COMPARISONS = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF")
"""What a node asks of its feature; of a leaf nothing."""

_LEAF, _MEMBER = COMPARISONS.index("LEAF"), COMPARISONS.index("BRANCH_MEMBER")


@dataclass(frozen=True)
class Forest:
    """Every node of every tree, one after the other.

    Attributes:
        roots: the first node of every tree.
        modes: what a node asks, as an index into `COMPARISONS`.
        features: which feature it asks for.
        splits: what it compares the feature with.
        yes: the node that follows where the answer is yes; a leaf follows itself.
        no: the node that follows otherwise.
        missing: whether the answer for NaN is yes.
        weights: (nodes, targets) what a leaf gives to every target, NaN where nothing.
        depth: the number of questions on the longest way.
    """

    roots: np.ndarray
    modes: np.ndarray
    features: np.ndarray
    splits: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    missing: np.ndarray
    weights: np.ndarray
    depth: int

    @property
    def asks_for_members(self) -> bool:
        """Whether a node asks if its feature is in a set, for which there is no array here."""
        return bool((self.modes == _MEMBER).any())


def read_forest(node: ir.Node) -> Forest:
    """The trees of a TreeEnsemble, TreeEnsembleClassifier or TreeEnsembleRegressor."""
    return _today(node) if node.op_type == "TreeEnsemble" else _before(node)


def _today(node: ir.Node) -> Forest:
    """Leaves are counted apart from the other nodes; here they come after them."""
    features = _array(node, "nodes_featureids", np.int64)
    count = len(features)
    targets, weights = _array(node, "leaf_targetids", np.int64), _array(node, "leaf_weights", np.float64)
    leaves = count + np.arange(len(targets))
    yes, no = (
        _followed(_array(node, f"nodes_{branch}nodeids", np.int64), _array(node, f"nodes_{branch}leafs", bool), leaves)
        for branch in ("true", "false")
    )
    spread = np.full((count + len(leaves), _int(node, "n_targets", 1)), np.nan)
    spread[leaves, targets] = weights
    blank = np.zeros(len(leaves))
    roots = _array(node, "tree_roots", np.int64)
    modes = np.concatenate([_array(node, "nodes_modes", np.int64), np.full(len(leaves), _LEAF)])
    return Forest(
        roots,
        modes,
        np.concatenate([features, blank]).astype(np.int64),
        np.concatenate([_array(node, "nodes_splits", np.float64), blank]),
        yes,
        no,
        np.concatenate([_array(node, "nodes_missing_value_tracks_true", bool, count), blank]).astype(bool),
        spread,
        _depth(roots, yes, no),
    )


def _followed(ids: np.ndarray, ends: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """What follows every node; leaves come after the other nodes, and follow themselves."""
    return np.concatenate([np.where(ends, ids + len(ids), ids), leaves])


def _before(node: ir.Node) -> Forest:
    """Nodes are told apart by their tree and their number in it, and the targets of leaves are a table beside them."""
    trees, numbers = (_array(node, f"nodes_{name}", np.int64) for name in ("treeids", "nodeids"))
    place = {key: index for index, key in enumerate(zip(trees.tolist(), numbers.tolist(), strict=True))}
    own = np.arange(len(trees))
    modes = np.array([COMPARISONS.index(mode) for mode in node.attributes["nodes_modes"].as_strings()])
    keys = ([(tree, i) for tree, i in zip(trees.tolist(), _array(node, name, np.int64).tolist(), strict=True)]
            for name in ("nodes_truenodeids", "nodes_falsenodeids"))  # fmt: skip
    yes, no = (np.where(modes == _LEAF, own, [place.get(key, 0) for key in found]) for found in keys)
    kind = "class" if node.op_type == "TreeEnsembleClassifier" else "target"
    ends = zip(*(_array(node, f"{kind}_{name}", np.int64).tolist() for name in ("treeids", "nodeids")), strict=True)
    rows, columns = np.array([place[end] for end in ends]), _array(node, f"{kind}_ids", np.int64)
    spread = np.full((len(trees), _targets(node, columns)), np.nan)
    spread[rows, columns] = 0
    np.add.at(spread, (rows, columns), _array(node, f"{kind}_weights", np.float64))
    roots = np.array([place[tree, numbers[trees == tree][0]] for tree in dict.fromkeys(trees.tolist())])
    return Forest(
        roots,
        modes,
        np.where(modes == _LEAF, 0, _array(node, "nodes_featureids", np.int64)),
        _array(node, "nodes_values", np.float64, len(trees)),
        yes,
        no,
        _array(node, "nodes_missing_value_tracks_true", bool, len(trees)),
        spread,
        _depth(roots, yes, no),
    )


def _targets(node: ir.Node, columns: np.ndarray) -> int:
    labels = next((node.attributes[name] for name in ("classlabels_int64s", "classlabels_strings")
                   if name in node.attributes), None)  # fmt: skip
    least = int(columns.max(initial=0)) + 1
    return max(least, _int(node, "n_targets", 1) if labels is None else len(labels.value))


def _depth(roots: np.ndarray, yes: np.ndarray, no: np.ndarray) -> int:
    """How many questions the longest way has; no way is longer than there are nodes."""
    depth, level = 0, roots
    while depth < len(yes):
        below = np.unique(np.concatenate([yes[level], no[level]]))
        below = below[(yes[below] != below) | (no[below] != below)]
        depth += 1
        if not len(below):
            break
        level = below
    return depth


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes.get_int(name, default) or default


def _array(node: ir.Node, name: str, dtype: Any, count: int = 0) -> np.ndarray:
    """An attribute, as numbers or as a tensor; so many zeros where it is not given."""
    for spelled in (name, f"{name}_as_tensor"):
        if spelled in node.attributes:
            value = node.attributes[spelled].value
            return np.asarray(value.numpy() if hasattr(value, "numpy") else value).astype(dtype)
    return np.zeros(count, dtype)
