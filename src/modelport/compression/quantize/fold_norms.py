"""A BatchNormalization behind a layer becomes part of it: what is quantized is what runs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelport.graph.names import join_name, split_name, unique_name
from modelport.graph.splice import only_use, take_place
from modelport.graph.weights import roles, set_roles

_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
"""The axis of a weight that its output channels are on."""


def fold_norms(model: ir.Model) -> int:
    """Fold every BatchNormalization into the layer whose only reader it is, in place.

    `gamma * (w x + b - mean) / sqrt(var + epsilon) + beta` is linear in `x`: Ioffe and Szegedy 2015, section 3.1. The
    layer keeps the name of its weight, and has a bias beside it.

    Returns:
        How many are gone.
    """
    count = 0
    for norm in list(model.graph.all_nodes()):
        source = norm.inputs[0] if norm.op_type == "BatchNormalization" and not norm.domain else None
        layer = None if source is None else source.producer()
        if layer is None or source is None or not _folds(layer, norm, source):
            continue
        _fold(model, layer, norm)
        count += 1
    return count


def _folds(layer: ir.Node, norm: ir.Node, source: ir.Value) -> bool:
    if layer.domain or layer.op_type not in _AXIS or only_use(source) != norm:
        return False
    if norm.attributes.get_int("training_mode", 0) or any(value.uses() for value in norm.outputs[1:]):
        return False
    if layer.op_type == "ConvTranspose" and layer.attributes.get_int("group", 1) != 1:
        return False
    if layer.op_type == "Gemm" and not _is_plain_gemm(layer):
        return False
    values = (*layer.inputs[1:], *norm.inputs[1:])
    # A weight that another layer reads too must stay as it is.
    return all(
        value is None or (value.const_value is not None and len(value.uses()) == 1 and not value.is_graph_output())
        for value in values
    )


def _is_plain_gemm(layer: ir.Node) -> bool:
    factors = (layer.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    return bool(layer.attributes.get_int("transB", 0)) and all(factor == 1.0 for factor in factors)


def _array(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _fold(model: ir.Model, layer: ir.Node, norm: ir.Node) -> None:
    kept = roles(model)
    scale, shift, mean, variance = (_array(value) for value in norm.inputs[1:5])
    weight, bias = layer.inputs[1], layer.inputs[2] if len(layer.inputs) > 2 else None
    assert weight is not None
    assert weight.name is not None
    assert weight.const_value is not None
    weights = _array(weight)
    gain = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    axis = _AXIS[layer.op_type]
    shape = [-1 if place == axis else 1 for place in range(weights.ndim)]
    before = np.zeros_like(gain) if bias is None else np.broadcast_to(_array(bias), gain.shape)
    biases = shift + gain * (before - mean)
    dtype = weight.const_value.dtype
    _set(weight, weights * gain.reshape(shape), dtype)
    if bias is None:
        name = unique_name(join_name(split_name(weight.name)[0], "bias"), model.graph.initializers)
        bias = ir.Value(name=name, type=ir.TensorType(dtype))
        _set(bias, biases, dtype)
        model.graph.register_initializer(bias)
        layer.resize_inputs(3)
        layer.replace_input_with(2, bias)
        if (role := kept.get(weight.name)) is not None:
            kept[name] = role
    else:
        _set(bias, biases, dtype)
    gone = [value for value in norm.inputs[1:] if value is not None]
    label, result = norm.outputs[0], layer.outputs[0]
    take_place(label, result)
    result.shape, result.type = label.shape, label.type
    assert norm.graph is not None
    norm.graph.remove(norm, safe=True)
    for value in gone:
        model.graph.initializers.pop(str(value.name))
        kept.pop(str(value.name), None)
    set_roles(model, kept)


def _set(value: ir.Value, array: np.ndarray, dtype: ir.DataType) -> None:
    value.const_value = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=value.name)
    value.shape = ir.Shape(array.shape)
