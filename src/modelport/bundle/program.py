"""The program of a bundle: `model.onnx`, whose weights point into `weights.safetensors`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from modelport.bundle.weights import read_weights, write_weights
from modelport.core.errors import DataError, IntegrityError
from modelport.graph.external import MappedFile, all_tensors, external_entries, mapped_tensor, mapping_of
from modelport.graph.proto import parse, to_graph
from modelport.graph.weights import roles

PROGRAM = "model.onnx"
WEIGHTS = "weights.safetensors"
CONSTANTS = "constants.safetensors"
"""Large constants, which are no weights and so have no place among them; most bundles have none."""

_LARGE = 1 << 20
_SMALL = 1 << 10

Unused = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of weights that the program does not use, by name."""


def write_program(folder: Path, graph: ir.Model) -> Unused:
    """Write a portable graph and its weights into a folder.

    Every weight is in `weights.safetensors` under its portable name. Those that the program uses are external data of
    `model.onnx`; the others are not in it, because ONNX Runtime warns of initializers that nothing uses.

    Args:
        folder: an empty directory.
        graph: the graph; it is left as it was.

    Returns:
        The weights that the program does not use.

    Raises:
        DataError: a weight has a dtype that safetensors cannot hold, or the program alone is larger than 2 GB.
    """
    copy = graph.clone()
    weights = {name: _tensor(copy, name) for name in roles(graph)}
    constants = {name: _tensor(copy, name) for name in copy.graph.initializers if name not in weights}
    constants = {name: t for name, t in constants.items() if t.nbytes >= _LARGE and t.dtype != ir.DataType.STRING}
    unused: Unused = {}
    for file, tensors in ((WEIGHTS, weights), (CONSTANTS, constants)):
        if file == CONSTANTS and not tensors:
            continue
        for name, place in write_weights(folder / file, tensors).items():
            _refer(copy, name, file, place, unused)
    try:
        (folder / PROGRAM).write_bytes(ir.to_proto(copy).SerializeToString())
    except ValueError as error:
        raise DataError(f"the program without its weights is too large for ONNX's 2 GB: {error}") from error
    return unused


def _tensor(model: ir.Model, name: str) -> ir.TensorProtocol:
    tensor = model.graph.initializers[name].const_value
    if tensor is None:
        raise DataError(f"the weight {name!r} has no value in the graph.")
    return tensor


def _refer(model: ir.Model, name: str, file: str, place: tuple[int, int], unused: Unused) -> None:
    """Point an initializer into a file, or take it out of the program where nothing uses it."""
    value = model.graph.initializers[name]
    tensor = _tensor(model, name)
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
        unused[name] = (tensor.dtype.name, shape)
        del model.graph.initializers[name]
    elif not _must_stay_inline(tensor):
        offset, length = place
        value.const_value = ir.ExternalTensor(file, offset, length, tensor.dtype, shape=ir.Shape(shape), name=name)


def _must_stay_inline(tensor: ir.TensorProtocol) -> bool:
    """What ONNX Runtime refuses as external data: empty tensors, and integers that its shape inference reads."""
    return tensor.nbytes == 0 or (tensor.dtype.is_integer() and tensor.nbytes <= _SMALL)


def read_program(open_file: Callable[[str], MappedFile], unused: Mapping[str, tuple[str, tuple[int, ...]]]) -> ir.Model:
    """The portable graph of a folder; its weights refer to the mapped files and are not copied.

    Args:
        open_file: maps a file of the folder, which it has checked.
        unused: what `write_program` returned.

    Raises:
        IntegrityError: a file is damaged, or the program refers to data that is not in the folder's weights.
    """
    program = open_file(PROGRAM)
    proto = parse(program)
    found = {entries.get("location", "") for tensor in all_tensors(proto) if (entries := external_entries(tensor))}
    if foreign := sorted(found - {WEIGHTS, CONSTANTS}):
        raise IntegrityError(f"{program.path} refers to data outside of the bundle: {foreign}. Do not use this bundle.")
    stored = {name: read_weights(open_file(name)) for name in sorted(found | {WEIGHTS})}
    graph = to_graph(proto, program.path)
    for name, value in graph.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = _stored_tensor(program, name, value.const_value, stored)
    _restore(graph, unused, stored[WEIGHTS], program)
    return graph


def _stored_tensor(
    program: MappedFile, name: str, tensor: ir.ExternalTensor, stored: Mapping[str, Mapping[str, ir.TensorProtocol]]
) -> ir.TensorProtocol:
    held = stored[str(tensor.location)].get(name)
    mapping = None if held is None else mapping_of(held)
    if mapping is None or mapping[1:] != (tensor.offset, tensor.length):
        raise IntegrityError(
            f"{program.path}: the data of {name!r} is not where {tensor.location} has it. Save the model again."
        )
    file, offset, length = mapping
    return mapped_tensor(file, offset, length, tensor.dtype, [int(size) for size in tensor.shape.numpy()], name)


def _restore(
    graph: ir.Model,
    unused: Mapping[str, tuple[str, tuple[int, ...]]],
    stored: Mapping[str, ir.TensorProtocol],
    program: MappedFile,
) -> None:
    """Give the graph back the weights that the program does not use."""
    for name, (dtype, shape) in unused.items():
        mapping = mapping_of(stored[name]) if name in stored else None
        if mapping is None or dtype not in ir.DataType.__members__ or name in graph.graph.initializers:
            raise IntegrityError(f"{program.path}: the weight {name!r} is not in {WEIGHTS}. Save the model again.")
        tensor = mapped_tensor(*mapping, ir.DataType[dtype], shape, name)
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.graph.register_initializer(value)
