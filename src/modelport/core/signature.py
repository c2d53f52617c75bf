"""Named inputs and outputs of a model, and how its native call nests them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from modelport.core.errors import SignatureError

Arrays = dict[str, np.ndarray]
"""Arrays by input, output or parameter name. Where a signature has a sequence there is a list of arrays, for an
optional the value or `None`; strings are arrays of Python objects."""

Dim = int | str
"""A size, or the name of a symbolic dimension (`"batch"`)."""

Tree = Any
"""Names nested as the native call nests its tensors: a name, `None`, or a tuple, list or dict of trees."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor.

    Attributes:
        name: the tensor's name in the portable graph.
        dtype: NumPy's name of the dtype (`"float32"`, `"int64"`, `"bfloat16"`), `"str"` for strings. What is no tensor
            says what it holds: `"sequence(float32)"`, `"optional(int64)"`, `"optional(sequence(str))"`.
        shape: one `int` or symbolic name per axis, of a sequence those of each element; `None` where the rank is not
            known.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        shape = "?" if self.shape is None else ", ".join(map(str, self.shape))
        return f"{self.name}: {self.dtype}({shape})"

    @property
    def is_tensor(self) -> bool:
        """Whether it is neither a sequence nor an optional."""
        return not self.dtype.endswith(")")

    @property
    def held(self) -> TensorSpec:
        """What each element of a sequence, or the value of an optional, is.

        Example:
            >>> TensorSpec("x", "sequence(float32)", (2,)).held.dtype
            'float32'
        """
        return replace(self, dtype=self.dtype.partition("(")[2][:-1])

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": None if self.shape is None else list(self.shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        shape = data["shape"]
        return cls(data["name"], data["dtype"], None if shape is None else tuple(shape))


def leaves(tree: Tree) -> Iterator[Any]:
    """The leaves of a tree of tuples, lists and dicts, in order; `None` is no leaf.

    Example:
        >>> list(leaves({"a": "x", "b": ("y", None)}))
        ['x', 'y']
    """
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from leaves(value)
    elif tree is not None:
        yield tree


def map_tree(function: Any, tree: Tree) -> Tree:
    """The same nesting with `function` applied to every leaf; `None` stays `None`."""
    if isinstance(tree, Mapping):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_tree(function, value) for value in tree)
    if isinstance(tree, list):
        return [map_tree(function, value) for value in tree]
    return None if tree is None else function(tree)


def tree_to_json(tree: Tree) -> Any:
    """A tree as JSON that keeps tuples apart from lists."""
    if isinstance(tree, Mapping):
        return {"dict": {key: tree_to_json(value) for key, value in tree.items()}}
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [tree_to_json(value) for value in tree]}
    return tree


def tree_from_json(data: Any) -> Tree:
    """What `tree_to_json` wrote."""
    if not isinstance(data, Mapping):
        return data
    ((kind, value),) = data.items()
    if kind == "dict":
        return {key: tree_from_json(item) for key, item in value.items()}
    items = [tree_from_json(item) for item in value]
    return tuple(items) if kind == "tuple" else items


