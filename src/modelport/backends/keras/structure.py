"""What a Keras model or a TensorFlow object says of itself: its kind, and how its inputs and outputs are nested."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelport.core.signature import Dim, Signature, TensorSpec, Tree, leaves, map_tree

_SETTINGS = ("training", "mask", "kwargs", "args", "self")
"""Arguments of `call` that are no inputs unless the example gives them by name."""


def is_keras(native: Any) -> bool:
    """Whether an object is a Keras layer or model, not a plain TensorFlow one."""
    return hasattr(native, "_flatten_layers")


def is_functional(native: Any) -> bool:
    """Whether a model was built from `keras.Input`, so that it knows its inputs and outputs."""
    return (is_keras(native) and getattr(native, "_inputs_struct", None) is not None) or _is_built_sequential(native)


def _is_built_sequential(native: Any) -> bool:
    return is_keras(native) and getattr(getattr(native, "_functional", None), "_inputs_struct", None) is not None


def structures(native: Any) -> tuple[Any, Any]:
    """How a functional model nests its inputs and outputs, as Keras tensors."""
    inner = native._functional if _is_built_sequential(native) else native
    return inner._inputs_struct, inner._outputs_struct


def named_inputs(struct: Tree) -> tuple[tuple[TensorSpec, ...], Tree]:
    """The inputs of a nesting of Keras tensors, and the nesting with their names.

    An input has its key where the nesting is a flat dict, else the name of its tensor.
    """
    specs: list[TensorSpec] = []

    def name(tensor: Any, key: str | None = None) -> str:
        chosen = free(key or tensor.name, {spec.name for spec in specs})
        specs.append(TensorSpec(chosen, dtype_name(tensor.dtype), dims(chosen, tensor.shape)))
        return chosen

    if isinstance(struct, Mapping) and not any(isinstance(value, (Mapping, list, tuple)) for value in struct.values()):
        tree: Tree = {key: name(tensor, str(key)) for key, tensor in struct.items()}
    else:
        tree = map_tree(name, struct)
    return tuple(specs), tree


def named_outputs(struct: Tree, producers: list[str], taken: set[str]) -> tuple[tuple[TensorSpec, ...], Tree]:
    """Names of outputs: the keys of dicts, else the layers that make them, else `output`."""
    tensors = list(leaves(struct))
    if len(tensors) == 1 and not isinstance(struct, Mapping):
        wanted = ["output"]
    else:
        wanted = list(leaves(_keyed(struct, iter(producers))))
    specs: list[TensorSpec] = []
    used = set(taken)
    for tensor, stem in zip(tensors, wanted, strict=True):
        chosen = free(stem, used)
        used.add(chosen)
        specs.append(TensorSpec(chosen, dtype_name(tensor.dtype), dims(chosen, tensor.shape)))
    names = iter(spec.name for spec in specs)
    return tuple(specs), map_tree(lambda tensor: next(names), struct)


def _keyed(tree: Tree, producers: Iterator[str], key: str = "") -> Tree:
    """A tree of names: every leaf has its path of keys, and where it has none its producer's name."""
    if isinstance(tree, Mapping):
        return {k: _keyed(v, producers, f"{key}.{k}" if key else str(k)) for k, v in tree.items()}
    if isinstance(tree, (tuple, list)):
        return [_keyed(v, producers, f"{key}_{index}" if key else "") for index, v in enumerate(tree)]
    producer = next(producers) if tree is not None else None
    return key or producer


def free(name: str, taken: set[str]) -> str:
    """A name that is not taken: with a number where it is."""
    stem, index = name, 0
    while name in taken:
        index += 1
        name = f"{stem}_{index}"
    return name


def dims(name: str, shape: Any) -> tuple[Dim, ...] | None:
    """A TensorFlow or Keras shape with a name for every size that is not fixed."""
    if shape is None or getattr(shape, "rank", 0) is None:
        return None
    sizes = enumerate(tuple(shape))
    return tuple(int(n) if n is not None else "batch" if axis == 0 else f"{name}_dim{axis}" for axis, n in sizes)


def dtype_name(dtype: Any) -> str:
    """NumPy's name of a Keras or TensorFlow dtype."""
    name = dtype if isinstance(dtype, str) else dtype.name
    return "str" if name == "string" else name


def call_of(native: Any) -> Callable[..., Any]:
    """The method that a call of a model runs."""
    return native.call if is_keras(native) else native.__call__


def parameter_names(native: Any) -> list[str]:
    """The positional parameters of a model's call that are inputs."""
    parameters = inspect.signature(call_of(native)).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in kinds and p.name not in _SETTINGS]


def served(native: Any, signature: Signature | None = None) -> Any:
    """A restored SavedModel's serving function, where it takes the signature's inputs by name."""
    functions = getattr(native, "signatures", None)
    if not functions:
        return None
    function = functions.get("serving_default") or next(iter(functions.values()))
    takes = set(function.structured_input_signature[1])
    return function if signature is None or {spec.name for spec in signature.inputs} == takes else None


def tensor_spec(name: str, spec: Any) -> TensorSpec:
    """A TensorFlow spec as a named tensor."""
    return TensorSpec(name, dtype_name(spec.dtype), dims(name, spec.shape))
