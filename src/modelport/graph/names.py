"""Names: portable dotted names split into paths, and made out of whatever a foreign graph calls things."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable

import onnx_ir as ir


def split_name(name: str) -> tuple[str, str]:
    """The module path and the leaf of a portable name; the path is empty at the root.

    Example:
        >>> split_name("encoder.0.weight")
        ('encoder.0', 'weight')
    """
    path, _, leaf = name.rpartition(".")
    return path, leaf


def join_name(path: str, leaf: str) -> str:
    """What `split_name` took apart."""
    return f"{path}.{leaf}" if path else leaf


def unique_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def make_names_unique(model: ir.Model) -> None:
    """Give every value, and every node that has a name, one of its own, in place, also beside those of other graphs.

    A subgraph may hide a name of the graph around it, and every graph names what is written into it without a look at
    the others. The names of the main graph stay.
    """
    taken: set[str] = set()
    named: set[str] = set()
    for graph in model.graphs():
        made = (value for node in graph for value in node.outputs if value.name != "")
        for value in dict.fromkeys((*graph.inputs, *graph.initializers.values(), *made)):
            if not value.name or value.name in taken:
                value.name = unique_name(value.name or "value", taken)
            taken.add(value.name)
        for node in graph:
            if node.name and node.name in named:
                node.name = unique_name(node.name, named)
            named.add(node.name or "")


def identifier(text: str) -> str:
    """A valid Python identifier that resembles a text.

    Example:
        >>> identifier("input.1"), identifier("class"), identifier("0")
        ('input_1', 'class_', '_0')
    """
    name = re.sub(r"\W", "_", text, flags=re.ASCII) or "_"
    if name[0].isdigit():
        name = f"_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def identifiers(texts: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Identifiers for some names, all different, none of them taken; what is a free identifier stays as it is."""
    texts = list(dict.fromkeys(texts))
    used = set(taken)
    found: dict[str, str] = {}
    # Names that may stay go first, so that none of them makes way for another that only resembles it.
    for text in sorted(texts, key=lambda text: identifier(text) != text):
        found[text] = unique_name(identifier(text), used)
        used.add(found[text])
    return {text: found[text] for text in texts}


def dotted(text: str) -> str:
    """A portable dotted name that resembles a foreign one; a name that is one already stays.

    Example:
        >>> dotted("/encoder/layer.0/MatMul"), dotted("onnx::MatMul_123"), dotted("conv1.weight")
        ('encoder.layer.0.MatMul', 'onnx.MatMul_123', 'conv1.weight')
    """
    parts = (re.sub(r"\W", "_", part, flags=re.ASCII) for part in re.split(r"[./:]+", text))
    return ".".join(part for part in parts if part) or "_"


def scoped(name: str) -> str:
    """A node's name as a dotted path; exporters that repeat the module above in a name say it once.

    Example:
        >>> scoped("/layer1/layer1.0/relu/Relu"), scoped("model/dense/BiasAdd"), scoped("encoder.0.relu_1")
        ('layer1.0.relu.Relu', 'model.dense.BiasAdd', 'encoder.0.relu_1')
    """
    parts = [part for part in name.split("/") if part]
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    return ".".join(re.sub(r"[^\w.-]", "_", part) for part in kept) or "_"


def dotted_names(texts: Iterable[str]) -> dict[str, str]:
    """Portable names for foreign ones, all different, none of them the module path of another.

    A framework's module cannot hold a parameter and a submodule of one name, so of `"a"` and `"a.b"` the first is
    renamed. Portable names that disturb no other stay as they are.
    """
    texts = list(dict.fromkeys(texts))
    paths = {path for text in texts for path in _paths(dotted(text))}
    used: set[str] = set()
    found: dict[str, str] = {}
    for text in sorted(texts, key=lambda text: dotted(text) != text):
        found[text] = unique_name(dotted(text), used | paths if dotted(text) in paths else used)
        used.add(found[text])
    return {text: found[text] for text in texts}


def _paths(name: str) -> Iterable[str]:
    """Every module path above a name."""
    path, _ = split_name(name)
    while path:
        yield path
        path, _ = split_name(path)
