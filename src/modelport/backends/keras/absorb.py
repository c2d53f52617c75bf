"""Which of the model's weights become a layer's own, and under which name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from modelport.graph.layout.channels_last import DOMAIN as CHANNELS_LAST
from modelport.graph.weights import Role

AFFINE = ("weight", "bias")

WEIGHTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("modelport", "Linear"): AFFINE,
    ("modelport", "Embedding"): ("weight",),
    (CHANNELS_LAST, "Conv"): AFFINE,
    (CHANNELS_LAST, "ConvTranspose"): AFFINE,
    (CHANNELS_LAST, "BatchNormalization"): (*AFFINE, "running_mean", "running_var"),
    (CHANNELS_LAST, "GroupNormalization"): AFFINE,
    (CHANNELS_LAST, "InstanceNormalization"): AFFINE,
    (CHANNELS_LAST, "PRelu"): ("weight",),
    ("", "LayerNormalization"): AFFINE,
    ("", "RMSNormalization"): ("weight",),
}
"""The layers' weights by the names that torch gives them; they are the operator's inputs from 1 on."""

_KERNELS = frozenset({
    ("modelport", "Linear"), ("modelport", "Embedding"), (CHANNELS_LAST, "Conv"), (CHANNELS_LAST, "ConvTranspose"),
    (CHANNELS_LAST, "PRelu"), ("", "RMSNormalization"),
})  # fmt: skip
"""The layers that are nothing without their first weight."""

RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Weight:
    """A weight of the model.

    Attributes:
        name: its portable name.
        value: in the portable graph.
        role: what it is to an optimizer.
    """

    name: str
    value: ir.Value
    role: Role

    @property
    def array(self) -> np.ndarray:
        assert self.value.const_value is not None
        return self.value.const_value.numpy()


@dataclass(frozen=True)
class Owned:
    """The weights that one layer takes.

    Attributes:
        key: equal for nodes that are calls of one layer.
        name: the layer's name.
        weights: by the names that torch gives them.
        trainable: whether the layer is.
        transposed: whether its matrix is (in, out), in a foreign graph.
    """

    key: tuple[Any, ...]
    name: str
    weights: Mapping[str, Weight]
    trainable: bool
    transposed: bool = False

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.weights[name].array.shape)


def local_names(node: ir.Node) -> tuple[str, ...]:
    """What torch calls the inputs of a node that are weights, from the first weight on; empty for other nodes."""
    if node.domain == "modelport" and node.op_type in RECURRENT:
        layers = node.attributes["num_layers"].as_int()
        both = node.attributes["bidirectional"].as_int()
        ends = [f"l{i}{end}" for i in range(layers) for end in (("", "_reverse") if both else ("",))]
        return tuple(f"{kind}_{end}" for end in ends for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return WEIGHTS.get((node.domain, node.op_type), ())


def first_weight(node: ir.Node) -> int:
    """The index of the first input that is a weight."""
    return {"LSTM": 3, "GRU": 2, "RNN": 2}.get(node.op_type, 1) if node.domain == "modelport" else 1


class Absorption:
    """Decides, over the whole graph, which weights become a layer's own.

    A weight goes into a layer if every use of it is a call of that layer, and if its way home leads through the
    layer's name: the layer `encoder.0` has `encoder.0.weight`.

    Args:
        model: layers recognised, channels last.
        roles: of the weights.
        strict: whether a weight has to keep its name; a foreign graph's need not.
    """

    def __init__(self, model: ir.Model, roles: Mapping[str, Role], strict: bool) -> None:
        self._roles = roles
        self._strict = strict
        self.renamed: dict[str, str] = {}
        uses: dict[str, set[tuple[Any, ...] | None]] = defaultdict(set)
        self._found = {node: self._weights(node) for node in model.graph}
        for node in model.graph.all_nodes():
            found = self._found.get(node, {})
            mine = {weight.name for weight in found.values()}
            for value in node.inputs:
                if value is not None and value.name in roles:
                    uses[value.name].add(self._key(node, found) if value.name in mine else None)
        for value in model.graph.outputs:
            uses[str(value.name)].add(None)
        self._uses = uses

    def weight(self, value: ir.Value | None) -> Weight | None:
        """The weight that a value is, if it is one."""
        if value is None or value.name not in self._roles or not value.is_initializer():
            return None
        return Weight(value.name, value, self._roles[value.name])

    def _weights(self, node: ir.Node) -> dict[str, Weight]:
        first = first_weight(node)
        pairs = zip(local_names(node), node.inputs[first:], strict=False)
        found = {name: self.weight(value) for name, value in pairs}
        return {name: weight for name, weight in found.items() if weight is not None}

    def _key(self, node: ir.Node, weights: Mapping[str, Weight]) -> tuple[Any, ...]:
        names = tuple((name, weight.name) for name, weight in weights.items())
        attributes = tuple(sorted((name, str(attr.value)) for name, attr in node.attributes.items()))
        constants = tuple(
            str(value.name)
            for value in node.inputs[first_weight(node) :]
            if value is not None and value.is_initializer()
        )
        return (node.domain, node.op_type, names, attributes, constants)

    def owned(self, node: ir.Node) -> Owned | None:
        """The weights of a node that become its layer's own; `None` where it is no layer."""
        weights = self._found.get(node, {})
        if not weights or not self._are_all(node):
            return None
        if (node.domain, node.op_type) in _KERNELS and not self._has_own_kernel(node, weights):
            return None
        key = self._key(node, weights)
        if any(self._uses[weight.name] != {key} for weight in weights.values()):
            return None
        trained = {weight.role == "parameter" for weight in weights.values() if weight.role != "buffer"}
        name = self._name(weights)
        if len(trained) > 1 or name is None:
            return None
        transposed = "transposed" in node.attributes and bool(node.attributes["transposed"].as_int())
        if transposed and self._strict:
            # A Dense goes home as (out, in), and this matrix is (in, out) at home.
            return None
        return Owned(key, name, weights, trained != {False}, transposed)

    @staticmethod
    def _has_own_kernel(node: ir.Node, weights: Mapping[str, Weight]) -> bool:
        """Whether the kernel is a weight and so is the bias, or there is none: a layer would train a constant."""
        bias = constant(node, 2)
        return "weight" in weights and (bias is None or "bias" in weights or is_filled(bias, 0))

    @staticmethod
    def _are_all(node: ir.Node) -> bool:
        """Whether no weight is computed: each is the model's own, a constant, or absent."""
        rest = (value for value in node.inputs[first_weight(node) :] if value is not None)
        return all(value.is_initializer() for value in rest) and not any(
            value.is_graph_input() for value in node.inputs[first_weight(node) :] if value is not None
        )

    def _name(self, weights: Mapping[str, Weight]) -> str | None:
        """The layer's name; `None` where the weights' names are not those of one layer's weights."""
        names = set()
        for local, weight in weights.items():
            front = weight.name.removesuffix(local)
            # `in_proj_weight` is of the layer `in_proj_`, which says that no dot was there.
            fits = front != weight.name and (not front or front[-1] in "._")
            names.add(front.removesuffix(".") if fits else None)
        if len(names) == 1 and None not in names and names != {""}:
            return names.pop()
        if self._strict:
            return None
        # A foreign graph's names are not torch's: the layer is called after its first weight.
        first = next(iter(weights.values())).name
        self.renamed.update({weight.name: f"{first}.{local}" for local, weight in weights.items()})
        return first


def constant(node: ir.Node, index: int) -> np.ndarray | None:
    """An input that is an initializer, as an array."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy()


def is_filled(array: np.ndarray | None, number: float) -> bool:
    return array is not None and bool((array == number).all())
