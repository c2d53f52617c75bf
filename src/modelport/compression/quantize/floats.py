"""Weights, and for float16 activations too, as floating numbers of fewer bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from modelport.compression.quantize.files import in_float16
from modelport.compression.quantize.regions import holds_weight
from modelport.core.errors import StepError
from modelport.core.steps import Quantize
from modelport.graph.named import Named

_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

_CHANNELS = {"Gather": {0: 0}, "Gemm": {1: 0}, "MatMul": {1: 1}, "Conv": {1: 0}, "ConvTranspose": {1: 1}}
"""The axis of a weight that output channels, or the rows of a table, are on: by operator and place."""


def to_float16(model: ir.Model, step: Quantize, excluded: Named) -> tuple[ir.Model, dict[str, str]]:
    """The graph with weights and activations in float16, and why nodes stay in float32; its inputs and outputs do.

    Args:
        model: a graph in normal form; it is left as it was.
        step: what is asked for.
        excluded: the layers that stay in float32.

    Raises:
        StepError: nothing in the graph can be in float16.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    alone = {}
    for node in model.graph.all_nodes():
        weights = [value for value in node.inputs if value is not None and value.const_value is not None]
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            alone[str(node.name)] = f"{node.op_type} stands for quantized numbers already"
        elif not any(value.dtype == ir.DataType.FLOAT for value in (*node.inputs, *node.outputs) if value is not None):
            continue
        elif excluded.node(node) or any(excluded.weight(value) for value in weights):
            alone[str(node.name)] = "it is excluded"
        elif node.op_type in DEFAULT_OP_BLOCK_LIST:
            alone[str(node.name)] = f"ONNX Runtime's conversion keeps {node.op_type} in float32"
        elif any(_overflows(value) for value in weights):
            alone[str(node.name)] = f"{node.op_type} reads a constant beyond 65504, the largest number of float16"
    if not any(holds_weight(value) for value in model.graph.initializers.values()):
        raise StepError(f"{step} finds no float32 weight: the model has none, or they are quantized already.")
    return in_float16(model, list(alone)), alone


def _overflows(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return False
    array = np.abs(tensor.numpy())
    return bool((array[np.isfinite(array)] > np.finfo(np.float16).max).any())


def store_weights(model: ir.Model, step: Quantize, excluded: Named) -> dict[str, str]:
    """Store the weights of more than one axis in bfloat16 or float8, in place; everything is computed in float32.

    In bfloat16 a weight keeps its name and is widened by a Cast. In float8 (e4m3fn) a DequantizeLinear multiplies it by
    `max |w| / 448` of its output channel, where 448 is the largest number of that type (Micikevicius et al. 2022).

    Returns:
        Why a node with weights keeps them, by its name.

    Raises:
        StepError: there is no weight to store so.
    """
    alone: dict[str, str] = {}
    count = 0
    for value in list(model.graph.initializers.values()):
        if not holds_weight(value) or not value.uses():
            continue
        nodes = [user for user, _ in value.uses()]
        axis = _channel_axis(value) if step.precision == "float8" else 0
        if excluded.weight(value) or any(excluded.node(node) for node in nodes):
            reason = "it is excluded"
        elif any(node.op_type in _RECURRENT for node in nodes):
            reason = "recurrent layers read their weights as they are"
        elif axis is None:
            reason = f"its weight {value.name!r} has no axis that is known to be that of its channels"
        elif step.precision == "float8":
            store_scaled(model, value, axis, ir.DataType.FLOAT8E4M3FN)
            count += 1
            continue
        else:
            _store_bfloat16(model, value)
            count += 1
            continue
        alone.update({str(node.name): reason for node in nodes})
    if not count:
        told = "".join(f"\n  {name}: {reason}" for name, reason in alone.items()) or " it has none in float32."
        raise StepError(f"{step} finds no weight that it can store:{told}")
    return alone


def _channel_axis(value: ir.Value) -> int | None:
    """The axis that all nodes read output channels, or the rows of a table, along."""
    found: set[int | None] = set()
    for node, place in value.uses():
        axis = None if node.domain else _CHANNELS.get(node.op_type, {}).get(place)
        if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
            axis = 1
        if node.op_type == "MatMul" and value.shape is not None and len(value.shape) != 2:
            axis = None
        if node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0:
            axis = None
        if node.op_type == "Transpose" and value.shape is not None and len(value.shape) == 2:
            # A matrix that is turned before it is multiplied by.
            axis = 0
        found.add(axis)
    return found.pop() if len(found) == 1 else None


def _store_bfloat16(model: ir.Model, value: ir.Value) -> None:
    assert value.const_value is not None
    array = value.const_value.numpy().astype(ml_dtypes.bfloat16)
    node = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{value.name}/Cast")
    _put(model, value, node)
    value.const_value = ir.tensor(array, dtype=ir.DataType.BFLOAT16, name=value.name)
    value.dtype = ir.DataType.BFLOAT16


def store_scaled(model: ir.Model, value: ir.Value, axis: int, dtype: ir.DataType) -> None:
    """Store a weight in fewer bits with a scale for each place along an axis, in place; a DequantizeLinear widens it.

    The scale is the largest magnitude there over the largest number of the type, and integers are rounded to even.
    """
    assert value.const_value is not None
    array = value.const_value.numpy()
    others = tuple(place for place in range(array.ndim) if place != axis)
    integers = dtype == ir.DataType.INT8
    scale = np.abs(array).max(others) / (127 if integers else float(ml_dtypes.finfo(dtype.numpy()).max))
    scale[scale == 0] = 1
    shape = [-1 if place == axis else 1 for place in range(array.ndim)]
    numbers = array / scale.reshape(shape)
    numbers = (np.rint(numbers) if integers else numbers).astype(dtype.numpy())
    stored, factors = (
        ir.Value(
            name=f"{value.name}_{label}",
            type=ir.TensorType(kind),
            shape=ir.Shape(content.shape),
            const_value=ir.tensor(content, dtype=kind, name=f"{value.name}_{label}"),
        )
        for label, content, kind in (
            ("quantized", numbers, dtype),
            ("scale", scale.astype(np.float32), ir.DataType.FLOAT),
        )
    )
    for each in (stored, factors):
        model.graph.register_initializer(each)
    node = ir.node("DequantizeLinear", [stored, factors], {"axis": axis}, name=f"{value.name}_DequantizeLinear")
    _put(model, value, node)
    model.graph.initializers.pop(str(value.name))


def _put(model: ir.Model, value: ir.Value, node: ir.Node) -> None:
    """Let all that read a weight read what a node makes of it."""
    result = node.outputs[0]
    result.name, result.type, result.shape = f"{value.name}_float32", ir.TensorType(ir.DataType.FLOAT), value.shape
    for user, place in list(value.uses()):
        if user is not node:
            user.replace_input_with(place, result)
    model.graph.insert_before(model.graph[0], node)
