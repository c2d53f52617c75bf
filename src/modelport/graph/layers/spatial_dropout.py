"""Dropout of whole slices: along some axes all elements share one draw, and are dropped together.

In the standard's operators it is `x * Dropout(ones)`, the ones of size 1 along these axes: torch's Dropout2d and Keras'
SpatialDropout2D draw once per image and channel. Build-only it is one node, `SpatialDropout(x, ratio)` of the domain
`BUILD_DOMAIN`, with the attribute `axes`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from modelport.graph.splice import BUILD_DOMAIN, is_op, is_same_size, only_use, other, replace_outputs, scalar

SPATIAL_DROPOUT = "SpatialDropout"


def recognize_spatial_dropout(model: ir.Model, weights: Collection[str]) -> None:
    """Replace every product with dropped ones by one node, in place.

    Args:
        model: with shapes inferred.
        weights: the names of initializers that are no constants.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Dropout" or node.domain:
            continue
        product = only_use(node.outputs[0])
        if product is None or product.op_type != "Mul" or product.domain or product.graph is not node.graph:
            continue
        x = other(product, node.outputs[0])
        axes = _shared_axes(x, node, weights)
        if axes is None:
            continue
        ratio, result = [x, *node.inputs[1:2]], product.outputs[0]
        if axes:
            replace_outputs([result], SPATIAL_DROPOUT, ratio, {"axes": axes}, domain=BUILD_DOMAIN)
        else:
            replace_outputs([result], "Dropout", ratio)


def _shared_axes(x: ir.Value | None, dropout: ir.Node, weights: Collection[str]) -> list[int] | None:
    """The axes of x along which a Dropout of ones draws once; `None` where it drops something else."""
    ones = dropout.inputs[0]
    plain = len(dropout.inputs) < 3 or dropout.inputs[2] is None
    known = len(dropout.inputs) < 2 or dropout.inputs[1] is None or scalar(dropout.inputs[1]) is not None
    if x is None or ones is None or x.shape is None or ones.shape is None or not plain or not known:
        return None
    if any(value.uses() or value.is_graph_output() for value in dropout.outputs[1:]) or not _is_ones(ones, weights):
        return None
    sizes = [1] * (len(x.shape) - len(ones.shape)) + list(ones.shape)
    if len(sizes) != len(x.shape):
        return None
    axes = [axis for axis, size in enumerate(sizes) if size == 1 != x.shape[axis]]
    drawn = [axis for axis, size in enumerate(sizes) if size != 1]
    return axes if all(is_same_size(sizes[axis], x.shape[axis]) for axis in drawn) else None


def _is_ones(value: ir.Value, weights: Collection[str]) -> bool:
    if value.const_value is not None:
        return value.name not in weights and bool(np.all(value.const_value.numpy() == 1))
    if not is_op(value, "ConstantOfShape"):
        return False
    producer = value.producer()
    filling = None if producer is None else producer.attributes.get("value")
    return filling is not None and float(filling.as_tensor().numpy().item()) == 1.0


def standard_nodes(node: ir.Node) -> Sequence[ir.Node]:
    """A SpatialDropout as standard nodes, the last of which gives its result.

    Args:
        node: of a result whose rank and dtype are known.
    """
    x, *ratio = node.inputs
    (result,) = node.outputs
    assert result.shape is not None
    assert result.dtype is not None
    axes, rank = node.attributes["axes"].as_ints(), len(result.shape)
    tape, stem = ir.tape.Tape(), node.name
    shared = tape.op("Constant", [], {"value": ir.tensor(np.isin(np.arange(rank), axes))}, name=f"{stem}.shared")
    one = tape.op("Constant", [], {"value": ir.tensor(np.array([1], np.int64))}, name=f"{stem}.one")
    sizes = tape.op("Where", [shared, one, tape.op("Shape", [x], name=f"{stem}.shape")], name=f"{stem}.sizes")
    filling = ir.AttrTensor("value", ir.tensor(np.ones(1, result.dtype.numpy()), result.dtype))
    ones = tape.op("ConstantOfShape", [sizes], {"value": filling}, name=f"{stem}.ones")
    dropped = tape.op("Dropout", [ones, *ratio], name=f"{stem}.dropout")
    tape.op("Mul", [x, dropped], name=stem)
    for made in tape.nodes:
        made.outputs[0].name = made.name
    return tape.nodes
