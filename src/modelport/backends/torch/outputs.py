"""What a torch model returns, as tuples, lists and dicts of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from modelport.core.errors import UnsupportedModelError
from modelport.core.report import Note
from modelport.core.signature import Tree


def plain_tree(value: Any) -> Tree:
    """A model's return value as tuples, lists and dicts of tensors.

    Mappings and dataclasses (a Hugging Face `ModelOutput` is both) become dicts of their entries that are not None; an
    entry that is an object of another kind, such as a cache, is left out, see `left_out`. Named tuples stay what they
    are, for their field names.

    Raises:
        UnsupportedModelError: what has no name is no tensor, or nothing in a mapping is one.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    if _has_entries(value):
        entries = _entries(value)
        kept = {key: plain_tree(item) for key, item in entries.items() if _may_hold_tensors(item)}
        if kept or not entries:
            return kept
    if isinstance(value, tuple):
        items = (plain_tree(item) for item in value)
        return type(value)._make(items) if hasattr(value, "_make") else tuple(items)
    if isinstance(value, list):
        return [plain_tree(item) for item in value]
    raise UnsupportedModelError(
        f"the model returns a {_kind(value)}, which is no tensor. Wrap it in a module that returns tensors, by name or "
        "in a tuple (a Hugging Face model drops its cache with config.use_cache = False)."
    )


def left_out(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """The path and type of every entry of a return value that has a name and holds no tensors."""
    entries = _entries(value) if _has_entries(value) else {}
    if isinstance(value, (tuple, list)):
        entries = {str(place): item for place, item in enumerate(value)}
    for key, item in entries.items():
        path = f"{where}.{key}" if where else key
        if _may_hold_tensors(item):
            yield from left_out(item, path)
        else:
            yield path, _kind(item)


@contextmanager
def noting_left_out(module: nn.Module) -> Iterator[list[Note]]:
    """A list that gets a note on everything that the module returns and that does not cross, when it is called."""
    notes: list[Note] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        for path, kind in left_out(output):
            found = Note("dropped", path, f"the model returns a {kind} here, which is no tensor: it is left out")
            if found not in notes:
                notes.append(found)

    if isinstance(module, torch.jit.ScriptModule):
        # TorchScript's types name what is no tensor, and its modules take no hooks.
        yield notes
        return
    handle = module.register_forward_hook(note)
    try:
        yield notes
    finally:
        handle.remove()


def _has_entries(value: Any) -> bool:
    return isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type))


def _entries(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    else:
        items = [(field.name, getattr(value, field.name)) for field in fields(value)]
    return {key: item for key, item in items if item is not None}


def _may_hold_tensors(value: Any) -> bool:
    return value is None or isinstance(value, (torch.Tensor, tuple, list)) or _has_entries(value)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
