"""Trace a model once, noting which layer was called on which tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from modelport.backends.keras.lower.distributed import replaced
from modelport.backends.keras.lower.table import LayerRow, row_of
from modelport.backends.keras.run import build, trace
from modelport.backends.keras.structure import is_keras
from modelport.core.report import Note
from modelport.core.signature import Signature, leaves, map_tree


@dataclass(frozen=True)
class Call:
    """One call of a layer that has a row.

    Attributes:
        layer: the Keras layer.
        row: how it is lowered.
        path: the names of the layers that it is in and its own, joined by dots.
        arguments: of its `call`, by name; symbolic tensors among them.
        outputs: the symbolic tensors that the row's results stand for, in order.
    """

    layer: Any
    row: LayerRow
    path: str
    arguments: dict[str, Any]
    outputs: tuple[Any, ...]


@dataclass
class Trace:
    """A traced model.

    Attributes:
        function: the `ConcreteFunction`; its inputs are the signature's, in order.
        calls: the calls of layers that have a row, by the graph and name of each output.
        scopes: the path of the layer that opened a name scope of the graph.
        refusals: why a call of a layer that has a row is lowered op by op all the same, by the layer's path.
        notes: what is told of such calls.
    """

    function: Any = None
    calls: dict[tuple[int, str], Call] = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def path(self, op_name: str) -> str:
        """The innermost layer whose call made an op."""
        while "/" in op_name:
            op_name = op_name.rpartition("/")[0]
            if op_name in self.scopes:
                return self.scopes[op_name]
        return ""


def record(native: Any, signature: Signature) -> Trace:
    """Trace a model in inference mode; the model is left as it was."""
    found = Trace()
    if not is_keras(native):
        found.function = trace(native, signature)
        return found
    build(native, signature)
    with _watched(native, found):
        found.function = trace(native, signature)
    return found


@contextmanager
def _watched(native: Any, found: Trace) -> Iterator[None]:
    """Wrap the `call` of every layer while the block runs."""
    watched: list[Any] = []
    try:
        for layer, path in _paths(native, "", set()):
            if "call" not in vars(layer):
                # Not setattr: Keras would track the function as the layer's state.
                vars(layer)["call"] = _recorder(layer, path, found)
                watched.append(layer)
            for operation in _operations(layer):
                inside = f"{path}.{operation.name}" if path else operation.name
                vars(operation)["call"] = _scoped(operation, inside, found)
                watched.append(operation)
        yield
    finally:
        for layer in watched:
            del vars(layer)["call"]


def _paths(layer: Any, path: str, seen: set[int]) -> Iterator[tuple[Any, str]]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, path
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _paths(inner, f"{path}.{inner.name}" if path else inner.name, seen)


def _operations(layer: Any) -> list[Any]:
    """The operations of a functional model that are no layers."""
    import keras

    if not isinstance(layer, keras.models.Model):
        return []
    return [each for each in getattr(layer, "operations", ()) if not isinstance(each, keras.Layer)]


def _scoped(operation: Any, path: str, found: Trace) -> Callable[..., Any]:
    """The call of an operation under its name, as Keras does it for layers."""
    import tensorflow as tf

    original = operation.call

    def call(*args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            return original(*args, **kwargs)
        with tf.name_scope(operation.name):
            found.scopes[tf.get_current_name_scope()] = path
            return original(*args, **kwargs)

    return call


def _recorder(layer: Any, path: str, found: Trace) -> Callable[..., Any]:
    import tensorflow as tf

    original, row = replaced(layer), row_of(layer)
    parameters = inspect.signature(original)

    def call(*args: Any, **kwargs: Any) -> Any:
        if tf.executing_eagerly():
            return original(*args, **kwargs)
        found.scopes[tf.get_current_name_scope()] = path
        if row is None:
            return original(*args, **kwargs)
        arguments = parameters.bind(*args, **kwargs).arguments
        if reason := row.refuses(layer, arguments):
            settings, told = row.instead(layer, arguments)
            found.refusals[path] = reason
            if told:
                found.notes.append(Note("fallback", path, f"{reason}: {told}"))
            with _set(layer, settings):
                return original(*args, **kwargs)

        def note(outputs: Any) -> Any:
            # A layer may return what it was given (Dropout): only a tensor of its own stands for the layer.
            fresh = map_tree(_fresh, outputs)
            flat = tuple(leaves(fresh))
            entry = Call(layer, row, path, arguments, flat)
            found.calls.update({(id(tensor.graph), tensor.name): entry for tensor in flat})
            return fresh

        if not row.before_activation or layer.activation is None:
            return note(original(*args, **kwargs))
        function = layer.activation
        with _set(layer, {"activation": lambda x: function(note(x))}):
            return original(*args, **kwargs)

    return call


@contextmanager
def _set(layer: Any, attributes: dict[str, Any]) -> Iterator[None]:
    """Give a layer other attributes while the block runs, behind the back of Keras' tracking."""
    before = {name: vars(layer)[name] for name in attributes}
    vars(layer).update(attributes)
    try:
        yield
    finally:
        vars(layer).update(before)


def _fresh(tensor: Any) -> Any:
    import tensorflow as tf

    fresh = tf.identity(tensor)
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        fresh._keras_mask = mask
    return fresh