@dataclass(frozen=True)
class Signature:
    """A model's named inputs and outputs, and how its native call nests them.

    Attributes:
        inputs: the inputs in order.
        outputs: the outputs in order.
        args: trees of input names, one per positional argument of the native call.
        kwargs: trees of input names by keyword.
        returns: the tree of output names that the native call returns.

    Example:
        >>> x = TensorSpec("x", "float32", ("batch", 3))
        >>> y = TensorSpec("y", "float32", ("batch", 2))
        >>> signature = Signature((x,), (y,))
        >>> signature.bind(np.zeros((5, 3), "float32"))["x"].shape
        (5, 3)
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    args: tuple[Tree, ...] | None = None
    kwargs: Mapping[str, Tree] = field(default_factory=dict)
    returns: Tree = None

    def __post_init__(self) -> None:
        if self.args is None:
            named = set(leaves(dict(self.kwargs)))
            object.__setattr__(self, "args", tuple(s.name for s in self.inputs if s.name not in named))
        if self.returns is None:
            names = tuple(s.name for s in self.outputs)
            object.__setattr__(self, "returns", names[0] if len(names) == 1 else names)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"

    def bind(self, x: Any) -> Arrays:
        """The caller's inputs as arrays by name, checked against this signature.

        Args:
            x: one array, a tuple or list of arrays in the order of `inputs`, a dict by input name, or the nesting
                that the native call takes. Where an input is a sequence (a list of arrays) or an optional (`None` or
                the value), a tuple in the order of `inputs` or a dict by name.

        Raises:
            SignatureError: a name, the number of inputs, a rank, a fixed size or a dtype does not fit, or one
                symbolic dimension has two sizes.
        """
        given = self._named(x)
        sizes: dict[str, tuple[int, str]] = {}
        return {spec.name: _checked(spec, given[spec.name], sizes) for spec in self.inputs}

    def _named(self, x: Any) -> dict[str, Any]:
        names = [spec.name for spec in self.inputs]
        if isinstance(x, Mapping):
            if set(x) == set(names):
                return dict(x)
            if self.kwargs or len(self.args or ()) > 1 or not isinstance((self.args or (None,))[0], Mapping):
                missing, unknown = sorted(set(names) - set(x)), sorted(set(x) - set(names))
                raise SignatureError(
                    f"inputs do not fit {self}: missing {missing}, unknown {unknown}. Pass a dict with {names}."
                )
            x = (x,)
        if not all(spec.is_tensor for spec in self.inputs):
            return self._in_order(x)
        if not isinstance(x, (tuple, list)) or (len(names) == 1 and _is_array_like(x)):
            x = (x,)
        values = list(leaves(tuple(x)))
        if len(values) != len(names):
            raise SignatureError(f"{len(values)} inputs given, but {self} takes {len(names)}: {names}.")
        return dict(zip(leaves(self.args) if not self.kwargs else names, values, strict=True))

    def _in_order(self, x: Any) -> dict[str, Any]:
        """Inputs that are not taken apart, because lists and `None` among them are values."""
        names = [spec.name for spec in self.inputs]
        values = x if isinstance(x, tuple) else (x,)
        if len(values) != len(names):
            raise SignatureError(
                f"{len(values)} inputs given, but {self} takes {len(names)}: pass a tuple in this order or a dict."
            )
        return dict(zip(names, values, strict=True))

    def pack(self, outputs: Mapping[str, Any]) -> Any:
        """Outputs by name, nested as the native model returns them."""
        return map_tree(lambda name: outputs[name], self.returns)

    def unpack(self, returned: Any) -> dict[str, Any]:
        """What the native model returned, by output name: what `pack` undoes.

        Raises:
            SignatureError: it is nested otherwise than the signature says.
        """
        found: dict[str, Any] = {}
        try:
            _unpack(self.returns, returned, found)
        except (LookupError, TypeError) as error:
            raise SignatureError(f"the model returned {returned!r:.200}, but its signature has {self}.") from error
        return found

    def with_dims(self, dims: Mapping[str, Sequence[Dim]]) -> Signature:
        """This signature with the shapes of some inputs replaced, by input name."""
        inputs = tuple(replace(s, shape=tuple(dims[s.name])) if s.name in dims else s for s in self.inputs)
        return replace(self, inputs=inputs)

    def draw(self, sizes: Mapping[str, int], *, like: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> Arrays:
        """Random inputs that fit.

        All are sampled from the values of `like`, so that indices, probabilities and pixels stay in range. Where it is
        not given, or has the same float everywhere, floats are standard normal, and integers and booleans are 0 or 1.

        Args:
            sizes: the size of every symbolic dimension, by name; one that is not named gets `sizes[""]`, else 2.
            like: example arrays by input name.
            seed: of NumPy's generator.
        """
        rng = np.random.default_rng(seed)
        return {
            spec.name: _draw(spec, sizes, None if like is None else like.get(spec.name), rng) for spec in self.inputs
        }

    def sizes(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """The sizes that the symbolic dimensions have in some inputs by name, the first one named first."""
        return {
            dim: size
            for spec in self.inputs
            for dim, size in zip(spec.shape or (), np.shape(arrays[spec.name]) if spec.is_tensor else (), strict=False)
            if isinstance(dim, str)
        }

    def spread(self) -> Signature:
        """This signature with one list of inputs as positional arguments instead.

        A Keras model with several inputs takes one list of them; where that is not the custom, they are arguments.
        """
        args = self.args or ()
        if len(args) == 1 and not self.kwargs and isinstance(args[0], list):
            return replace(self, args=tuple(args[0]))
        return self

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [s.to_json() for s in self.inputs],
            "outputs": [s.to_json() for s in self.outputs],
            "args": [tree_to_json(tree) for tree in self.args or ()],
            "kwargs": {key: tree_to_json(tree) for key, tree in self.kwargs.items()},
            "returns": tree_to_json(self.returns),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        return cls(
            tuple(TensorSpec.from_json(s) for s in data["inputs"]),
            tuple(TensorSpec.from_json(s) for s in data["outputs"]),
            tuple(tree_from_json(tree) for tree in data["args"]),
            {key: tree_from_json(tree) for key, tree in data["kwargs"].items()},
            tree_from_json(data["returns"]),
        )


def _is_array_like(x: Any) -> bool:
    """Whether a list is one array written out (`[[1.0, 2.0]]`), not a sequence of arrays."""
    return isinstance(x, list) and not any(hasattr(item, "shape") for item in leaves(x))


def _unpack(tree: Tree, value: Any, found: dict[str, Any]) -> None:
    if isinstance(tree, Mapping):
        for key, item in tree.items():
            _unpack(item, value[key], found)
    elif isinstance(tree, (tuple, list)):
        if len(tree) != len(value):
            raise LookupError(tree)
        for item, part in zip(tree, value, strict=True):
            _unpack(item, part, found)
    elif tree is not None:
        found[tree] = value


def _checked(spec: TensorSpec, value: Any, sizes: dict[str, tuple[int, str]]) -> Any:
    """A value as the signature has it; one symbolic dimension has one size among `sizes`."""
    if spec.is_tensor:
        array = np.asarray(value)
        _check_array(spec, array, sizes)
        return array.astype(object) if spec.dtype == "str" and array.dtype != object else array
    if spec.dtype.startswith("optional("):
        return None if value is None else _checked(spec.held, value, sizes)
    if not isinstance(value, (list, tuple)):
        raise SignatureError(f"input {spec.name!r} is {type(value).__name__}, the model takes {spec}: pass a list.")
    # The elements of a sequence may differ in size, so that each has its own.
    return [_checked(spec.held, item, {}) for item in value]


def _check_array(spec: TensorSpec, array: np.ndarray, sizes: dict[str, tuple[int, str]]) -> None:
    if str(array.dtype) != spec.dtype and not (spec.dtype == "str" and array.dtype.kind in "USO"):
        raise SignatureError(
            f"input {spec.name!r} has dtype {array.dtype}, the model takes {spec.dtype}: "
            f"pass {spec.name}.astype({spec.dtype!r})."
        )
    if spec.shape is None:
        return
    if array.ndim != len(spec.shape):
        raise SignatureError(f"input {spec.name!r} has rank {array.ndim} {array.shape}, the model takes {spec}.")
    for axis, (size, dim) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if isinstance(dim, int):
            if size != dim:
                raise SignatureError(f"input {spec.name!r} has size {size} on axis {axis}, the model takes {spec}.")
            continue
        known, where = sizes.setdefault(dim, (size, spec.name))
        if known != size:
            raise SignatureError(
                f"dimension {dim!r} is {known} in input {where!r} but {size} on axis {axis} of input {spec.name!r}."
            )


_DRAWN_LENGTH = 2
"""How many elements a sequence has that is drawn without an example."""


def _draw(spec: TensorSpec, sizes: Mapping[str, int], like: Any, rng: np.random.Generator) -> Any:
    if spec.dtype.startswith("optional("):
        return _draw(spec.held, sizes, like, rng)
    if not spec.is_tensor:
        items = [None] * _DRAWN_LENGTH if like is None else like
        return [_draw(spec.held, sizes, item, rng) for item in items]
    shape = tuple(dim if isinstance(dim, int) else sizes.get(dim, sizes.get("", 2)) for dim in spec.shape or ())
    if spec.dtype == "str":
        pool = np.asarray(["a", "b"], object) if like is None else like.ravel()
        return rng.choice(pool, shape)
    if spec.dtype.startswith(("int", "uint", "bool")):
        pool = np.array([0, 1]) if like is None or like.size == 0 else like.ravel()
        return rng.choice(pool, shape).astype(spec.dtype)
    if like is None or like.size == 0 or (like == like.flat[0]).all():
        return rng.standard_normal(shape).astype(np.dtype(spec.dtype))
    return rng.choice(like.ravel(), shape).astype(np.dtype(spec.dtype))
