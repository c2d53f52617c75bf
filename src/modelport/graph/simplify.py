"""Inputs that say nothing but a dtype, a shape or a zero, replaced by what they say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx_ir as ir

from modelport.graph.layers.provenance import is_zero
from modelport.graph.shapes.expr import Size, is_known
from modelport.graph.shapes.info import Dims, ShapeInfo


def simplify(node: ir.Node, graph: ir.Graph, info: ShapeInfo, weights: Collection[str]) -> None:
    """Simplify one node in place.

    The target of a Reshape or Expand becomes a constant where the shapes tell enough of it, a CastLike becomes a Cast,
    and a convolution loses a bias of constant zeros.

    Args:
        node: of a graph whose shapes are known.
        graph: the main graph, which takes new constants.
        info: the shapes; new constants are added to it.
        weights: the names of the initializers that are weights.
    """
    if node.domain:
        return
    if node.op_type in _TARGETS:
        _fix_target(node, graph, info)
    elif node.op_type == "CastLike" and node.inputs[1] is not None:
        dtype = info.dtype(node.inputs[1])
        if dtype is not None:
            node.op_type = "Cast"
            node.resize_inputs(1)
            node.attributes["to"] = ir.AttrInt64("to", dtype.value)
    elif node.op_type in ("Conv", "ConvTranspose") and len(node.inputs) > 2:
        bias = node.inputs[2]
        if bias is not None and is_zero(bias, weights):
            node.resize_inputs(2)


def _fix_target(node: ir.Node, graph: ir.Graph, info: ShapeInfo) -> None:
    if node.inputs[0] is None or node.inputs[1] is None:
        return
    value = node.inputs[1]
    data, target = info.dims(node.inputs[0]), info.elements(value)
    if data is None or target is None:
        return
    copies = node.op_type == "Reshape" and not node.attributes.get_int("allowzero", 0)
    if 0 in target and (not copies or len(data) < len(target) - target[::-1].index(0)):
        return
    found: list[int] | None = list(target) if is_known(target) else None
    if value.const_value is None:
        found = _TARGETS[node.op_type](data, [size if size != 0 else data[i] for i, size in enumerate(target)])
        if found is not None:
            node.replace_input_with(1, _constant(f"{node.outputs[0].name}/target", found, graph, info))
    if found is not None:
        # A zero in the target is a copy now, so `allowzero` says nothing.
        node.attributes.pop("allowzero", None)


def _constant(name: str, sizes: Sequence[int], graph: ir.Graph, info: ShapeInfo) -> ir.Value:
    tensor = ir.tensor(np.array(sizes, np.int64), name=name)
    constant = ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
    constant.shape = ir.Shape([len(sizes)])
    info.set(constant, constant.type, [len(sizes)])
    graph.register_initializer(constant)
    return constant


def _reshape_target(data: Dims, target: Sequence[Size]) -> list[int] | None:
    """0 where a size is the data's on that axis, -1 for one more that only the run will tell."""
    open_axes = [i for i, size in enumerate(target) if not isinstance(size, int) and size != _at(data, i)]
    if len(open_axes) + target.count(-1) > 1:
        return None
    return [size if isinstance(size, int) else -1 if axis in open_axes else 0 for axis, size in enumerate(target)]


def _expand_target(data: Dims, target: Sequence[Size]) -> list[int] | None:
    """1 where a size is the data's on that axis already."""
    shift = len(target) - len(data)
    sizes = [1 if size == _at(data, axis - shift) else size for axis, size in enumerate(target)]
    return list(sizes) if is_known(sizes) else None


def _at(data: Dims, axis: int) -> Size | None:
    return data[axis] if 0 <= axis < len(data) else None


_TARGETS: dict[str, Callable[[Dims, Sequence[Size]], list[int] | None]] = {
    "Reshape": _reshape_target,
    "Expand": _expand_target,
}
