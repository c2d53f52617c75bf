"""What a verb is about: a native model, a `Model` or a path, always as a `Model`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from modelport.core import registry
from modelport.core.backend import Borrower, Exported
from modelport.core.model import Model
from modelport.core.signature import Arrays, Signature
from modelport.verbs.dynamic import Dynamic, with_dynamic

if TYPE_CHECKING:
    from modelport.core.backend import Graph


def subject(
    model: Any,
    *,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
    trust: bool = False,
) -> Model:
    """The `Model` that a verb works on.

    Args:
        model: a native model of any backend, a `Model`, or a path that `load` opens.
        example: one input in the native call's nesting, or what `Model.__call__` takes; needed where the framework
            does not know its models' shapes (PyTorch).
        signature: overrides the signature that the backend finds.
        dynamic: names axes of the inputs that may have any size, see `verbs.dynamic`.
        trust: for a path, see `load`.

    Raises:
        UnsupportedModelError: no backend owns the object, or it does not run at other sizes of a dynamic dimension.
        SignatureError: the inputs are not known and no example is given, or it does not fit.
    """
    found = _found(model, example, signature, trust)
    return with_dynamic(found, dynamic, example_of(found)) if dynamic else found


def _found(model: Any, example: Any, signature: Signature | None, trust: bool) -> Model:
    if isinstance(model, (str, os.PathLike)):
        from modelport.verbs.load import load

        model = load(model, example=example, trust=trust)
    if isinstance(model, Model):
        return _with(model, example, signature)
    backend = registry.owner(model)
    found = backend.signature(model, example)
    arrays = None if example is None else backend.flatten(model, example, found)
    return Model(model, backend, signature or found, example=arrays)


def _with(model: Model, example: Any, signature: Signature | None) -> Model:
    if example is None and signature is None:
        return model
    signature = signature or model.signature
    arrays = model.example if example is None else signature.bind(example)
    return model.replaced(signature=signature, example=arrays)


def exported(model: Model) -> Exported:
    """The portable graph of a model, with every name that its weights came with.

    Raises:
        UnsupportedModelError: the framework cannot trace the model.
        UnsupportedOpError: an op has no portable form.
    """
    from modelport.graph.weights import aliases, set_aliases

    result = registry.backend(model.backend).export(model.native, example_of(model), model.signature)
    known, weights = aliases(result.graph), result.graph.graph.initializers
    kept = {alias: name for alias, name in model.aliases.items() if name in weights and alias not in weights}
    if kept:
        set_aliases(result.graph, {**kept, **known})
    return result


def borrowing(model: Model, graph: Graph | None) -> AbstractContextManager[None]:
    """While it is open, a model runs on the weights of the graph that it came from or was written as, where it can."""
    backend = registry.backend(model.backend)
    if graph is None or not isinstance(backend, Borrower):
        return nullcontext()
    return backend.borrowing(model.native, graph)


def example_of(model: Model) -> Arrays:
    """The model's example inputs, or inputs drawn from its signature where it has none."""
    return model.signature.draw({}) if model.example is None else model.example
