"""What reaches the products of a graph: the sums of squares that GPTQ needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from modelport.compression.quantize.files import write_runnable
from modelport.core.model import batches
from modelport.core.rows import rows_at_once
from modelport.core.signature import Arrays, Signature

_ROWS = 8
"""Rows of the data that are run at once."""

_BYTES = 1 << 29
"""Of Hessians that are summed up at once; the data are run again for the next ones."""


def hessians(
    model: ir.Model, wanted: Sequence[tuple[str, int, int]], signature: Signature, data: Arrays
) -> Iterator[tuple[str, np.ndarray]]:
    """The sum of `x x^T` over all vectors of values, by the values' names, one after the other.

    Args:
        model: a graph in normal form.
        wanted: the name of each value, the axis that its vectors lie along, and how long they are.
        signature: of the graph.
        data: rows of inputs by name.
    """
    with tempfile.TemporaryDirectory(prefix="modelport-") as folder:
        path = Path(folder) / "float.onnx"
        write_runnable(model, path)
        for part in _parts(wanted):
            yield from _sums(path, part, signature, data).items()


def _parts(wanted: Sequence[tuple[str, int, int]]) -> Iterator[list[tuple[str, int, int]]]:
    part: list[tuple[str, int, int]] = []
    for each in wanted:
        if part and 8 * (sum(size**2 for _, _, size in part) + each[2] ** 2) > _BYTES:
            yield part
            part = []
        part.append(each)
    if part:
        yield part


def _sums(path: Path, part: list[tuple[str, int, int]], signature: Signature, data: Arrays) -> dict[str, np.ndarray]:
    found = {name: np.zeros((size, size)) for name, _, size in part}
    session = _session(path, [name for name, _, _ in part])
    for batch in batches(data, rows_at_once(signature, _ROWS)):
        made = [name for name in found if name not in batch]
        values = {**batch, **dict(zip(made, session.run(made, batch) if made else (), strict=True))}
        for name, axis, size in part:
            vectors = np.moveaxis(values[name], axis, -1).reshape(-1, size)
            found[name] += vectors.T @ vectors
    return found


def _session(path: Path, names: Sequence[str]) -> Any:
    """A session of the program in a file that also returns some values."""
    import onnxruntime

    program = onnx.load(path, load_external_data=False)
    given = {value.name for value in (*program.graph.input, *program.graph.output)}
    program.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    target = path.with_name("observed.onnx")
    onnx.save(program, target)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(target, options, providers=["CPUExecutionProvider"])
