"""Weights and activations in 8 bits, by ranges that were observed: ONNX Runtime's quantizer on our choice of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import onnx_ir as ir

from modelport.compression.quantize.cpu import reads_unsigned, saturates
from modelport.compression.quantize.files import through_files
from modelport.compression.quantize.regions import Region
from modelport.core.model import batches
from modelport.core.progress import tracked
from modelport.core.rows import rows_at_once
from modelport.core.signature import Arrays, Signature
from modelport.core.steps import Quantize

_ROWS = 8
"""Rows that are observed at once."""


def quantize_static(model: ir.Model, step: Quantize, region: Region, signature: Signature, data: Arrays) -> ir.Model:
    """The graph with a pair of QuantizeLinear and DequantizeLinear around what computes in 8 bits.

    Args:
        model: a graph in normal form whose BatchNormalizations are folded; it is left as it was.
        step: says which type activations have, how ranges are found, and whether weights have a scale per channel.
        region: the nodes that are quantized.
        signature: of the graph.
        data: rows that are observed, by input name.
    """
    from onnxruntime.quantization import QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    unsigned = step.precision == "uint8" or reads_unsigned()
    found = through_files(
        model,
        partial(
            quantize,
            calibration_data_reader=_reader(data, rows_at_once(signature, _ROWS)),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=list(region.nodes),
            per_channel=step.per_channel,
            reduce_range=unsigned and saturates(),
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_method(step.method),
        ),
    )
    _drop_zero_points(found)
    return found


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

    known = {"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}
    return known.get(name, CalibrationMethod.Percentile)


def _reader(data: Arrays, rows: int) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands out batches until there are no more."""

        def __init__(self) -> None:
            count = -(-len(next(iter(data.values()))) // rows)
            self.left: Iterator[Arrays] = tracked(batches(data, rows), "calibration", count, unit="batch")

        def get_next(self) -> Any:
            return next(self.left, None)

    return Reader()
