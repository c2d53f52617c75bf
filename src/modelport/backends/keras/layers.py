"""One table: how each Keras layer's variables are named and laid out in the portable graph.

The way back is the same table read backwards, so that no side table travels with a model. `docs/names.md` shows it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

Role = Literal["parameter", "frozen", "buffer"]


@dataclass(frozen=True)
class Layout:
    """How one variable's array is laid out on either side.

    The portable array is the native one transposed by `perm`, its blocks along the first axis put in the order of
    `blocks` (the gates of a recurrent layer), and reshaped to `portable`.

    Attributes:
        native: the shape in Keras.
        portable: the shape in the portable graph.
        perm: a permutation of the native axes; `None` leaves them.
        blocks: which native block stands at each portable place; empty leaves them.
        signed: whether the bytes of the portable array are int8, which Keras holds as uint8 of the same bits.
    """

    native: tuple[int, ...]
    portable: tuple[int, ...]
    perm: tuple[int, ...] | None = None
    blocks: tuple[int, ...] = ()
    signed: bool = False

    @property
    def transposed(self) -> tuple[int, ...]:
        """The shape between transposing and reshaping."""
        return self.native if self.perm is None else tuple(self.native[axis] for axis in self.perm)

    def to_portable(self, array: np.ndarray) -> np.ndarray:
        """A native array in the portable layout."""
        array = array.view(np.int8) if self.signed else array
        array = array if self.perm is None else array.transpose(self.perm)
        return self._reorder(array, self.blocks).reshape(self.portable)

    def to_native(self, array: np.ndarray) -> np.ndarray:
        """A portable array in the native layout."""
        array = array.astype(np.int8).view(np.uint8) if self.signed else array
        array = self._reorder(array.reshape(self.transposed), tuple(np.argsort(self.blocks)))
        return array if self.perm is None else array.transpose(np.argsort(self.perm))

    @staticmethod
    def _reorder(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
        if not order:
            return array
        blocks = np.split(array, len(order))
        return np.concatenate([blocks[index] for index in order])


@dataclass(frozen=True)
class Weight:
    """One Keras variable and the portable tensors that it is.

    Attributes:
        variable: a `keras.Variable` or a `tf.Variable`.
        names: the portable names.
        layout: of each of them.
        role: what it is to an optimizer.
        kind: `"one"` tensor; `"summed"`: the two biases of a recurrent layer, of which Keras keeps the sum;
            `"stacked"`: two biases that are the two rows of the variable.
    """

    variable: Any
    names: tuple[str, ...]
    layout: Layout
    role: Role = "parameter"
    kind: Literal["one", "summed", "stacked"] = "one"

    def to_portable(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The variable's value by portable name."""
        if self.kind == "stacked":
            return dict(zip(self.names, map(self.layout.to_portable, array), strict=True))
        first = self.layout.to_portable(array)
        rest = (np.zeros_like(first) for _ in self.names[1:])
        return dict(zip(self.names, (first, *rest), strict=True))

    def to_native(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The variable's value from the portable arrays, in the order of `names`."""
        native = [self.layout.to_native(array) for array in arrays]
        if self.kind == "stacked":
            return np.stack(native)
        return sum(native[1:], start=native[0])

    def gradient(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The variable's gradient by portable name: that of a sum is each addend's."""
        if self.kind != "summed":
            return self.to_portable(array)
        return dict.fromkeys(self.names, self.layout.to_portable(array))


class Slot(NamedTuple):
    """A variable's last portable names; they replace the last `depth` components of its path."""

    names: tuple[str, ...]
    layout: Layout
    depth: int = 1
    kind: Literal["one", "summed", "stacked"] = "one"


def keep(variable: Any, name: str) -> Slot:
    """The variable under a name, laid out as it is."""
    shape = tuple(variable.shape)
    return Slot((name,), Layout(shape, shape))


def moved(variable: Any, name: str, perm: tuple[int, ...], portable: tuple[int, ...] | None = None) -> Slot:
    """The variable under a name, transposed and then reshaped."""
    shape = tuple(variable.shape)
    return Slot((name,), Layout(shape, portable or tuple(shape[axis] for axis in perm), perm))


Rule = Callable[[Any, Any], Slot]


def named(name: str) -> Rule:
    """The rule that gives a variable a name and leaves its layout."""
    return lambda layer, variable: keep(variable, name)


def _dense(layer: Any, variable: Any) -> Slot:
    return moved(variable, "weight", (1, 0))


def _spatial_last(rank: int) -> tuple[int, ...]:
    """(*spatial, in, out) -> (out, in, *spatial), and (*spatial, out, in) -> (in, out, *spatial)."""
    return (rank - 1, rank - 2, *range(rank - 2))


def _conv(layer: Any, variable: Any) -> Slot:
    return moved(variable, "weight", _spatial_last(len(variable.shape)))


def _depthwise(layer: Any, variable: Any) -> Slot:
    *spatial, channels, multiplier = variable.shape
    rank = len(variable.shape)
    perm = (rank - 2, rank - 1, *range(rank - 2))
    return moved(variable, "weight", perm, (channels * multiplier, 1, *spatial))


def _prelu(layer: Any, variable: Any) -> Slot:
    shape = tuple(variable.shape)
    per_channel = math.prod(shape[:-1]) == 1
    return Slot(("weight",), Layout(shape, shape[-1:] if per_channel else shape))


class Contraction(NamedTuple):
    """An `EinsumDense` equation that is a Linear over some axes; every field holds letters."""

    batch: str
    contracted: str
    new: str
    inputs: str
    kernel: str
    output: str


def contraction(equation: str, input_rank: int | None = None) -> Contraction | None:
    """An `EinsumDense` equation as a Linear; `None` where a kernel axis is neither contracted nor new.

    Args:
        equation: as the layer keeps it, perhaps with an ellipsis.
        input_rank: how many axes the input has; only an equation with an ellipsis needs it.
    """
    left, output = equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    if "..." in equation:
        size = max((input_rank or len(inputs) - 2) - len(inputs) + 3, 0)
        filler = "".join(letter for letter in "ZYXWVUTSRQ" if letter not in equation)[:size]
        inputs, output = inputs.replace("...", filler), output.replace("...", filler)
    contracted = "".join(c for c in inputs if c in kernel and c not in output)
    new = "".join(c for c in output if c in kernel and c not in inputs)
    batch = "".join(c for c in inputs if c in output)
    proper = len(set(kernel)) == len(kernel) == len(contracted) + len(new) and len(batch + contracted) == len(inputs)
    plain = proper and contracted and sorted(output) == sorted(batch + new)
    return Contraction(batch, contracted, new, inputs, kernel, output) if plain else None


CARRIER = re.compile(r"(?:ab,b([A-Z]*)->a\1|cd,d([A-Z]*)->c\2)")
"""The equation of an `EinsumDense` that only carries a weight which no layer absorbs: its input is a one."""


CONSTANT = re.compile(r"(?:yz,z([A-Z]*)->y\1|wx,x([A-Z]*)->w\2)")
"""The same for a constant: what the model computes with but nobody trains, saves or names."""


def has_signed_bytes(equation: str) -> bool:
    """Whether a carrier of this equation holds int8, as uint8 of the same bits."""
    return equation.startswith(("cd,", "wx,"))


def is_carrier(layer: Any) -> bool:
    """Whether an `EinsumDense` only carries a weight or a constant: then the layer has its whole portable name."""
    carries = CARRIER.fullmatch(layer.equation) or CONSTANT.fullmatch(layer.equation)
    return carries is not None and layer.kernel.shape[0] == 1 and layer.bias_axes is None


def is_constant(layer: Any) -> bool:
    """Whether a layer only carries a constant."""
    kind = keras_class(layer, {"EinsumDense"})
    return kind is not None and CONSTANT.fullmatch(layer.equation) is not None and is_carrier(layer)


def _einsum_kernel(layer: Any, variable: Any) -> Slot:
    shape = tuple(variable.shape)
    if is_carrier(layer):
        is_signed = has_signed_bytes(layer.equation) and str(variable.dtype) == "uint8"
        return Slot((), Layout(shape, shape[1:], signed=is_signed))
    axes = contraction(layer.equation)
    if axes is None:
        return keep(variable, "kernel")
    perm = tuple(axes.kernel.index(letter) for letter in axes.new + axes.contracted)
    sizes = dict(zip(axes.kernel, shape, strict=True))
    out, into = (math.prod(sizes[letter] for letter in letters) for letters in (axes.new, axes.contracted))
    return moved(variable, "weight", perm, (out, into))


def _einsum_bias(layer: Any, variable: Any) -> Slot:
    axes, shape = contraction(layer.equation), tuple(variable.shape)
    flat = axes is not None and spans(layer.bias_axes, axes)
    return Slot(("bias",), Layout(shape, (math.prod(shape),) if flat else shape))


def spans(bias_axes: str, axes: Contraction) -> bool:
    """Whether a bias has exactly the new axes, as a Linear's has."""
    return bool(axes.new) and sorted(bias_axes) == sorted(axes.new) and axes.output.endswith(axes.new)


ROWS: dict[str, dict[str, Rule]] = {
    "Dense": {"kernel": _dense},
    "EinsumDense": {"kernel": _einsum_kernel, "bias": _einsum_bias},
    "Embedding": {"embeddings": named("weight")},
    "ReversibleEmbedding": {"embeddings": named("weight")},
    "PReLU": {"alpha": _prelu},
    "BatchNormalization": {
        "gamma": named("weight"),
        "beta": named("bias"),
        "moving_mean": named("running_mean"),
        "moving_variance": named("running_var"),
    },
    "LayerNormalization": {"gamma": named("weight"), "beta": named("bias")},
    "GroupNormalization": {"gamma": named("weight"), "beta": named("bias")},
    "RMSNormalization": {"scale": named("weight")},
    **{f"Conv{n}D": {"kernel": _conv} for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": {"kernel": _conv} for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": {"kernel": _depthwise} for n in (1, 2)},
    **{
        f"SeparableConv{n}D": {
            "depthwise_kernel": lambda layer, v: _depthwise(layer, v)._replace(names=("depthwise.weight",)),
            "pointwise_kernel": lambda layer, v: _conv(layer, v)._replace(names=("pointwise.weight",)),
            "bias": named("pointwise.bias"),
        }
        for n in (1, 2)
    },
}
"""By Keras class and variable name; a variable that is not here keeps its name and its layout."""

_GATES: dict[str, tuple[int, ...]] = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}
"""The Keras gate that stands at each of torch's places: i, f, g, o; r, z, n."""


def keras_class(layer: Any, names: Any) -> str | None:
    """The nearest Keras class in a layer's ancestry whose name is among some, if any."""
    for cls in type(layer).__mro__:
        if cls.__name__ in names and cls.__module__.startswith("keras."):
            return cls.__name__
    return None


def _recurrent_slots(layer: Any, depth: int, suffix: str = "") -> Iterator[tuple[Any, Any, Slot]]:
    """The cell of an LSTM, GRU or SimpleRNN by the names that `torch.nn.LSTM` gives; empty for another cell."""
    kind = keras_class(layer, _GATES)
    if kind is None or keras_class(layer.cell, {f"{kind}Cell"}) is None:
        return
    gates = _GATES[kind] if _GATES[kind] != tuple(range(len(_GATES[kind]))) else ()
    cell = layer.cell
    for variable, name in ((cell.kernel, "weight_ih"), (cell.recurrent_kernel, "weight_hh")):
        into, out = variable.shape
        yield cell, variable, Slot((name + suffix,), Layout((into, out), (out, into), (1, 0), gates), depth)
    if cell.bias is not None:
        size = cell.bias.shape[-1]
        kind_of_bias: Literal["summed", "stacked"] = "stacked" if len(cell.bias.shape) == 2 else "summed"
        names = ("bias_ih" + suffix, "bias_hh" + suffix)
        yield cell, cell.bias, Slot(names, Layout((size,), (size,), None, gates), depth, kind_of_bias)


def _slots(layer: Any) -> Iterator[tuple[Any, Any, Slot]]:
    """(owner, variable, slot) for the variables of a layer, and of the layers inside it that its row speaks for."""
    if keras_class(layer, {"Bidirectional"}):
        yield from _recurrent_slots(layer.forward_layer, 3)
        yield from _recurrent_slots(layer.backward_layer, 3, "_reverse")
        return
    if keras_class(layer, _GATES):
        yield from _recurrent_slots(layer, 2)
        return
    kind = keras_class(layer, ROWS)
    rules = ROWS[kind] if kind else {}
    for variable in own_variables(layer):
        rule = rules.get(variable.name, lambda layer, v: keep(v, v.name))
        yield layer, variable, rule(layer, variable)


def own_variables(layer: Any) -> list[Any]:
    """The weights of a layer itself, without those of the layers inside it, and without seeds and metrics."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _role(owner: Any, variable: Any) -> Role:
    if not any(variable is other for other in owner._trainable_variables) or "int" in str(variable.dtype):
        return "buffer"
    return "parameter" if variable.trainable else "frozen"


NUMBERED = re.compile(r"(?:lstm|gru|simple_rnn)_\d+")
"""The name that Keras makes up for a recurrent layer that is not the first of its kind in a process."""


def _around(prefix: str, layer: Any) -> str:
    """The path of a Bidirectional, with the name of the layer inside it where Keras numbered that."""
    inner = layer.forward_layer.name.removeprefix("forward_")
    return f"{prefix}.{inner}" if prefix and NUMBERED.fullmatch(inner) else prefix


_STACKED = re.compile(r"(.*)\.l(\d+)")


def _portable(prefix: str, names: tuple[str, ...], recurrent: bool) -> tuple[str, ...]:
    if not names:
        return (prefix,)
    if recurrent:
        # torch keeps a stack of recurrent layers in one module: `rnn.l1` is the second layer of `rnn`.
        stacked = _STACKED.fullmatch(prefix)
        prefix, level = (stacked[1], stacked[2]) if stacked else (prefix, "0")
        names = tuple(
            name.replace("_reverse", "") + f"_l{level}" + ("_reverse" if name.endswith("_reverse") else "")
            for name in names
        )
    # torch's attention has an `in_proj_weight`: no module `in_proj`, so the layer is `in_proj_`.
    dot = "" if not prefix or prefix.endswith("_") else "."
    return tuple(f"{prefix}{dot}{name}" for name in names)


class _Found(NamedTuple):
    variable: Any
    slot: Slot
    has_row: bool
    role: Role
    recurrent: bool
    prefix: str
    chain: str
    constant: bool


def _walk(layer: Any, root: Any, chain: tuple[str, ...], seen: set[int]) -> Iterator[_Found]:
    """What every layer says of its variables; a wrapper may speak of those of the layer inside it too."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    has_row = keras_class(layer, {*ROWS, *_GATES, "Bidirectional"}) is not None
    for owner, variable, slot in _slots(layer):
        parts = variable.path.split("/")
        if parts[0] == root.name and (layer is root or not _is_sublayer(root, parts[0])):
            parts = parts[1:]
        prefix = ".".join(parts[: max(len(parts) - slot.depth, 0)])
        if slot.depth > 2:
            prefix = _around(prefix, layer)
        role, recurrent, path = _role(owner, variable), slot.depth > 1, ".".join(chain)
        yield _Found(variable, slot, has_row, role, recurrent, prefix, path, is_constant(owner))
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield from _walk(inner, root, (*chain, inner.name), seen)


def _found(root: Any) -> list[_Found]:
    """Each variable once, in order, by the layer that has a row for it."""
    chosen: dict[int, _Found] = {}
    for each in _walk(root, root, (), set()):
        known = chosen.setdefault(id(each.variable), each)
        if each.has_row and not known.has_row:
            chosen[id(each.variable)] = each
    return list(chosen.values())


def _is_sublayer(root: Any, name: str) -> bool:
    """Whether a layer is called as the root is: the paths in a functional model leave the root out."""
    return any(inner.name == name for inner in root._flatten_layers(include_self=False, recursive=False))


def weights(native: Any) -> tuple[Weight, ...]:
    """Every weight of a `keras.Layer`, or variable of a `tf.Module`, with its portable names, layout and role.

    Names that clash are told apart by the place of their layer in the model.
    """
    return tuple(weight for weight, is_fixed in _named(native) if not is_fixed)


def constants(native: Any) -> tuple[Weight, ...]:
    """The constants that layers of a model carry; no weights, although Keras counts them among its own."""
    return tuple(weight for weight, is_fixed in _named(native) if is_fixed)


def _named(native: Any) -> Iterator[tuple[Weight, bool]]:
    """Every weight and constant, and which of the two it is."""
    if not hasattr(native, "_flatten_layers"):
        yield from ((weight, False) for weight in _module_weights(native))
        return
    found = _found(native)
    names = [_portable(each.prefix, each.slot.names, each.recurrent) for each in found]
    count = Counter(name for group in names for name in group)
    # A whole layer moves to its other name, so that its weights stay together.
    clashing = {each.prefix for each, group in zip(found, names, strict=True) if any(count[name] > 1 for name in group)}
    taken: set[str] = set()
    for each, group in zip(found, names, strict=True):
        if each.prefix in clashing:
            group = _portable(each.chain, each.slot.names, each.recurrent)
        group = tuple(_unique(name, taken) for name in group)
        yield Weight(each.variable, group, each.slot.layout, each.role, each.slot.kind), each.constant


def _unique(name: str, taken: set[str]) -> str:
    stem, index = name, 1
    while name in taken:
        index += 1
        name = f"{stem}__{index}"
    taken.add(name)
    return name


def _module_weights(module: Any) -> Iterator[Weight]:
    """The variables of a `tf.Module` or a restored SavedModel, by their own names."""
    taken: set[str] = set()
    seen: set[int] = set()
    for variable in module_variables(module):
        if id(variable) in seen or (not variable.dtype.is_floating and not variable.dtype.is_integer):
            continue
        seen.add(id(variable))
        name = _unique(variable.name.split(":")[0].replace("/", "."), taken)
        shape = tuple(variable.shape)
        yield Weight(variable, (name,), Layout(shape, shape), "parameter" if variable.trainable else "buffer")


def module_variables(module: Any) -> list[Any]:
    """The variables that a TensorFlow object holds, reached through its attributes and its signatures."""
    import tensorflow as tf

    if isinstance(module, tf.Module):
        return list(module.variables)
    found = list(getattr(module, "variables", None) or [])
    for function in getattr(module, "signatures", {}).values():
        found += function.graph.variables
    known: dict[int, Any] = {}
    for variable in found:
        known.setdefault(id(variable.handle), variable)
    return list(known.values())
