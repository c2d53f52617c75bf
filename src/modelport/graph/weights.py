"""What the initializers of a graph are: parameters, frozen parameters, buffers or constants; and which are tied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir

from modelport.core.errors import DataError
from modelport.graph.quantized import holds_integers, says_what_integers_mean

Role = Literal["parameter", "frozen", "buffer"]
"""A parameter is trained, a frozen one is not, a buffer is state that no gradient reaches."""

ROLES_KEY = "modelport.roles"
ALIASES_KEY = "modelport.aliases"

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

_BUFFERS = {"BatchNormalization": (3, 4)}
"""Inputs that are running statistics, by operator."""

_SETTINGS = {
    "Resize": (1, 2),
    "Upsample": (1,),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
}
"""Floating inputs that say how an operator works and are no weights, by operator."""


_WEIGHTS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), (1, 2)),
    **dict.fromkeys(
        ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"), (1, 2)
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (1, 2, 3)),
    "MatMul": (0, 1),
    "PRelu": (1,),
}
"""Inputs that are weights, even of one element, by operator."""


def set_roles(model: ir.Model, roles: Mapping[str, Role]) -> None:
    """Say in the graph's metadata what its weights are; an initializer without a role is a constant.

    Raises:
        DataError: a name is no initializer of the graph, or a role is not known.
    """
    unknown = sorted(set(roles) - set(model.graph.initializers))
    wrong = sorted(name for name, role in roles.items() if role not in get_args(Role))
    if unknown or wrong:
        raise DataError(f"roles do not fit the graph: no initializers {unknown}, no roles {[roles[n] for n in wrong]}.")
    model.metadata_props[ROLES_KEY] = json.dumps(dict(roles))


def roles(model: ir.Model) -> dict[str, Role]:
    """The role of every weight, by initializer name.

    A foreign graph does not say it. There, an initializer of a floating dtype is a parameter where it has more than
    one element or an operator takes it as a weight (a bias of one element, after a MatMul too); it is a buffer where
    it is the running mean or variance of a BatchNormalization, and a constant where every use of it is a setting of
    its operator (the scales of Resize). Weights in integers are buffers, and so are their scales and zero points
    (`quantized_weights`). Everything else is a constant.

    Raises:
        DataError: the metadata is not a table of roles.
    """
    stored = _table(model, ROLES_KEY)
    initializers = model.graph.initializers
    if stored is None:
        found = {name: _guess(value) for name, value in initializers.items()}
        return {name: role for name, role in found.items() if role is not None}
    return {name: role for name, role in stored.items() if name in initializers}


def trainable(model: ir.Model) -> tuple[str, ...]:
    """The names of the parameters, in the order of their roles; frozen ones are not among them."""
    return tuple(name for name, role in roles(model).items() if role == "parameter")


def set_aliases(model: ir.Model, aliases: Mapping[str, str]) -> None:
    """Keep the further names of tied weights: alias -> the initializer that holds the one copy.

    Raises:
        DataError: an alias is an initializer itself, or points to none.
    """
    initializers = model.graph.initializers
    wrong = {alias: name for alias, name in aliases.items() if alias in initializers or name not in initializers}
    if wrong:
        raise DataError(f"aliases must point from a name that is free to an initializer; these do not: {wrong}.")
    model.metadata_props[ALIASES_KEY] = json.dumps(dict(aliases))


def aliases(model: ir.Model) -> dict[str, str]:
    """The further names of tied weights: alias -> initializer.

    Raises:
        DataError: the metadata is not a table of names.
    """
    return _table(model, ALIASES_KEY) or {}


def _table(model: ir.Model, key: str) -> dict[str, Any] | None:
    text = model.metadata_props.get(key)
    if text is None:
        return None
    try:
        table = json.loads(text)
    except ValueError as error:
        raise DataError(f"the graph's metadata {key!r} is not JSON: {text[:200]!r}.") from error
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise DataError(f"the graph's metadata {key!r} is not a table of names: {text[:200]!r}.")
    return table


RECURRENT = frozenset({"GRU", "LSTM", "RNN"})

_ARRANGES = frozenset({"Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})


def parts(value: ir.Value | None) -> tuple[ir.Value, ...]:
    """The values that a weight is put together of, as the gates and directions of a recurrent layer are."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.domain or node.op_type not in _ARRANGES:
        return () if value is None else (value,)
    sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return tuple(dict.fromkeys(part for source in sources for part in parts(source)))


def with_weights(model: ir.Model, arrays: Mapping[str, np.ndarray]) -> ir.Model:
    """A copy of a graph with other values for some of its weights; names that it does not have are left out.

    Args:
        model: the graph; it stays as it is.
        arrays: by initializer name, of the weights' shapes.
    """
    model = model.clone()
    for name in roles(model):
        value = model.graph.initializers[name]
        if name in arrays and value.const_value is not None:
            dtype = value.const_value.dtype
            array = np.array(arrays[name], dtype.numpy()).reshape(value.const_value.shape.numpy())
            value.const_value = ir.Tensor(array, dtype, name=name)
    return model


def lift_weights(model: ir.Model) -> None:
    """Make initializers of the Constant nodes that a foreign graph has for weights, in place.

    A Constant is one where an operator takes it as a weight, as it is or with its axes moved. A graph that says what
    its weights are stays as it is.
    """
    if ROLES_KEY in model.metadata_props:
        return
    for node in list(model.graph):
        tensor = node.attributes.get_tensor("value") if node.op_type == "Constant" and not node.domain else None
        result = node.outputs[0]
        if tensor is None or tensor.dtype not in _FLOATS or result.is_graph_output():
            continue
        result.shape = ir.Shape(tensor.shape)
        if not _serves_as_weight(result):
            continue
        weight = ir.Value(
            name=result.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor
        )
        result.replace_all_uses_with(weight)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(weight)


_MOVES = frozenset({"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def _serves_as_weight(value: ir.Value) -> bool:
    return any(
        index in _WEIGHTS.get(node.op_type, ())
        or index in _BUFFERS.get(node.op_type, ())
        or _is_bias(node, value)
        or (node.op_type in _MOVES and index == 0 and _serves_as_weight(node.outputs[0]))
        for node, index in value.uses()
    )


def _guess(value: ir.Value) -> Role | None:
    tensor = value.const_value
    if tensor is not None and tensor.size and (holds_integers(value) or says_what_integers_mean(value)):
        return "buffer"
    if tensor is None or tensor.dtype not in _FLOATS or tensor.size == 0:
        return None
    uses = value.uses()
    if any(index in _BUFFERS.get(node.op_type, ()) for node, index in uses):
        return "buffer"
    if uses and all(index in _SETTINGS.get(node.op_type, ()) for node, index in uses):
        return None
    is_weight = tensor.size > 1 or any(
        index in _WEIGHTS.get(node.op_type, ()) or _is_bias(node, value) for node, index in uses
    )
    return "parameter" if is_weight else None


def _is_bias(node: ir.Node, value: ir.Value) -> bool:
    """Whether a node adds a vector to a matrix product."""
    if node.op_type != "Add" or value.shape is None or len(value.shape) != 1:
        return False
    producers = [source.producer() for source in node.inputs if source is not None]
    return any(producer is not None and producer.op_type == "MatMul" for producer in producers)
