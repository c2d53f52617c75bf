"""Scaled dot-product attention that is written out, as one node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.attention_masks import Masks, bare_condition, constant_of, only_sighted, share_masks
from modelport.graph.layers.attention_sizes import read_sizes_off_factors
from modelport.graph.splice import BUILD_DOMAIN, insert, is_op, only_use, replace_outputs, scalar


@dataclass
class _Scores:
    """What a Softmax is taken of: `scale * query @ key`, less what the masks hide.

    Attributes:
        key: (batch, heads, features, positions).
    """

    query: ir.Value
    key: ir.Value
    scale: float
    masks: Masks = field(default_factory=Masks)


def recognize_attention(model: ir.Model) -> int:
    """Write every `softmax(scale * q @ k.T + mask) @ v` as one Attention, in place; how many there were.

    Heads may be shared by groups of queries, a mask may be added or selected by `Where`, and a lower triangle becomes
    `is_causal`. Where a Dropout drops attention weights, the node is `BUILD_DOMAIN`'s Attention: the operator with one
    attribute more, `dropout`.

    Args:
        model: a normalised graph with shapes inferred.
    """
    read_sizes_off_factors(model)
    found = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Softmax" and not node.domain and node.graph is not None:
            found += _recognize(model, node)
    if found > 1:
        share_masks(model)
    return found


def _recognize(model: ir.Model, softmax: ir.Node) -> bool:
    weights, dropout, product = _uses(softmax)
    if weights is None or product is None or not _is_last_axis(softmax) or softmax.inputs[0] is None:
        return False
    scores, value = _scores(softmax.inputs[0]), product.inputs[1]
    if scores is None or value is None or not _is_batched(scores, value, softmax.inputs[0]):
        return False
    if not scores.masks.fit(softmax.inputs[0]):
        return False
    scores.masks.close()
    attributes: dict[str, float | int] = {}
    features = scores.query.shape[-1] if scores.query.shape is not None else None
    if not isinstance(features, int) or not math.isclose(scores.scale, features**-0.5, rel_tol=1e-6):
        attributes["scale"] = scores.scale
    if scores.masks.is_causal:
        attributes["is_causal"] = 1
    ratio = None if dropout is None else _ratio(dropout)
    if ratio:
        attributes["dropout"] = ratio
    key = _unswapped(scores, product)
    key, value = _ungrouped(key, value, scores.query)
    flat = len(scores.query.shape or ()) == 3
    mask, query = scores.masks.written(model, product), scores.query
    if scores.masks.sighted is not None:
        query = only_sighted(model, product, query, scores.masks.sighted)
    inputs = [query, key, value]
    if flat:
        inputs = [_as_one_batch(model, product, each) for each in inputs]
    inputs += [] if mask is None else [mask]
    node = replace_outputs(
        product.outputs, "Attention", inputs, attributes,
        domain=BUILD_DOMAIN if ratio else "", name=(dropout if ratio and dropout else softmax).name, at=product,
    )  # fmt: skip
    if flat:
        _squeeze(model, node)
    return True


def _uses(softmax: ir.Node) -> tuple[ir.Value | None, ir.Node | None, ir.Node | None]:
    """The attention weights, the Dropout that takes them, and the product with the values."""
    weights = softmax.outputs[0]
    node = only_use(weights)
    dropout = None
    if node is not None and node.op_type == "Dropout" and not node.domain and node.inputs[0] is weights:
        if _ratio(node) is None or any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            return None, None, None
        dropout, weights = node, node.outputs[0]
        node = only_use(weights)
    if node is None or node.op_type != "MatMul" or node.domain or node.inputs[0] is not weights:
        return None, None, None
    same = node.graph is softmax.graph
    return (weights, dropout, node) if same else (None, None, None)


def _ratio(dropout: ir.Node) -> float | None:
    """The share that a Dropout drops in training; `None` where it is not known, or the graph says whether it trains."""
    if len(dropout.inputs) > 2 and dropout.inputs[2] is not None:
        return None
    return 0.5 if len(dropout.inputs) < 2 or dropout.inputs[1] is None else scalar(dropout.inputs[1])


def _is_last_axis(softmax: ir.Node) -> bool:
    rank = None if softmax.inputs[0] is None or softmax.inputs[0].shape is None else len(softmax.inputs[0].shape)
    axis = softmax.attributes.get_int("axis", -1)
    return rank in (3, 4) and axis in (-1, rank - 1)


def _scores(value: ir.Value) -> _Scores | None:
    """The product behind scores, through scalings and masks; each is read by the next one only."""
    node = value.producer()
    if node is None or node.domain or only_use(value) is None:
        return None
    match node.op_type:
        case "MatMul":
            return _product(node)
        case "Mul" | "Div":
            below, factor = _scaled(node)
            scores = None if below is None else _scores(below)
            if scores is None or scores.masks:
                return None
            scores.scale *= factor
            return scores
        case "Add":
            for index in (0, 1):
                below, added = node.inputs[index], node.inputs[1 - index]
                scores = None if below is None or added is None else _scores(below)
                if scores is not None and added is not None:
                    scores.masks.add(added)
                    return scores
        case "Where":
            bare_condition(node)
            condition, kept, other = node.inputs
            for below, fill, seen in ((kept, other, True), (other, kept, False)):
                number = scalar(fill)
                scores = None if below is None or number is None else _scores(below)
                if scores is None or condition is None or number is None:
                    continue
                if scores.masks.select(condition, seen, number, value):
                    return scores
    return None


def _product(node: ir.Node) -> _Scores | None:
    a, b = node.inputs
    query, left = _through_scale(a)
    key, right = _through_scale(b)
    if query is None or key is None or query.shape is None or len(query.shape) not in (3, 4):
        return None
    return _Scores(query, key, left * right)


def _scaled(node: ir.Node) -> tuple[ir.Value | None, float]:
    """What a Mul or Div by a number scales, and by how much."""
    for index in (0, 1) if node.op_type == "Mul" else (1,):
        number = scalar(node.inputs[index])
        if number:
            return node.inputs[1 - index], number if node.op_type == "Mul" else 1 / number
    return None, 1.0


def _through_scale(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    node = None if value is None else value.producer()
    if node is None or node.domain or node.op_type not in ("Mul", "Div"):
        return value, 1.0
    below, factor = _scaled(node)
    return (value, 1.0) if below is None else (below, factor)


def _is_batched(scores: _Scores, value: ir.Value, product: ir.Value) -> bool:
    """Whether query, key and value have the same batch and heads, and the scores the rank of the query."""
    shapes = [each.shape for each in (scores.query, scores.key, value, product)]
    if any(shape is None or len(shape) != len(shapes[0] or ()) for shape in shapes):
        return False
    first, *rest = [list(shape or ())[:-2] for shape in shapes]
    known = all(isinstance(dim, int) or dim.value is not None for dim in first)
    return known and all(other == first for other in rest)


def _unswapped(scores: _Scores, before: ir.Node) -> ir.Value:
    """The key with its positions before its features."""
    rank = len(scores.key.shape or ())
    swap = (*range(rank - 2), rank - 1, rank - 2)
    source, perm = scores.key, swap
    if is_op(scores.key, "Transpose"):
        node = scores.key.producer()
        assert node is not None
        assert node.inputs[0] is not None
        first = tuple(node.attributes.get_ints("perm") or range(rank)[::-1])
        source, perm = node.inputs[0], tuple(first[axis] for axis in swap)
    if perm == tuple(range(rank)):
        return source
    key = insert(before, "Transpose", [source], {"perm": perm})
    key.name, key.type = f"{scores.key.name}/key", source.type
    key.shape = None if source.shape is None else ir.Shape([source.shape[axis] for axis in perm])
    return key


def _ungrouped(key: ir.Value, value: ir.Value, query: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Key and value before each of their heads was repeated for a group of queries."""
    sources = _repeated(key), _repeated(value)
    if sources[0] is None or sources[1] is None or query.shape is None:
        return key, value
    heads = [source.shape[1] for source in sources if source is not None and source.shape is not None]
    count = query.shape[1]
    if len(heads) == 2 and heads[0] == heads[1] and isinstance(heads[0], int) and isinstance(count, int):
        return (sources[0], sources[1]) if count % heads[0] == 0 else (key, value)
    return key, value


