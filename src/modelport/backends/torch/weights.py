"""The weights of a module under construction: each one under its portable name, in a layer where one fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import onnx_ir as ir
import torch

from modelport.backends.torch.dtypes import from_numpy
from modelport.backends.torch.traced import Operand, WeightRef
from modelport.graph.weights import Role, aliases, roles

LEAVES = frozenset({"weight", "kernel", "bias", "gamma", "beta", "scale", "W", "B", "R", "w", "b"})
"""Last components that say what a weight is within its layer."""


class Weights:
    """The module tree that holds a graph's weights.

    A layer at `encoder.0` holds the weights `encoder.0.weight` and `encoder.0.bias`. A weight that is in no layer is a
    parameter (or persistent buffer) at the path that its name spells. So the keys of `state_dict` are the portable
    names. The weights of a foreign graph (one without roles, from another exporter) may be renamed to fit a layer.

    Attributes:
        root: the tree.
        foreign: whether the source graph said nothing of roles.
        constants_path: where the constants go; no weight's name starts with it.
    """

    def __init__(self, model: ir.Model, *, foreign: bool) -> None:
        self.root = torch.nn.Module()
        self.foreign = foreign
        self._values = model.graph.initializers
        self._roles: dict[str, Role] = {n: role for n, role in roles(model).items() if n in self._values}
        self._aliases = {alias: name for alias, name in aliases(model).items() if name in self._roles}
        self._tensors: dict[str, torch.Tensor] = {}
        self._paths = _unique_paths(self._roles) if foreign else {}
        self._renamed: set[str] = set()
        self._layers: dict[str, str] = {}
        heads = {name.split(".")[0] for name in self.names}
        self.constants_path = next(n for n in ("constants", *(f"constants_{i}" for i in range(99))) if n not in heads)

    @property
    def names(self) -> tuple[str, ...]:
        """Every portable name: the weights' and their aliases."""
        return (*self._roles, *self._aliases)

    def __contains__(self, name: object) -> bool:
        return name in self._roles

    def path(self, name: str) -> str:
        """Where a weight is in the tree: its name, except in a foreign graph."""
        return self._paths.get(name, name)

    def tensor(self, name: str) -> torch.Tensor:
        """A weight as a parameter or a buffer; the same object each time."""
        name = self._aliases.get(name, name)
        if name not in self._tensors:
            constant = self._values[name].const_value
            assert constant is not None
            # The array may be the source model's own memory, which training must not reach.
            data = from_numpy(constant.numpy().copy())
            role = self._roles[name]
            trains = role == "parameter" and (data.is_floating_point() or data.is_complex())
            self._tensors[name] = data if role == "buffer" else torch.nn.Parameter(data, requires_grad=trains)
        return self._tensors[name]

    def place(
        self,
        make: Callable[[], torch.nn.Module],
        operands: Mapping[str, Operand | None],
        node: ir.Node,
        *,
        buffers: Sequence[str] = (),
        transposed: bool = False,
    ) -> str | None:
        """Put a layer into the tree whose weights are these.

        Args:
            make: the layer, with any values; it is called on the meta device.
            operands: the layer's weights by their names in the layer; `None` for one that it does not have.
            node: names the layer in a foreign graph.
            buffers: names of weights that are no parameters of the layer, whatever their role.
            transposed: whether the weights have to be transposed for the layer.

        Returns:
            The layer's path, or `None` where the weights' names do not fit one.
        """
        present = {key: operand for key, operand in operands.items() if operand is not None}
        refs = {key: operand.name for key, operand in present.items() if isinstance(operand, WeightRef)}
        if len(refs) != len(present) or not refs:
            return None
        absent = [key for key in operands if key not in refs]
        with torch.device("meta"):
            layer = make()
        for path in () if transposed else self._fitting(refs, absent):
            if self._layers.get(path) == repr(layer):
                return path
            if path not in self._layers:
                return self._install(path, layer, refs, absent, buffers)
        return self._rename(layer, refs, absent, buffers, node, transposed) if self.foreign else None

    def _fitting(self, refs: Mapping[str, str], absent: Sequence[str]) -> list[str]:
        """The module paths under which every one of these weights has its name, and the absent ones do not exist."""
        known = set(self.names)
        candidates: list[str] = []
        for index, (key, name) in enumerate(refs.items()):
            spelled = [self.path(name), *(alias for alias, target in self._aliases.items() if target == name)]
            prefixes = [n.removesuffix(f".{key}") for n in spelled if n.endswith(f".{key}")]
            candidates = [p for p in prefixes if not index or p in candidates]
        return [p for p in candidates if not any(f"{p}.{key}" in known for key in absent)]

    def _rename(
        self,
        layer: torch.nn.Module,
        refs: Mapping[str, str],
        absent: Sequence[str],
        buffers: Sequence[str],
        node: ir.Node,
        transposed: bool,
    ) -> str | None:
        """Give a foreign graph's weights the names that a layer needs, unless another node uses them too."""
        if any(len(self._values[name].uses()) > 1 or name in self._renamed for name in refs.values()):
            return None
        first = next(iter(refs.values()))
        head, _, leaf = first.replace("/", ".").rpartition(".")
        named_after = head if head and leaf in LEAVES else node.name or first
        stem = path = _sanitised(named_after)
        taken = {self.path(name) for name in self._roles if name not in refs.values()}
        count = 0
        while any(spot == path or spot.startswith(f"{path}.") for spot in (*taken, *self._layers)):
            count += 1
            path = f"{stem}_{count}"
        for key, name in refs.items():
            self._paths[name] = f"{path}.{key}"
            self._renamed.add(name)
            if transposed and self.tensor(name).ndim == 2:
                self.tensor(name).data = self.tensor(name).data.t().contiguous()
        return self._install(path, layer, refs, absent, buffers)

    def _install(
        self, path: str, layer: torch.nn.Module, refs: Mapping[str, str], absent: Sequence[str], buffers: Sequence[str]
    ) -> str:
        self._layers[path] = repr(layer)
        for key, name in refs.items():
            tensor = self.tensor(name)
            _set(layer, key, tensor.detach() if key in buffers else tensor)
        for key in absent:
            setattr(layer, key, None)
        counter = f"{path}.num_batches_tracked"
        if "num_batches_tracked" in dict(layer.named_buffers()):
            layer.num_batches_tracked = self.tensor(counter) if counter in self else torch.tensor(0)
        self.add(path, layer)
        return path

    def add(self, path: str, module: torch.nn.Module) -> None:
        """Put a module at a path; what a plain container there held moves into it."""
        *parents, leaf = path.split(".")
        parent = self.root
        for name in parents:
            if name not in parent._modules:
                parent.add_module(name, torch.nn.Module())
            parent = cast(torch.nn.Module, parent._modules[name])
        for name, child in (parent._modules.get(leaf) or torch.nn.Module())._modules.items():
            module.add_module(name, child)
        parent.add_module(leaf, module)

    def has(self, path: str) -> bool:
        """Whether there is a module at a path."""
        return any(name == path for name, _ in self.root.named_modules())

    def is_free(self, path: str) -> bool:
        """Whether there is no weight and no module at a path or under it."""
        taken = (*self.names, *(name for name, _ in self.root.named_modules()), self.constants_path)
        return not any(spot == path or spot.startswith(f"{path}.") for spot in taken)

    def free(self, path: str) -> str:
        """A path like the given one that is free."""
        stem, count = path, 0
        while not self.is_free(path):
            count += 1
            path = f"{stem}_{count}"
        return path

    def finish(self) -> list[str]:
        """Register the weights that no layer took; the paths of all weights."""
        held = {name for name, _ in self.root.named_parameters(remove_duplicate=False)}
        held |= {name for name, _ in self.root.named_buffers(remove_duplicate=False)}
        paths = {self.path(name): name for name in self._roles} | {alias: alias for alias in self._aliases}
        for path, name in paths.items():
            if path not in held:
                *parents, leaf = path.split(".")
                parent = self.root
                for part in parents:
                    if part not in parent._modules:
                        parent.add_module(part, torch.nn.Module())
                    parent = cast(torch.nn.Module, parent._modules[part])
                _set(parent, leaf, self.tensor(name))
        return list(paths)


def _set(module: torch.nn.Module, key: str, tensor: torch.Tensor) -> None:
    if isinstance(tensor, torch.nn.Parameter):
        setattr(module, key, tensor)
        return
    module._parameters.pop(key, None)
    module.register_buffer(key, tensor)


def _unique_paths(names: Iterable[str]) -> dict[str, str]:
    """A path for every foreign name, told apart by a number where two names differ only in what no path may have."""
    paths: dict[str, str] = {}
    for name in names:
        stem = path = _sanitised(name)
        count = 0
        while path in paths.values():
            count += 1
            path = f"{stem}_{count}"
        paths[name] = path
    return paths


def _sanitised(name: str) -> str:
    """A dotted path of words from a foreign name (`onnx::MatMul_12`, `/encoder/0/MatMul`)."""
    parts = [re.sub(r"\W+", "_", part).strip("_") for part in re.split(r"[./]", name)]
    return ".".join(part for part in parts if part) or "weight"
