"""The table of operators: one short function each, found by the name that the standard gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from modelport.core.backend import Support
from modelport.graph.host import runs_on_host

Function = TypeVar("Function", bound=Callable[..., Any])

OPS: dict[tuple[str, str], Op] = {}
"""Operators on tensors, by domain and name."""

SIZE_OPS: dict[str, Callable[..., Any]] = {}
"""Operators on sizes (small integer tensors kept as Python numbers), by name."""

HOLD_TEXT = frozenset(
    ("", name)
    for name in (
        *("Identity", "If", "Loop", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt"),
        *("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength"),
    )
)
"""Operators that hand on what they are given, whatever it is. All others compute strings on the host."""


CUSTOM = frozenset({"If", "Loop", "Scan"})
"""Operators that are modules of modelport's where the run decides; known branches and counted rounds are not there."""


class CannotBuild(Exception):
    """What stands in the way of one node; `build` adds the node and raises `UnsupportedOpError`."""


class OnHost(CannotBuild):
    """Why one node runs on the host, whose operator torch has otherwise."""


@dataclass(frozen=True)
class Op:
    """An operator's function, and what its signature says about how to call it."""

    function: Callable[..., Any]

    @cached_property
    def hints(self) -> dict[str, Any]:
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def inputs(self) -> tuple[inspect.Parameter, ...]:
        """The positional parameters: the operator's inputs, in order."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return tuple(p for p in inspect.signature(self.function).parameters.values() if p.kind in kinds)

    @cached_property
    def keywords(self) -> frozenset[str]:
        """The keyword-only parameters: the operator's attributes, and what else of the build it asks for."""
        parameters = inspect.signature(self.function).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    @cached_property
    def is_open(self) -> bool:
        """Whether it takes any other attribute too; it reads them off the node."""
        return any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(self.function).parameters.values()
        )


def op(*names: str, domain: str = "") -> Callable[[Function], Function]:
    """Register a function as one or more operators.

    Its positional parameters are the operator's inputs, and their annotations say in which form it takes them (see
    `traced`); its keyword-only parameters are the attributes, with the standard's defaults. A keyword-only parameter
    called `node`, `operands` or `anchor` receives the `onnx_ir.Node`, the `Operands`, or a tensor on the model's
    device; `body_of` and `whole_of` are the functions of `Walk` of these names.
    """

    def register(function: Function) -> Function:
        for name in names:
            if (domain, name) in OPS:
                raise ValueError(f"operator {domain}::{name} is registered twice")
            OPS[domain, name] = Op(function)
        return function

    return register


def size_op(*names: str) -> Callable[[Function], Function]:
    """Register a function on sizes: from `traced.Ints` to `traced.Ints`, or `NotImplemented` for the tensor form."""

    def register(function: Function) -> Function:
        for name in names:
            SIZE_OPS[name] = function
        return function

    return register


def support(op_type: str, domain: str = "", *, text: bool = False) -> Support:
    """How an operator of the normal form runs: by the table, or on the host where onnx's evaluator has it."""
    if text and (domain, op_type) not in HOLD_TEXT:
        return "fallback" if runs_on_host(op_type, domain) else "unsupported"
    if not domain and op_type in CUSTOM:
        return "custom"
    if (domain, op_type) in OPS or (not domain and op_type in SIZE_OPS):
        return "native"
    return "fallback" if runs_on_host(op_type, domain) else "unsupported"
