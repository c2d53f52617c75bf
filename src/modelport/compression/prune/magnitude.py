"""Unstructured pruning: single weights become zero; shapes stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.compression.prune.importance import Importance
from modelport.compression.prune.names import weights_behind
from modelport.compression.prune.result import LeftAlone, Pruned, PrunedLayer
from modelport.core.errors import StepError
from modelport.core.steps import Prune
from modelport.graph.named import Named
from modelport.graph.weights import lift_weights, roles

_WEIGHTS = {
    "Conv": {1: 1},
    "ConvTranspose": {1: 0},
    "Gemm": {0: 1, 1: 0},
    "MatMul": {0: -1, 1: -2},
    "LSTM": {1: 2, 2: 2},
    "GRU": {1: 2, 2: 2},
    "RNN": {1: 2, 2: 2},
}
"""The inputs that are pruned, and which of their axes runs over the layer's inputs, by operator."""


def prune_weights(graph: ir.Model, step: Prune, importance: Importance) -> Pruned:
    """Zeros in the weights of convolutions, linear and recurrent layers and of products with a matrix.

    Biases, normalizations and embeddings stay. With a ratio exactly `round(ratio * n)` weights become zero, of all
    together or of each layer; among equals those that come first. With `n_m=(n, m)` each run of m weights along the
    layer's inputs (for a convolution: input channels) loses its n least important.
    """
    model = graph.clone()
    lift_weights(model)
    excluded = Named(step.exclude, model, f"{type(step).__name__}: exclude")
    weights, left = _prunable(model, excluded)
    arrays = {name: value.const_value.numpy() for name, (value, _) in weights.items()}
    importance.check({name: array.shape for name, array in arrays.items()})
    scores: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        score = importance.of(name, array)
        if score is None:
            left[name] = "it has no gradient"
        else:
            scores[name] = score
    if step.n_m is not None:
        masks = _patterns(scores, {name: axis for name, (_, axis) in weights.items()}, step.n_m, left)
    else:
        assert step.ratio is not None
        masks = _least(scores, step.ratio, step.scope)
    if not masks:
        raise StepError("Prune: the graph has no weight that can be pruned" + _told(left))
    rows = []
    for name, mask in masks.items():
        array = arrays[name]
        value, _ = weights[name]
        pruned = np.where(mask, np.zeros((), array.dtype), array)
        assert value.const_value is not None
        value.const_value = ir.tensor(pruned, dtype=value.const_value.dtype, name=name)
        rows.append(PrunedLayer(name, int(np.count_nonzero(array)), int(np.count_nonzero(pruned)), "weights"))
    return Pruned(model, tuple(rows), tuple(LeftAlone(name, reason) for name, reason in left.items()))


def _told(left: dict[str, str]) -> str:
    return "." if not left else ": " + "; ".join(f"{name}: {reason}" for name, reason in list(left.items())[:8]) + "."


def _prunable(model: ir.Model, excluded: Named) -> tuple[dict[str, tuple[ir.Value, int]], dict[str, str]]:
    """The weights to prune with the axis of their inputs, and those that were left with the reason."""
    known = {name for name, role in roles(model).items() if role != "buffer"}
    found: dict[str, tuple[ir.Value, int]] = {}
    left: dict[str, str] = {}
    for node in model.graph.all_nodes():
        for index, axis in _WEIGHTS.get(node.op_type, {}).items():
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or node.domain:
                continue
            for weight in weights_behind(node, known, value):
                name = str(weight.name)
                if excluded.node(node) or excluded.weight(weight):
                    left[name] = "it is excluded"
                elif weight.const_value is not None and len(weight.const_value.shape) > 1:
                    found.setdefault(name, (weight, _axis_of(weight, value, _inputs_axis(node, index, axis))))
    return {name: row for name, row in found.items() if name not in left}, left


def _inputs_axis(node: ir.Node, index: int, axis: int) -> int:
    if node.op_type == "Gemm" and node.attributes.get_int("transB" if index else "transA", 0):
        return 1 if index else 0
    return axis


def _axis_of(weight: ir.Value, used: ir.Value, axis: int) -> int:
    """The axis of a weight that an axis of what an operator takes of it is, through transpositions and new axes."""
    assert weight.const_value is not None
    rank = len(weight.const_value.shape)
    from_end = axis - len(used.shape) if axis >= 0 and used.shape is not None else axis
    value = used
    while value is not weight:
        node = value.producer()
        if node is None or node.inputs[0] is None:
            break
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm") or tuple(reversed(range(rank)))
            from_end = perm[from_end] - len(perm)
        value = node.inputs[0]
    return rank + from_end


def _least(scores: dict[str, np.ndarray], ratio: float, scope: str) -> dict[str, np.ndarray]:
    """Which weights are the least of all, or of each layer."""
    if scope == "layer":
        return {
            name: mask for name, score in scores.items() for mask in _least({name: score}, ratio, "global").values()
        }
    if not scores:
        return {}
    every = np.concatenate([score.ravel() for score in scores.values()])
    count = round(ratio * every.size)
    if not count:
        return {name: np.zeros(score.shape, bool) for name, score in scores.items()}
    limit = np.partition(every, count - 1)[count - 1]
    equals = count - int((every < limit).sum())
    masks = {}
    for name, score in scores.items():
        mask = np.ascontiguousarray(score < limit)
        places = np.flatnonzero(score == limit)[:equals]
        mask.ravel()[places] = True
        equals -= len(places)
        masks[name] = mask
    return masks


def _patterns(
    scores: dict[str, np.ndarray], axes: dict[str, int], n_m: tuple[int, int], left: dict[str, str]
) -> dict[str, np.ndarray]:
    """In every run of m weights along the inputs, which n are the least."""
    count, run = n_m
    masks = {}
    for name, score in scores.items():
        axis = axes[name]
        if score.shape[axis] % run:
            left[name] = f"its {score.shape[axis]} inputs (axis {axis} of {score.shape}) are no multiple of {run}"
            continue
        last = np.moveaxis(score, axis, -1)
        runs = last.reshape(-1, run)
        order = np.argsort(runs, axis=1, kind="stable")
        mask = np.zeros(runs.shape, bool)
        np.put_along_axis(mask, order[:, :count], True, axis=1)
        masks[name] = np.moveaxis(mask.reshape(last.shape), -1, axis)
    return masks
