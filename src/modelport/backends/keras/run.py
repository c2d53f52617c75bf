"""Signatures, examples and inference of Keras models and TensorFlow modules."""

from __future__ import annotations

import contextlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelport.backends.keras.structure import (
    call_of,
    free,
    is_functional,
    is_keras,
    named_inputs,
    named_outputs,
    parameter_names,
    served,
    structures,
    tensor_spec,
)
from modelport.core.errors import ModelPortError, SignatureError, UnsupportedModelError
from modelport.core.signature import Arrays, Signature, TensorSpec, Tree, leaves, map_tree


def signature(native: Any, example: Any = None) -> Signature:
    """The named inputs and outputs of a model.

    A functional model knows its own: its inputs have their `keras.Input` names, or the keys of the dict it takes.
    Any other Keras model or layer is called with the example, which builds it; axis 0 is `"batch"` and every other
    axis is as in the example. A `tf.Module` or a SavedModel is read off its signature, or traced on the example.

    Args:
        native: a `keras.Layer`, a `tf.Module` or a restored SavedModel.
        example: what the native call takes: one array, a tuple of positional arguments, a list or dict where the model
            takes one.

    Raises:
        SignatureError: the model does not know its shapes and there is no example.
        UnsupportedModelError: the model cannot be called on the example; the message names the line.
    """
    if is_functional(native):
        return _of_functional(native)
    if example is None and not is_keras(native):
        return _of_served(native)
    if example is None:
        raise SignatureError(
            f"{type(native).__name__} {native.name!r} does not know the shapes of its inputs: pass example=, one input "
            "as the model is called with it, or build it from keras.Input."
        )
    return _of_example(native, example)


def _of_functional(native: Any) -> Signature:
    takes, gives = structures(native)
    inputs, args = named_inputs(takes)
    producers = [tensor._keras_history.operation.name for tensor in leaves(gives)]
    outputs, returns = named_outputs(gives, producers, {spec.name for spec in inputs})
    return Signature(inputs, outputs, (args,), {}, returns)


def _of_example(native: Any, example: Any) -> Signature:
    args, kwargs = arguments(native, example)
    specs: list[TensorSpec] = []
    first = next((np.shape(leaf)[0] for leaf in leaves((args, kwargs)) if np.ndim(leaf)), None)

    def spec(name: str, value: Any) -> str:
        array = np.asarray(value)
        chosen = free(name, {s.name for s in specs})
        shape = tuple("batch" if axis == 0 and size == first else size for axis, size in enumerate(array.shape))
        specs.append(TensorSpec(chosen, _input_dtype(native, array), shape))
        return chosen

    names = parameter_names(native)
    args = tuple(
        _name_tree(tree, names[index] if index < len(names) else f"input_{index}", spec)
        for index, tree in enumerate(args)
    )
    kwargs = {key: _name_tree(tree, key, spec) for key, tree in kwargs.items()}
    called = Signature(tuple(specs), (), args, kwargs, ())
    outputs = trace(native, called).structured_outputs
    named = [f"output_{index}" for index, _ in enumerate(leaves(outputs))]
    found, returns = named_outputs(outputs, named, {s.name for s in specs})
    return Signature(called.inputs, found, args, kwargs, returns)


