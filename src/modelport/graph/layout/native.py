"""Inputs and outputs in the layout that a framework computes in: images with channels last in Keras, first in torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from modelport.core.report import Note
from modelport.core.signature import Arrays, Signature, TensorSpec
from modelport.graph.layers.recognize import recognize_layers
from modelport.graph.layout.channels_last import CHANNELS_LAST, cancel_transposes, channels_last, laid_out
from modelport.graph.layout.relayout import Perm, inverse, rank_of
from modelport.graph.normal import normalize
from modelport.graph.signature import graph_inputs, read_signature, write_signature


@dataclass(frozen=True)
class Orders:
    """The axes of a graph's inputs and outputs in the order of a framework; what is not named keeps its own.

    Attributes:
        inputs: by name, the source's axis at each place of the target.
        outputs: the same.
    """

    inputs: Mapping[str, Perm] = field(default_factory=dict)
    outputs: Mapping[str, Perm] = field(default_factory=dict)

    def notes(self) -> tuple[Note, ...]:
        """What a report says of it."""
        return tuple(
            Note("layout", name, f"is in the order of the target: the source's axes {', '.join(map(str, perm))}")
            for name, perm in (*self.inputs.items(), *self.outputs.items())
        )

    def to_native(self, inputs: Arrays) -> Arrays:
        """Inputs of the source as the target takes them."""
        return {name: _moved(array, self.inputs.get(name)) for name, array in inputs.items()}

    def to_source(self, outputs: Arrays) -> Arrays:
        """Outputs of the target as the source gives them."""
        return {name: _moved(array, _back(self.outputs.get(name))) for name, array in outputs.items()}


def to_native_layout(model: ir.Model, *, last: bool) -> Orders:
    """Let a portable graph take and give images in the layout of a framework, in place.

    An image is an input of which all of the graph wants the channels elsewhere, on its way to an operator that has
    channels (a convolution, a pooling, ...), or an output that such an operator gives so.

    Args:
        model: a portable graph; its signature follows.
        last: whether the framework's channels are last; first otherwise.

    Returns:
        Which inputs and outputs have another order of axes now, and which one.
    """
    orders = _orders(model, last)
    signature = read_signature(model)
    for value in graph_inputs(model.graph):
        if (perm := orders.inputs.get(str(value.name))) is not None:
            _permute_input(model.graph, value, perm)
    for index, value in enumerate(model.graph.outputs):
        if (perm := orders.outputs.get(str(value.name))) is not None:
            _permute_output(model.graph, index, value, perm)
    write_signature(model, _permuted(signature, orders))
    if not last:
        cancel_transposes(model)
    return orders


def _orders(model: ir.Model, last: bool) -> Orders:
    trial = recognize_layers(normalize(model)) if last else normalize(model)
    images = {
        str(value.name)
        for values, forward in ((graph_inputs(trial.graph), True), (trial.graph.outputs, False))
        for value in values
        if _meets(value, forward=forward)
    }
    inputs, outputs = laid_out(trial, last=last)
    return Orders(
        {name: perm for name, perm in inputs.items() if name in images and _swaps(perm, last)},
        {name: perm for name, perm in outputs.items() if name in images and _swaps(perm, last)},
    )


def _swaps(perm: Perm, last: bool) -> bool:
    """Whether an order brings the channels from one end to the other."""
    if len(perm) < 3:
        return False
    there = channels_last(len(perm))
    return perm == (there if last else inverse(there))


def _meets(value: ir.Value, *, forward: bool) -> bool:
    """Whether an operator with channels is reached over values of the same rank."""
    rank, seen, front = rank_of(value), {value}, [value]
    while front:
        here = front.pop()
        for node in _neighbours(here, forward):
            if node.op_type in CHANNELS_LAST and not node.domain and (not forward or node.inputs[0] is here):
                return True
            beyond = node.outputs if forward else node.inputs[:1]
            new = [v for v in beyond if v is not None and v not in seen and rank_of(v) == rank]
            seen.update(new)
            front += new
    return False


def _neighbours(value: ir.Value, forward: bool) -> Iterator[ir.Node]:
    if forward:
        yield from (use.node for use in value.uses())
    elif (producer := value.producer()) is not None:
        yield producer


def _permute_input(graph: ir.Graph, value: ir.Value, perm: Perm) -> None:
    back = ir.node("Transpose", [value], {"perm": inverse(perm)}, name=f"{value.name}/from_native")
    result = back.outputs[0]
    result.name, result.type, result.shape = f"{value.name}/own", value.type, value.shape
    value.replace_all_uses_with(result)
    back.replace_input_with(0, value)
    value.shape = _shape(value.shape, perm)
    first = next(iter(graph), None)
    if first is None:
        graph.append(back)
    else:
        graph.insert_before(first, back)


def _permute_output(graph: ir.Graph, index: int, value: ir.Value, perm: Perm) -> None:
    name = value.name
    value.name = f"{name}/own"
    result = ir.Value(name=name, type=value.type, shape=_shape(value.shape, perm))
    graph.append(ir.node("Transpose", [value], {"perm": perm}, outputs=[result], name=f"{name}/to_native"))
    graph.outputs[index] = result


def _permuted(signature: Signature, orders: Orders) -> Signature:
    def spec(found: TensorSpec, perms: Mapping[str, Perm]) -> TensorSpec:
        perm = perms.get(found.name)
        if perm is None or found.shape is None:
            return found
        return replace(found, shape=tuple(found.shape[axis] for axis in perm))

    return replace(
        signature,
        inputs=tuple(spec(s, orders.inputs) for s in signature.inputs),
        outputs=tuple(spec(s, orders.outputs) for s in signature.outputs),
    )


def _shape(shape: ir.Shape | None, perm: Perm) -> ir.Shape | None:
    return None if shape is None else ir.Shape([shape[axis] for axis in perm])


def _back(perm: Perm | None) -> Perm | None:
    return None if perm is None else inverse(perm)


def _moved(array: np.ndarray, perm: Perm | None) -> np.ndarray:
    return array if perm is None else np.ascontiguousarray(array.transpose(perm))
