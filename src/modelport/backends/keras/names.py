"""Names that Keras accepts, each used once in a model."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras


def sanitised(name: str) -> str:
    """A name without what Keras refuses in one, and TensorFlow in a scope, which a layer opens where it is traced."""
    return re.sub(r"[^A-Za-z0-9_.\\>-]", "_", re.sub(r"/|:+", ".", name)) or "layer"


class Names:
    """The names of one model's layers.

    Args:
        reserved: names that only `claim` gives out.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = set(reserved)
        self._taken: set[str] = set()

    def claim(self, name: str) -> str:
        """A reserved name; with a number where it was given out before."""
        return self._first_free(sanitised(name), self._taken)

    def fresh(self, name: str) -> str:
        """A name that is neither reserved nor given out."""
        return self._first_free(sanitised(name), self._taken | self._reserved)

    def is_free(self, name: str) -> bool:
        """Whether a name is neither reserved nor given out."""
        return sanitised(name) not in self._taken | self._reserved

    def _first_free(self, name: str, used: set[str]) -> str:
        candidate, count = name, 0
        while candidate in used:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate


def calls(tensors: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """The calls (operation, node) that tensors are computed by, each once, first things first."""
    seen: set[int] = set()
    # (history, whether what it needs has been given out): a graph may be deeper than Python's stack.
    stack = [(tensor._keras_history, False) for tensor in reversed(list(tensors))]
    while stack:
        history, done = stack.pop()
        node = history.operation._inbound_nodes[history.node_index]
        if done:
            yield history.operation, node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((history, True))
            stack.extend((tensor._keras_history, False) for tensor in reversed(node.input_tensors))


def operations(tensors: Iterable[Any]) -> Iterator[Any]:
    """The operations that tensors are computed by, each once, first things first."""
    return iter({id(operation): operation for operation, _ in calls(tensors)}.values())


def depth(tensors: Iterable[Any]) -> int:
    """How many calls the longest way to one of the tensors has."""
    found: dict[int, int] = {}
    for _, node in calls(tensors):
        histories = [tensor._keras_history for tensor in node.input_tensors]
        before = (found[id(h.operation._inbound_nodes[h.node_index])] for h in histories)
        found[id(node)] = 1 + max(before, default=0)
    return max(found.values(), default=0)


@contextmanager
def recursion(frames: int) -> Iterator[None]:
    """Let Python's stack grow by a number of frames: Keras walks a model recursively."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def label_operations(tensors: Iterable[Any], name: str, labels: dict[int, str]) -> None:
    """Note that some tensors, and what they are computed by that has no label yet, stand for what has a name.

    Args:
        tensors: the results.
        name: of the node that they are the results of.
        labels: by the operations' ids.
    """
    stack = [(tensor, name) for tensor in tensors if isinstance(tensor, keras.KerasTensor)]
    while stack:
        tensor, label = stack.pop()
        history = tensor._keras_history
        operation = history.operation
        if id(operation) in labels or isinstance(operation, keras.layers.InputLayer):
            continue
        labels[id(operation)] = label or f"{name}.{_kind(operation)}"
        stack.extend((each, "") for each in operation._inbound_nodes[history.node_index].input_tensors)


def _kind(operation: Any) -> str:
    """What Keras would call an operation."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", type(operation).__name__).lower()


def name_operations(
    outputs: Iterable[Any], names: Names, kept: Iterable[Any], labels: Mapping[int, str] | None = None
) -> None:
    """Give the operations that Keras has named itself names that depend on nothing but this model.

    Args:
        outputs: the model's outputs.
        names: the names that are given out.
        kept: operations that have their names.
        labels: what the operations stand for, by their ids.
    """
    labels = labels or {}
    own = {id(operation) for operation in kept}
    for operation in operations(outputs):
        if id(operation) not in own and not isinstance(operation, keras.layers.InputLayer):
            operation.name = names.fresh(labels.get(id(operation), _kind(operation)))
