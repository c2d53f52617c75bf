"""Weights and activations in 8 bits, by ranges that were observed: ONNX Runtime's quantizer on our choice of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from modelport.compression.quantize.cpu import reads_unsigned, saturates
from modelport.compression.quantize.files import through_files
from modelport.compression.quantize.mse import write_ranges
from modelport.compression.quantize.regions import Region
from modelport.core.model import batches
from modelport.core.progress import tracked
from modelport.core.rows import rows_at_once
from modelport.core.signature import Arrays, Signature
from modelport.core.steps import Quantize

_ROWS = 8
"""Rows that are observed at once."""


def quantize_static(
    model: ir.Model, step: Quantize, region: Region, signature: Signature, data: Arrays, ranges: Path | None = None
) -> ir.Model:
    """The graph with a pair of QuantizeLinear and DequantizeLinear around what computes in 8 bits.

    Args:
        model: a graph in normal form whose BatchNormalizations are folded; it is left as it was.
        step: says which type activations have, how ranges are found, and whether weights have a scale per channel.
        region: the nodes that are quantized.
        signature: of the graph.
        data: rows that are observed, by input name.
        ranges: a file that the ranges are read from where it is there, and kept in where it is not.
    """
    from onnxruntime.quantization import QuantFormat, QuantType

    unsigned = step.precision == "uint8" or reads_unsigned()
    found = through_files(
        model,
        partial(
            _quantize,
            step=step,
            ranges=ranges,
            op_types=sorted({node.op_type for node in model.graph if node.name in region.nodes}),
            rows=lambda: _tracked(data, rows_at_once(signature, _ROWS)),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=list(region.nodes),
            per_channel=step.per_channel,
            reduce_range=unsigned and saturates(),
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
        ),
    )
    _drop_zero_points(found)
    return found


def _quantize(
    source: Path,
    target: Path,
    *,
    step: Quantize,
    ranges: Path | None,
    op_types: list[str],
    rows: Callable[[], Iterator[Arrays]],
    **settings: Any,
) -> None:
    """What ONNX Runtime's quantizer does to a program, by the ranges of a method that it may not know."""
    from onnxruntime.quantization import quantize_static as quantize

    if step.method == "mse":
        ranges = ranges or source.with_name("ranges.json")
        if not ranges.exists():
            write_ranges(source, ranges, rows(), op_types)
    quantize(
        source,
        target,
        _reader(rows()),
        calibrate_method=_method(step.method),
        calibration_cache_path=ranges,
        **settings,
    )


def _drop_zero_points(model: ir.Model) -> None:
    """Take away the zero points of weights and biases that are zero, as they are without one: five bytes a channel."""
    for node in model.graph:
        if node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
            continue
        weight, zero = node.inputs[0], node.inputs[2]
        if weight is None or weight.const_value is None or zero is None or zero.const_value is None:
            continue
        if not zero.const_value.numpy().any():
            node.resize_inputs(2)
            if not zero.uses():
                model.graph.initializers.pop(str(zero.name))


def _method(name: str) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    known = {"entropy": CalibrationMethod.Entropy, "percentile": CalibrationMethod.Percentile}
    # Ranges that were found before are read as extremes.
    return known.get(name, CalibrationMethod.MinMax)


def _tracked(data: Arrays, rows: int) -> Iterator[Arrays]:
    count = -(-len(next(iter(data.values()))) // rows)
    return tracked(batches(data, rows), "calibration", count, unit="batch")


def _reader(rows: Iterator[Arrays]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands out batches until there are no more."""

        def get_next(self) -> Any:
            return next(rows, None)

    return Reader()
