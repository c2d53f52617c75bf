"""The tables of what is lowered how: TensorFlow ops, patterns of them, and Keras layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Emit = Callable[..., Any]
"""Writes the ONNX nodes of one op or layer and returns its value or values."""


class OpRow(NamedTuple):
    """How one TensorFlow op is lowered.

    Attributes:
        emit: takes the node's context and one argument per input.
        static: inputs that must be known when the graph is written; they arrive as NumPy arrays.
        needs: inputs that are lowered before the op; the emitter asks for others itself. All but the static ones,
            where this is `None`; resources (variables) are never among them.
    """

    emit: Emit
    static: tuple[int, ...] = ()
    needs: tuple[int, ...] | None = None


OPS: dict[str, OpRow] = {}

COMPLEX = {"Add", "AddV2", "Identity", "Mul", "StopGradient", "StridedSlice", "Sub"}
"""Ops that take or give complex tensors, which are real ones with the two parts on a last axis of their own."""


def op(
    *op_types: str, static: tuple[int, ...] = (), needs: tuple[int, ...] | None = None, complex_: bool = False
) -> Callable[[Emit], Emit]:
    """Enter a function into the table of ops; it takes the static inputs and those it needs, in order."""

    def enter(emit: Emit) -> Emit:
        OPS.update(dict.fromkeys(op_types, OpRow(emit, static, needs)))
        COMPLEX.update(op_types if complex_ else ())
        return emit

    return enter


class Match(NamedTuple):
    """A pattern that was found: the tensors that it reads and what writes it, given their values."""

    needs: tuple[Any, ...]
    emit: Emit


PATTERNS: dict[str, list[Callable[[Any], Match | None]]] = {}


def pattern(op_type: str) -> Callable[[Callable[[Any], Match | None]], Callable[[Any], Match | None]]:
    """Enter a function that recognises a pattern by its last op."""

    def enter(find: Callable[[Any], Match | None]) -> Callable[[Any], Match | None]:
        PATTERNS.setdefault(op_type, []).append(find)
        return find

    return enter


@dataclass(frozen=True)
class LayerRow:
    """How one Keras layer is lowered.

    Attributes:
        emit: takes the layer's context and the arguments of its call, tensors as values.
        refuses: why a call cannot be lowered by this row, empty where it can; it is then lowered op by op.
        before_activation: whether the row ends where the layer's activation begins, which is lowered op by op.
        instead: attributes that the layer has during a call that the row refuses, and what to say about it.
    """

    emit: Emit
    refuses: Callable[[Any, dict[str, Any]], str]
    before_activation: bool = False
    instead: Callable[[Any, dict[str, Any]], tuple[dict[str, Any], str]] = lambda layer, arguments: ({}, "")


LAYERS: dict[str, LayerRow] = {}


def layer(
    *classes: str,
    refuses: Callable[[Any, dict[str, Any]], str] = lambda layer, arguments: "",
    before_activation: bool = False,
    instead: Callable[[Any, dict[str, Any]], tuple[dict[str, Any], str]] = lambda layer, arguments: ({}, ""),
) -> Callable[[Emit], Emit]:
    """Enter a function into the table of layers."""

    def enter(emit: Emit) -> Emit:
        LAYERS.update(dict.fromkeys(classes, LayerRow(emit, refuses, before_activation, instead)))
        return emit

    return enter


def row_of(instance: Any) -> LayerRow | None:
    """The row of a layer: that of the Keras class whose `call` it has; a subclass with its own `call` has none."""
    if getattr(instance, "quantization_mode", None) or getattr(instance, "lora_enabled", False):
        return None
    for cls in type(instance).__mro__:
        if cls.__module__.startswith("keras.") and cls.__name__ in LAYERS:
            return LAYERS[cls.__name__] if type(instance).call is getattr(cls, "call", None) else None
    return None