def _name_tree(tree: Any, name: str, spec: Callable[[str, Any], str]) -> Tree:
    if isinstance(tree, Mapping):
        return {key: _name_tree(value, str(key), spec) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(_name_tree(value, f"{name}_{index}", spec) for index, value in enumerate(tree))
    return None if tree is None else spec(name, tree)


def _input_dtype(native: Any, array: np.ndarray) -> str:
    """The dtype a model takes: Keras casts the floats of an example to its own."""
    if array.dtype.kind in "USO":
        return "str"
    if array.dtype == np.float64 and is_keras(native) and native.autocast:
        return str(native.input_dtype)
    return str(array.dtype)


def arguments(native: Any, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example as the positional and keyword arguments of the native call.

    A tuple is the positional arguments where the call has room for them, else its one argument. A dict is the keyword
    arguments where every key is one, else the one argument. Anything else is the one argument.
    """
    if is_functional(native):
        return (example,), {}
    names = parameter_names(native)
    if isinstance(example, tuple) and (len(example) == 1 or len(names) > 1):
        return example, {}
    if isinstance(example, Mapping) and set(example) <= {*names, "mask"}:
        return (), dict(example)
    return (example,), {}


def flatten(native: Any, example: Any, signature: Signature) -> Arrays:
    """An example in the native call's nesting as arrays by input name; floats and ints have the signature's size.

    A dict by input name is taken as it is.

    Raises:
        SignatureError: it is not nested as the signature says.
    """
    if isinstance(example, Mapping) and set(example) == {spec.name for spec in signature.inputs}:
        return {spec.name: _as(example[spec.name], spec.dtype) for spec in signature.inputs}
    trees = (tuple(signature.args or ()), dict(signature.kwargs))
    if isinstance(example, (tuple, list)) and is_functional(native):
        example = example[0] if isinstance(example, tuple) and len(example) == 1 else example
    values = dict(_pairs(trees, arguments(native, example), signature))
    return {spec.name: _as(values[spec.name], spec.dtype) for spec in signature.inputs}


def _as(value: Any, dtype: str) -> np.ndarray:
    array = np.asarray(value)
    if dtype != "str" and array.dtype.kind == np.dtype(dtype).kind:
        return array.astype(dtype, copy=False)
    return array


def _pairs(tree: Tree, values: Any, signature: Signature) -> Iterator[tuple[str, Any]]:
    """Leaves of a tree of names with what stands at their places in some values."""
    if isinstance(tree, str):
        yield tree, values
    elif isinstance(tree, Mapping) and isinstance(values, Mapping) and set(tree) == set(values):
        for key, inner in tree.items():
            yield from _pairs(inner, values[key], signature)
    elif isinstance(tree, (tuple, list)) and isinstance(values, (tuple, list)) and len(tree) == len(values):
        for inner, value in zip(tree, values, strict=True):
            yield from _pairs(inner, value, signature)
    elif tree is not None:
        raise SignatureError(
            f"the example does not fit {signature}: the call takes {tree!r}, the example has {values!r}."
        )


def run(native: Any, inputs: Arrays, signature: Signature) -> Arrays:
    """The outputs in inference mode, by the signature's names.

    Raises:
        SignatureError: the model cannot be called with the inputs; the message names the line.
    """
    from modelport.backends.keras.border import to_array, to_tensor

    tensors = {name: to_tensor(value) for name, value in inputs.items()}
    try:
        with _device(native):
            outputs = call(native, tensors, signature)
    except ModelPortError:
        raise
    except Exception as error:  # whatever the model's own code raises
        shapes = [f"{name}: {np.asarray(value).dtype}{np.shape(value)}" for name, value in inputs.items()]
        raise SignatureError(
            f"{type(native).__name__} cannot be called with inputs {', '.join(shapes)}{_place(error)}: {_told(error)}"
        ) from error
    found = by_name(outputs, signature)
    return {spec.name: to_array(found[spec.name], _element(spec)) for spec in signature.outputs}


def _element(spec: TensorSpec) -> str:
    """The dtype of a tensor, or of what a sequence or an optional holds."""
    while not spec.is_tensor:
        spec = spec.held
    return spec.dtype


def _device(native: Any) -> contextlib.AbstractContextManager[Any]:
    """The device that a model's variables are on."""
    import tensorflow as tf

    variables = getattr(native, "variables", None) or ()
    device = next((getattr(v, "value", v).device for v in variables if hasattr(getattr(v, "value", v), "device")), None)
    return tf.device(device) if device else contextlib.nullcontext()


def call(native: Any, tensors: Mapping[str, Any], signature: Signature, *, training: bool = False) -> Any:
    """The native call on TensorFlow tensors by input name, in inference mode or in training mode."""
    if is_functional(native):
        own = named_inputs(structures(native)[0])
        ordered = list(tensors.values())
        names = [spec.name for spec in own[0]]
        known = tensors if set(tensors) == set(names) else dict(zip(names, ordered, strict=True))
        return native(map_tree(lambda name: known[name], own[1]), training=training)
    args = map_tree(lambda name: tensors[name], tuple(signature.args or ()))
    kwargs = map_tree(lambda name: tensors[name], dict(signature.kwargs))
    if is_keras(native):
        return native(*args, **kwargs, training=training)
    if function := served(native, signature):
        return function(**tensors)
    settings = {"training": training} if "training" in inspect.signature(call_of(native)).parameters else {}
    return native(*args, **kwargs, **settings)


def by_name(outputs: Any, signature: Signature) -> dict[str, Any]:
    """Outputs in the native nesting by the signature's names.

    Raises:
        SignatureError: there are not as many as the signature says.
    """
    if not all(spec.is_tensor for spec in signature.outputs):
        return signature.unpack(outputs)
    found: dict[str, Any] = {}

    def visit(tree: Tree, values: Any) -> None:
        if isinstance(tree, Mapping) and isinstance(values, Mapping):
            for key, inner in tree.items():
                visit(inner, values[key])
        elif isinstance(tree, (tuple, list)) and isinstance(values, (tuple, list)):
            for inner, value in zip(tree, values, strict=True):
                visit(inner, value)
        elif isinstance(tree, str):
            found[tree] = values[0] if isinstance(values, (tuple, list)) and len(values) == 1 else values

    visit(signature.returns, outputs)
    if len(found) != len(signature.outputs):
        raise SignatureError(f"the model returned {len(list(leaves(outputs)))} outputs, its signature is {signature}.")
    return {spec.name: found[spec.name] for spec in signature.outputs}


def trace(native: Any, signature: Signature) -> Any:
    """The model as one TensorFlow graph in inference mode, a `ConcreteFunction` of the inputs in the signature's order.

    Symbolic dimensions have no size in it.

    Raises:
        UnsupportedModelError: the model's code fails while it is traced; the message names the line.
    """
    import tensorflow as tf

    specs = [
        tf.TensorSpec(
            None if spec.shape is None else [n if isinstance(n, int) else None for n in spec.shape],
            "string" if spec.dtype == "str" else spec.dtype,
            name=f"input_{index}",
        )
        for index, spec in enumerate(signature.inputs)
    ]
    names = [spec.name for spec in signature.inputs]
    # Autograph would rewrite the user's `call`; Keras itself traces without it.
    function = tf.function(
        lambda *tensors: call(native, dict(zip(names, tensors, strict=True)), signature), autograph=False
    )
    try:
        if is_keras(native):
            build(native, signature)
        return function.get_concrete_function(*specs)
    except ModelPortError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise UnsupportedModelError(
            f"{type(native).__name__} cannot be traced by TensorFlow{_place(error)}: {_told(error)}"
        ) from error


def _told(error: Exception) -> str:
    """What an error says, without the colours that Keras gives to it."""
    return re.sub(r"\x1b\[\d+m", "", str(error))


def _place(error: Exception) -> str:
    """The last line of the user's own code that an error came through."""
    import keras
    import tensorflow as tf

    import modelport

    frameworks = tuple(str(Path(module.__file__ or "").parent) for module in (keras, tf, modelport))
    own = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(frameworks)]
    return f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""


def line_of(op: Any) -> str:
    """The line of the user's own code that made an op of a traced graph; empty where only a framework's code did."""
    import keras
    import tensorflow as tf

    import modelport

    frameworks = tuple(str(Path(module.__file__ or "").parent) for module in (keras, tf, modelport))
    for frame in reversed(list(op.traceback or ())):
        if frame.filename == __file__:
            break  # further out is the code that asked for the export
        if not frame.filename.startswith(frameworks):
            return f", line {frame.lineno} of {frame.filename}"
    return ""


def build(native: Any, signature: Signature) -> None:
    """Make the variables, and perhaps layers, that a Keras model makes on its first call: a graph must not make any."""
    import tensorflow as tf

    if native.built and all(layer.built for layer in native._flatten_layers()):
        return
    zeros = {name: tf.zeros_like(array) for name, array in signature.draw({}).items()}
    call(native, zeros, signature)


def _of_served(native: Any) -> Signature:
    """The signature that a SavedModel was saved with, or of the one trace that a `tf.Module`'s call has."""
    function = served(native)
    if function is None:
        return _of_concrete(native)
    inputs = tuple(tensor_spec(name, spec) for name, spec in function.structured_input_signature[1].items())
    labels = [f"output_{index}" for index, _ in enumerate(leaves(function.structured_outputs))]
    outputs, returns = named_outputs(function.structured_outputs, labels, {spec.name for spec in inputs})
    return Signature(inputs, outputs, (), {spec.name: spec.name for spec in inputs}, returns)


def _of_concrete(native: Any) -> Signature:
    declared = getattr(type(native).__call__, "input_signature", None) if callable(native) else None
    if not declared:
        raise SignatureError(
            f"{type(native).__name__} does not say what its inputs are: pass example=, or give its __call__ a "
            "tf.function with an input_signature."
        )
    names = parameter_names(native)
    inputs = tuple(tensor_spec(names[index], spec) for index, spec in enumerate(declared))
    called = Signature(inputs, (), tuple(spec.name for spec in inputs), {}, ())
    outputs = trace(native, called).structured_outputs
    labels = [f"output_{index}" for index, _ in enumerate(leaves(outputs))]
    found, returns = named_outputs(outputs, labels, set(names))
    return Signature(inputs, found, called.args, {}, returns)