def _repeated(value: ir.Value) -> ir.Value | None:
    """x where a value is `Reshape(Expand(Unsqueeze(x, 2)))`, each head as often as there are queries in a group."""
    reshape = value.producer()
    if not is_op(value, "Reshape") or reshape is None or not is_op(reshape.inputs[0], "Expand"):
        return None
    expanded = reshape.inputs[0]
    expand = None if expanded is None else expanded.producer()
    if expanded is None or expand is None or not is_op(expand.inputs[0], "Unsqueeze"):
        return None
    unsqueezed = expand.inputs[0]
    unsqueeze = None if unsqueezed is None else unsqueezed.producer()
    source = None if unsqueeze is None else unsqueeze.inputs[0]
    shapes = [each.shape for each in (source, unsqueezed, expanded, value) if each is not None]
    if source is None or len(shapes) != 4 or [len(shape or ()) for shape in shapes] != [4, 5, 5, 4]:
        return None
    own, one, many, joined = (list(shape or ()) for shape in shapes)
    grouped = one == [*own[:2], 1, *own[2:]] and many[:2] + many[3:] == own and isinstance(many[2], int)
    whole = isinstance(own[1], int) and isinstance(many[2], int) and joined[1] == own[1] * many[2]
    return source if grouped and whole and joined[2:] == own[2:] else None


def _as_one_batch(model: ir.Model, before: ir.Node, value: ir.Value) -> ir.Value:
    raised = insert(before, "Unsqueeze", [value, constant_of(model, np.array([0]))])
    raised.name, raised.type = f"{value.name}/unsqueeze", value.type
    raised.shape = None if value.shape is None else ir.Shape([1, *value.shape])
    return raised


def _squeeze(model: ir.Model, node: ir.Node) -> None:
    """Take the axis away again that an attention without heads was given."""
    result = node.outputs[0]
    shape = result.shape
    squeeze = ir.node("Squeeze", [result, constant_of(model, np.array([0]))], name=f"{node.name}/Squeeze")
    after = squeeze.outputs[0]
    after.type, after.shape = result.type, shape
    result.shape = None if shape is None else ir.Shape([1, *shape])
    assert node.graph is not None
    node.graph.insert_after(node, squeeze)
    name = result.name
    for use in list(result.uses()):
        if use.node is not squeeze:
            use.node.replace_input_with(use.idx, after)
    for index, output in enumerate(node.graph.outputs):
        if output is result:
            node.graph.outputs[index] = after
    result.name, after.name = f"{name}/heads", name
