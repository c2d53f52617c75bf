"""Calling a torch model: its signature, its example inputs by name, and its outputs as NumPy arrays."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from modelport.backends.torch.dtypes import carried, narrowed
from modelport.backends.torch.outputs import plain_tree
from modelport.core.errors import SignatureError, UnsupportedModelError
from modelport.core.signature import Arrays, Dim, Signature, TensorSpec, Tree, leaves, map_tree

BATCH = "batch"


class Call(NamedTuple):
    """Tensors (or their names) nested as the native call takes them."""

    args: tuple[Tree, ...]
    kwargs: dict[str, Tree]


def signature(native: Any, example: Any = None) -> Signature:
    """The named inputs and outputs of a torch model.

    Axis 0 of every tensor whose size there is that of the first input is `"batch"`; everything else is static. Output
    axes that follow the batch are found by running the model at two batch sizes. A program that was exported already
    tells its own dynamic dimensions.

    Args:
        native: an `nn.Module`, `ExportedProgram` or `ScriptModule`.
        example: the positional arguments as a tuple, the keyword arguments as a dict whose keys are parameters of
            `forward`, or the one positional argument; of tensors or NumPy arrays.

    Raises:
        SignatureError: there is no example, or the model cannot be called with it.
        UnsupportedModelError: the model returns something other than tensors.
    """
    if isinstance(native, torch.export.ExportedProgram):
        from modelport.backends.torch.program import program_signature

        return program_signature(native)
    call = native_call(native, example)
    names = _name_call(native, call)
    tensors = [*leaves(call.args), *leaves(call.kwargs)]
    flat = dict(zip([*leaves(names.args), *leaves(names.kwargs)], tensors, strict=True))
    inputs = _batch_specs(flat)
    outputs, returns = _probe(native, flat, inputs, names)
    return Signature(inputs, outputs, names.args, names.kwargs, returns)


def flatten(native: Any, example: Any, signature: Signature) -> Arrays:
    """An example in the native call's nesting as arrays by input name.

    Raises:
        SignatureError: the example does not have the signature's nesting.
    """
    if isinstance(example, Mapping) and set(example) == {spec.name for spec in signature.inputs}:
        return {spec.name: to_numpy(_tensor_tree(example[spec.name], spec.name)) for spec in signature.inputs}
    call = native_call(native, example)
    named = Call(tuple(signature.args or ()), dict(signature.kwargs))
    names = [*leaves(named.args), *(name for key in call.kwargs for name in leaves(named.kwargs.get(key)))]
    tensors = [*leaves(call.args), *leaves(call.kwargs)]
    if len(names) != len(tensors):
        raise SignatureError(f"the example has {len(tensors)} tensors, but {signature} takes {len(names)}: {names}.")
    return {name: to_numpy(tensor) for name, tensor in zip(names, tensors, strict=True)}


def run(native: Any, inputs: Arrays, signature: Signature) -> Arrays:
    """The outputs by name, in inference mode; every submodule's train flag is as before afterwards.

    Raises:
        SignatureError: the model cannot be called with the inputs, or returns another number of outputs.
    """
    module = as_module(native)
    call = tensors_of(inputs, signature, device_of(native))
    # Not inference_mode: what a forward caches on the module (rotary tables) must stay fit for training.
    with evaluating(module), torch.no_grad():
        outputs = outputs_of(call_module(module, call), signature)
    return {spec.name: _array(outputs[spec.name], spec) for spec in signature.outputs}


def outputs_of(returned: Any, signature: Signature) -> dict[str, Any]:
    """What a model returned, by output name.

    Raises:
        SignatureError: the model returns another number of outputs than the signature has.
    """
    if not all(spec.is_tensor and spec.dtype != "str" for spec in signature.outputs):
        return signature.unpack(returned)
    outputs = list(leaves(plain_tree(returned)))
    if len(outputs) != len(signature.outputs):
        raise SignatureError(f"the model returned {len(outputs)} tensors, but its signature has {signature}.")
    return {spec.name: tensor for spec, tensor in zip(signature.outputs, outputs, strict=True)}


def _array(value: Any, spec: TensorSpec) -> Any:
    """An output as the signature has it: an array, a list of them, or what an optional holds."""
    if spec.is_tensor:
        return narrowed(to_numpy(value), spec.dtype) if isinstance(value, torch.Tensor) else np.asarray(value, object)
    if spec.dtype.startswith("optional("):
        return None if value is None else _array(value, spec.held)
    return [_array(item, spec.held) for item in value]


_MODULES: WeakKeyDictionary[Any, nn.Module] = WeakKeyDictionary()


def as_module(native: Any) -> nn.Module:
    """The module that computes a torch model: itself, what `torch.compile` wraps, or an exported program's module."""
    if isinstance(native, torch.export.ExportedProgram):
        if native not in _MODULES:
            _MODULES[native] = native.module(check_guards=False)
        return _MODULES[native]
    return getattr(native, "_orig_mod", native)


