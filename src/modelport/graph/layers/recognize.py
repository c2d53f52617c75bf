"""Layers in a graph: the build-only nodes that become a framework's own layers."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from modelport.graph.layers.activations import recognize_activations
from modelport.graph.layers.attention import recognize_attention
from modelport.graph.layers.attention_views import straighten_attention
from modelport.graph.layers.norms import recognize_layer_norm, recognize_rms_norm
from modelport.graph.layers.recurrent import recognize_recurrent
from modelport.graph.layers.spatial_dropout import recognize_spatial_dropout
from modelport.graph.normal import drop_dead_nodes
from modelport.graph.padding import absorb_pads
from modelport.graph.splice import BUILD_DOMAIN, is_op, only_use, replace_outputs
from modelport.graph.weights import roles

__all__ = ["BUILD_DOMAIN", "recognize_layers"]


def recognize_layers(model: ir.Model) -> ir.Model:
    """Replace what computes a layer by one node that stands for it, in place.

    The nodes are of the domain `BUILD_DOMAIN`:

    - `Linear(x, weight, bias?)`, weight (out, in), or (in, out) with the attribute `transposed=1`;
    - `Embedding(ids, weight)`;
    - `LSTM`, `GRU`, `RNN` with the inputs (x, h0?, c0? (LSTM only), then per layer and direction: w_ih, w_hh, b_ih?,
      b_hh?), the outputs (output, h_n[, c_n]), torch's semantics and parameters, and the attributes hidden_size,
      num_layers, bidirectional, reverse, batch_first, dropout, and nonlinearity (RNN) or linear_before_reset (GRU);
    - `Attention`, where a Dropout drops its weights: ONNX's operator with the ratio as the attribute dropout;
    - `SpatialDropout(x, ratio?)`, which drops whole slices along the attribute axes.

    A padding of zeros becomes the padding of the convolution or pooling after it. GELU, SiLU, layer and RMS
    normalization and attention that are written out become the ONNX operators; what stands between an attention and
    its Linears is as short as it can be. A node keeps the name and the metadata of what it replaces, a recurrent one
    has its parameters' module path for a name. Only weights are absorbed: parameters, frozen or not.

    Args:
        model: what `normalize` returned.

    Returns:
        The same model.
    """
    weights = {name for name, role in roles(model).items() if role != "buffer"}
    absorb_pads(model)
    recognize_activations(model)
    recognize_layer_norm(model, weights)
    recognize_rms_norm(model, weights)
    recognize_attention(model)
    recognize_recurrent(model)
    recognize_spatial_dropout(model, weights)
    for node in list(model.graph.all_nodes()):
        if node.domain or node.graph is None:
            continue
        if node.op_type == "Gemm":
            _gemm(node, weights)
        elif node.op_type == "MatMul":
            _matmul(node, weights)
        elif node.op_type == "Gather":
            _gather(node, weights)
    straighten_attention(model)
    drop_dead_nodes(model)
    model.graph.opset_imports[BUILD_DOMAIN] = 1
    return model


def _matrix_sizes(value: ir.Value | None, weights: set[str]) -> tuple[Any, Any] | None:
    """The sizes of a weight that is a matrix."""
    if value is None or value.name not in weights or value.shape is None or len(value.shape) != 2:
        return None
    return value.shape[0], value.shape[1]


def _is_bias(value: ir.Value | None, size: object, weights: set[str]) -> bool:
    return value is not None and value.name in weights and value.shape is not None and tuple(value.shape) == (size,)


def _gemm(node: ir.Node, weights: set[str]) -> None:
    x, weight, *rest = node.inputs
    addend = rest[0] if rest else None
    scales = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    sizes = _matrix_sizes(weight, weights)
    if sizes is None or node.attributes.get_int("transA", 0) or scales != [1.0, 1.0]:
        return
    transposed = 1 - node.attributes.get_int("transB", 0)
    bias = addend if _is_bias(addend, sizes[transposed], weights) else None
    inputs = [x, weight] if bias is None else [x, weight, bias]
    result = node.outputs[0]
    linear = replace_outputs([result], "Linear", inputs, {"transposed": transposed}, domain=BUILD_DOMAIN)
    if addend is not None and bias is None:
        # Gemm broadcasts any addend over its result; only a vector of the right size is a layer's bias.
        total = ir.node("Add", [linear.outputs[0], addend], name=f"{node.name}/Add")
        assert node.graph is not None
        node.graph.insert_before(node, total)
        _put_after(linear.outputs[0], total)


def _put_after(value: ir.Value, node: ir.Node) -> None:
    """Give a value's name and uses, but the one by a node, to that node's output."""
    result = node.outputs[0]
    result.type, result.shape = value.type, value.shape
    name = value.name
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    value.name = f"{name}/linear"
    result.name = name


def _matmul(node: ir.Node, weights: set[str]) -> None:
    x, weight = node.inputs
    transposed = 1
    if is_op(weight, "Transpose") and weight is not None:
        producer = weight.producer()
        # A permutation of a matrix that changes it is the one that swaps its axes.
        if producer is not None and tuple(producer.attributes.get_ints("perm", (1, 0))) == (1, 0):
            weight, transposed = producer.inputs[0], 0
    sizes = _matrix_sizes(weight, weights)
    if x is None or sizes is None or (x.shape is not None and len(x.shape) < 2):
        return
    result, inputs = node.outputs[0], [x, weight]
    add = only_use(result)
    if add is not None and add.op_type == "Add" and not add.domain:
        other = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
        if _is_bias(other, sizes[transposed], weights):
            result, inputs = add.outputs[0], [x, weight, other]
    replace_outputs([result], "Linear", inputs, {"transposed": transposed}, domain=BUILD_DOMAIN)


def _gather(node: ir.Node, weights: set[str]) -> None:
    weight, ids = node.inputs
    # Constant ids make no layer call: what is gathered is the same for every input.
    if node.attributes.get_int("axis", 0) or _matrix_sizes(weight, weights) is None:
        return
    if ids is None or ids.const_value is not None:
        return
    replace_outputs([node.outputs[0]], "Embedding", [ids, weight], {}, domain=BUILD_DOMAIN)
