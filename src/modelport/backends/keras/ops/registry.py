"""The table of operators: one short function each, found by the name that the standard gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from itertools import product
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np

from modelport.graph.layout.channels_last import DOMAIN as CHANNELS_LAST

Function = TypeVar("Function", bound=Callable[..., Any])

OPS: dict[tuple[str, str], Op] = {}
"""Operators by domain and name."""


class CannotBuild(Exception):
    """What stands in the way of one node; `build` adds the node and raises `UnsupportedOpError`."""


class NeedsValues(CannotBuild):
    """An operator needs a size or a value that is known only when the model runs."""


Ints = Annotated[tuple[int, ...], "ints"]
"""Integers that must be known when the model is built."""

Sizes = Annotated[tuple[Any, ...], "sizes"]
"""Sizes: integers, or expressions over the named dimensions of the inputs."""

Array = Annotated[np.ndarray, "array"]
"""A tensor whose values must be known when the model is built."""


@dataclass(frozen=True)
class Op:
    """An operator's function, and what its signature says about how to call it.

    Attributes:
        function: takes the operator's inputs by position and its attributes by keyword.
    """

    function: Callable[..., Any]

    @cached_property
    def _parameters(self) -> tuple[inspect.Parameter, ...]:
        return tuple(inspect.signature(self.function).parameters.values())

    @cached_property
    def forms(self) -> tuple[str, ...]:
        """In which form each input is taken: `tensor`, `ints`, `sizes` or `array`; the last holds for the rest."""
        hints = get_type_hints(self.function, include_extras=True)
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        named = [p.name for p in self._parameters if p.kind in kinds]
        return tuple(_form(hints.get(name)) for name in named)

    @cached_property
    def keywords(self) -> frozenset[str]:
        """The attributes, and what else of the build the function asks for (`site`, `outputs`)."""
        return frozenset(p.name for p in self._parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    @cached_property
    def takes_all(self) -> bool:
        """Whether the function hands its attributes on to another."""
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in self._parameters)

    def form(self, index: int) -> str:
        return self.forms[min(index, len(self.forms) - 1)]


def _form(hint: Any) -> str:
    for each in (hint, *getattr(hint, "__args__", ())):
        for label in getattr(each, "__metadata__", ()):
            return str(label)
    return "tensor"


def op(*names: str, domain: str | tuple[str, ...] = "") -> Callable[[Function], Function]:
    """Register a function as one or more operators.

    Its positional parameters are the operator's inputs: Keras tensors or small NumPy arrays, or what their annotation
    says (`Ints`, `Sizes`, `Array`). Its keyword-only parameters are the attributes, with the standard's defaults. A
    keyword-only parameter `outputs` receives how many outputs the node has, `kinds` the element types of its inputs as
    ONNX numbers them, `result` the dtype of its first output, and `site` the place in the build.
    """
    domains = (domain,) if isinstance(domain, str) else domain

    def register(function: Function) -> Function:
        for name, domain in product(names, domains):
            if (domain, name) in OPS:
                raise ValueError(f"operator {domain}::{name} is registered twice")
            OPS[domain, name] = Op(function)
        return function

    return register


def spatial(*names: str) -> Callable[[Function], Function]:
    """Register an operator whose function takes and returns data with the channels last.

    The plain operator, which the layout pass leaves where it cannot change the layout, is the same between two
    transposes.
    """
    from modelport.backends.keras.ops.tensors import channels_first, channels_last

    def register(function: Function) -> Function:
        @wraps(function)
        def plain(x: Any, *inputs: Any, **attributes: Any) -> Any:
            result = function(channels_last(x), *inputs, **attributes)
            return tuple(map(channels_first, result)) if isinstance(result, tuple) else channels_first(result)

        op(*names, domain=CHANNELS_LAST)(function)
        op(*names)(plain)
        return function

    return register


def call(
    found: Op, inputs: Sequence[Any], attributes: dict[str, Any], extra: dict[str, Any], take: Callable[[Any, str], Any]
) -> Any:
    """Call an operator's function with its inputs in the forms it takes, its attributes and what else it asks for."""
    taken = [take(value, found.form(index)) for index, value in enumerate(inputs)]
    asked = {name: value for name, value in extra.items() if name in found.keywords}
    return found.function(*taken, **attributes, **asked)
