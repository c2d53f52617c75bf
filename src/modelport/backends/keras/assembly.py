"""The functional model out of the tensors that a build has made, and the weights into its layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from modelport.backends.keras.absorb import Owned, Weight
from modelport.backends.keras.border import carrier_array
from modelport.backends.keras.carrier import as_tensor, is_inline, stored
from modelport.backends.keras.layers import weights as layer_weights
from modelport.backends.keras.names import depth, name_operations, operations, recursion
from modelport.backends.keras.ops.tensors import cast, dtype, plus
from modelport.core.signature import leaves, map_tree

if TYPE_CHECKING:
    from modelport.backends.keras.build import Program

_SHALLOW = 700
"""How deep a model may be that Keras loads under Python's usual recursion limit of 1000."""


def assemble(program: Program) -> keras.Model:
    """The model of a program whose nodes are built, with its weights set."""
    outputs = {str(value.name): _output(program, value) for value in program.graph.outputs}
    outputs = _with_unused(program, outputs)
    tensors = list(outputs.values())
    name_operations(tensors, program.names, program.kept, program.labels)
    _note_unused_inputs(program, tensors)
    deep = depth(tensors)
    if deep > _SHALLOW:
        limit = f"call sys.setrecursionlimit({deep + 1000}) before Keras itself loads it from a .keras file"
        program.note("changed", "model", f"is {deep} operations deep, and Keras walks it recursively: {limit}")
    returns = map_tree(lambda name: outputs[name], program.signature.returns)
    with recursion(2 * deep):
        model = keras.Model(_nested_inputs(program), returns, name="model")
    for layer, held in program.holding:
        _assign(layer, held)
    return model


def _output(program: Program, value: ir.Value) -> Any:
    found = program.operand(value)
    if isinstance(found, np.ndarray):
        found = as_tensor(program.zero, found) if is_inline(found) else program.tensor(value)
    return found


def _with_unused(program: Program, outputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs, with the weights that nothing uses tied to the first one: Keras keeps what an output needs."""
    held = {weight.name for _, part in program.holding for weight in _parts(part)}
    unused = [name for name in program.weights if name not in held]
    if not unused:
        return outputs
    nothing = None
    for name in unused:
        flat = ops.reshape(program.operand(program.graph.initializers[name]), (-1,))
        # The sum of no elements: it is 0 and has no gradient.
        empty = ops.sum(ops.cast(flat[(slice(0, 0),)], "float32"))
        nothing = empty if nothing is None else plus(nothing, empty)
    first = next(iter(outputs))
    tied = outputs[first]
    zero = cast(nothing, dtype(tied))
    outputs[first] = ops.logical_or(tied, zero) if dtype(tied) == "bool" else plus(tied, zero)
    return outputs


def _parts(part: Owned | Weight) -> Iterable[Weight]:
    return (part,) if isinstance(part, Weight) else part.weights.values()


def _note_unused_inputs(program: Program, tensors: Iterable[Any]) -> None:
    """Say which inputs the outputs do not depend on; the model takes them all the same."""
    used = {id(operation) for operation in operations(tensors)}
    for name, tensor in program.inputs.items():
        if id(tensor._keras_history.operation) not in used:
            program.note("dropped", name, "no output depends on this input")


def _nested_inputs(program: Program) -> Any:
    """The inputs as the model takes them: one tensor, one nesting, or a list in the signature's order."""
    args, kwargs = program.signature.args or (), dict(program.signature.kwargs)
    if len(args) == 1 and not kwargs:
        nested = map_tree(lambda name: program.inputs[name], args[0])
        return list(nested) if isinstance(nested, tuple) else nested
    return [program.inputs[name] for name in (*leaves(args), *leaves(kwargs))]


def _assign(layer: Any, held: Owned | Weight) -> None:
    """Set the weights of a layer, and freeze it if they are frozen."""
    if isinstance(held, Weight):
        layer.kernel.assign(stored(carrier_array(held.array)))
        layer.trainable = held.role == "parameter"
        return
    for each in layer_weights(layer):
        arrays = [_portable(held, name, each.layout.portable) for name in each.names]
        each.variable.assign(each.to_native(arrays))
    if not held.trainable:
        layer.trainable = False


def _portable(owned: Owned, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in the portable layout; zeros for a bias that the source does not have."""
    if name not in owned.weights and name.startswith("bias"):
        return np.zeros(shape, np.float32)
    array = owned.weights[name].array
    return array.T if owned.transposed else array