def device_of(native: Any) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model that has none."""
    state = native.state_dict if isinstance(native, torch.export.ExportedProgram) else native.state_dict()
    return next((tensor.device for tensor in state.values() if isinstance(tensor, torch.Tensor)), torch.device("cpu"))


def tensors_of(inputs: Arrays, signature: Signature, device: torch.device) -> Call:
    """Arrays by name as tensors on a device, nested as the native call takes them."""

    def value(name: str) -> Any:
        return _on_device(inputs[name], device)

    kwargs = {key: map_tree(value, tree) for key, tree in signature.kwargs.items()}
    return Call(tuple(map_tree(value, tree) for tree in signature.args or ()), kwargs)


def _on_device(value: Any, device: torch.device) -> Any:
    """An input as the module takes it: a tensor, a list of tensors, `None`; strings stay an array."""
    if value is None or (isinstance(value, np.ndarray) and value.dtype.hasobject):
        return value
    if isinstance(value, list):
        return [_on_device(item, device) for item in value]
    return to_tensor(value).to(device)


def call_module(module: nn.Module, call: Call) -> Any:
    """What the module returns; an error of its code becomes a `SignatureError` that shows the inputs.

    Raises:
        SignatureError: the module raised.
    """
    try:
        return module(*call.args, **call.kwargs)
    except Exception as exc:
        shapes = [f"{str(t.dtype).removeprefix('torch.')}{tuple(t.shape)}" for t in leaves((call.args, call.kwargs))]
        raise SignatureError(
            f"{type(module).__name__} cannot be called with inputs {', '.join(shapes)}: {type(exc).__name__}: {exc}. "
            "Pass an example that its forward takes."
        ) from exc


def native_call(native: Any, example: Any) -> Call:
    """An example as positional and keyword arguments of tensors; keywords in the order of `forward`'s parameters.

    What TorchScript takes is positional as far as it can be.

    Raises:
        SignatureError: there is no example, or it holds something other than tensors, arrays and None.
    """
    if example is None and isinstance(native, torch.export.ExportedProgram) and native.example_inputs is not None:
        args, kwargs = native.example_inputs
        return Call(tuple(args), dict(kwargs))
    if example is None:
        raise SignatureError(
            f"{type(native).__name__} does not say the shapes of its inputs: pass example=, the inputs of one call."
        )
    if isinstance(example, tuple):
        return Call(tuple(_tensor_tree(item, f"argument {i}") for i, item in enumerate(example)), {})
    parameters = forward_parameters(native)
    if isinstance(example, Mapping) and example and set(example) <= set(parameters):
        given = {key: _tensor_tree(example[key], key) for key in parameters if key in example}
        if not isinstance(as_module(native), torch.jit.ScriptModule):
            return Call((), given)
        # torch's converter of TorchScript takes inputs by position only.
        leading = tuple(given.pop(key) for key in takewhile(example.__contains__, parameters))
        return Call(leading, given)
    return Call((_tensor_tree(example, "argument 0"),), {})


def forward_parameters(native: Any) -> tuple[str, ...]:
    """The names that `forward` takes its inputs by; of `*args` and `**kwargs` nothing is known."""
    module = as_module(native)
    if isinstance(module, torch.jit.ScriptModule):
        return tuple(argument.name for argument in module.forward.schema.arguments[1:])
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(name for name, p in inspect.signature(module.forward).parameters.items() if p.kind not in kinds)


_EVALUATING: dict[int, tuple[int, list[tuple[nn.Module, bool]]]] = {}
_FASTPATH: list[bool] = []
_LOCK = threading.Lock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inference mode for as long as any thread is inside; then every submodule's own train flag is back.

    Flags are set one by one: a model's own `train()` may do more than set them. The fused path of
    `nn.TransformerEncoder` is off meanwhile, because it computes other values at padded positions than training does.
    """
    with _LOCK:
        count, flags = _EVALUATING.get(id(module), (0, []))
        if count == 0:
            flags = [(child, child.training) for child in module.modules()]
            for child, training in flags:
                if training:
                    child.training = False
        _EVALUATING[id(module)] = (count + 1, flags)
        _FASTPATH.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        with _LOCK:
            count, flags = _EVALUATING.pop(id(module))
            if count > 1:
                _EVALUATING[id(module)] = (count - 1, flags)
            else:
                for child, training in flags:
                    if child.training != training:
                        child.training = training
            enabled = _FASTPATH.pop()
            if not _FASTPATH:
                torch.backends.mha.set_fastpath_enabled(enabled)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array; dtypes that NumPy lacks (bfloat16, float8) as those of `ml_dtypes`."""
    tensor = tensor.detach().cpu()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    name = str(tensor.dtype).removeprefix("torch.")
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        bits = torch.uint16 if name == "bfloat16" else torch.uint8
        return tensor.view(bits).numpy().view(getattr(ml_dtypes, name))
    return tensor.numpy()


def to_tensor(array: Any) -> torch.Tensor:
    """An array as a tensor that shares its memory where torch can; dtypes of `ml_dtypes` included.

    Raises:
        SignatureError: torch has no such dtype.
    """
    if isinstance(array, torch.Tensor):
        return array
    array = carried(np.asarray(array))
    name = array.dtype.name
    if name == "bfloat16" or name.startswith("float8"):
        bits = np.uint16 if name == "bfloat16" else np.uint8
        return torch.from_numpy(np.array(array, copy=True).view(bits)).view(getattr(torch, name))
    try:
        # torch warns about memory it must not write to, and strides below zero it does not know at all.
        writable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        return torch.from_numpy(array if writable else array.copy())
    except TypeError as exc:
        raise SignatureError(f"torch has no tensors of dtype {array.dtype}. Pass numbers or booleans.") from exc


def unique_name(name: str, taken: set[str], prefix: str) -> str:
    """`name`, or where it is taken `prefix_name`, `prefix_name_1`, ...; the result is then taken."""
    candidate, number = name, 0
    while candidate in taken:
        candidate = f"{prefix}_{name}" + (f"_{number}" if number else "")
        number += 1
    taken.add(candidate)
    return candidate


def name_outputs(tree: Tree, taken: set[str]) -> Tree:
    """Output names nested as the outputs: dict keys, fields of named tuples, else `output`, `output_0`, ..."""
    return _name_tree(tree, "output", taken, "output")


def resized(array: np.ndarray, shape: Sequence[Dim], sizes: Mapping[str, int]) -> np.ndarray:
    """The array with every symbolic axis repeated or cut to the size of its dimension."""
    for axis, dim in enumerate(shape):
        if isinstance(dim, str) and dim in sizes and array.shape[axis] not in (0, sizes[dim]):
            array = np.take(array, np.arange(sizes[dim]) % array.shape[axis], axis)
    return array


def _tensor_tree(value: Any, where: str) -> Tree:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(key): _tensor_tree(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_tensor_tree(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return to_tensor(value)
    raise SignatureError(
        f"{where} of the example is {value!r}, a {type(value).__name__}: a signature holds tensors and arrays only. "
        "Fix the value in the model (for instance with a default in forward) and leave it out of the example."
    )


def _name_call(native: Any, call: Call) -> Call:
    module = as_module(native)
    taken = set(module.state_dict())
    parameters = forward_parameters(native)
    only = len(call.args) == 1 and not call.kwargs
    args = []
    for i, tree in enumerate(call.args):
        name = parameters[i] if i < len(parameters) else f"input_{i}" if parameters or not only else "input"
        args.append(_name_tree(tree, name, taken, "input"))
    return Call(tuple(args), {key: _name_tree(tree, key, taken, "input") for key, tree in call.kwargs.items()})


def _name_tree(tree: Tree, name: str, taken: set[str], prefix: str) -> Tree:
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {key: _name_tree(item, key, taken, name) for key, item in tree.items()}
    if isinstance(tree, (tuple, list)):
        keys = getattr(tree, "_fields", [f"{name}_{i}" for i in range(len(tree))])
        items = [_name_tree(item, key, taken, prefix) for item, key in zip(tree, keys, strict=True)]
        return tuple(items) if isinstance(tree, tuple) else items
    return unique_name(name, taken, prefix)


def tensor_spec(name: str, tensor: torch.Tensor, shape: Sequence[Dim]) -> TensorSpec:
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), tuple(shape))


def _batch_specs(flat: Mapping[str, torch.Tensor]) -> tuple[TensorSpec, ...]:
    first = next(iter(flat.values()), None)
    rows = first.shape[0] if first is not None and first.ndim else None
    return tuple(
        tensor_spec(name, t, [BATCH if axis == 0 and n == rows else n for axis, n in enumerate(t.shape)])
        for name, t in flat.items()
    )


def _probe(
    native: Any, flat: Mapping[str, torch.Tensor], inputs: tuple[TensorSpec, ...], names: Call
) -> tuple[tuple[TensorSpec, ...], Tree]:
    """The output specs and their nesting, from the shapes at two batch sizes."""
    partial = Signature(inputs, (), names.args, names.kwargs)
    first = inputs[0].shape if inputs else None
    rows = next((flat[s.name].shape[0] for s in inputs if s.shape and s.shape[0] == BATCH), 0) if first else 0
    small, large = (max(rows, 2), max(rows, 2) + 1) if rows else (0, 0)
    tree = _outputs_at(native, flat, partial, small)
    taken = set(as_module(native).state_dict()) | set(flat)
    returns = name_outputs(tree, taken)
    at_small = list(leaves(tree))
    try:
        at_large = list(leaves(_outputs_at(native, flat, partial, large))) if rows else at_small
    except SignatureError as exc:
        raise UnsupportedModelError(
            f"{type(native).__name__} runs with {small} rows but not with {large}, so axis 0 is no batch: {exc} "
            "Make its code independent of the number of rows, or give a `signature` whose axis 0 is fixed."
        ) from exc
    specs = []
    for name, a, b in zip(leaves(returns), at_small, at_large, strict=True):
        sizes = enumerate(zip(a.shape, b.shape, strict=True))
        shape = [_follow(n, m, small, large, f"{name}_dim_{axis}") for axis, (n, m) in sizes]
        specs.append(tensor_spec(name, a, shape))
    return tuple(specs), returns


def _outputs_at(native: Any, flat: Mapping[str, torch.Tensor], partial: Signature, rows: int) -> Any:
    arrays = {s.name: resized(to_numpy(flat[s.name]), s.shape or (), {BATCH: rows}) for s in partial.inputs}
    module = as_module(native)
    with evaluating(module), torch.no_grad():
        return plain_tree(call_module(module, tensors_of(arrays, partial, device_of(native))))


def _follow(small: int, large: int, rows: int, more: int, fallback: str) -> Dim:
    """The size of an output axis as an expression of the batch, from its sizes at two batch sizes."""
    if small == large:
        return small
    factor, rest = divmod(large - small, more - rows)
    offset = small - factor * rows
    if rest or factor < 1:
        return fallback
    text = BATCH if factor == 1 else f"{factor}*{BATCH}"
    return text if offset == 0 else f"{text} {'+' if offset > 0 else '-'} {abs(offset)}"
