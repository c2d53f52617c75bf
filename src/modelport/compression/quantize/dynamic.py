"""Weights in 8 bits, and activations by the range that each call has: no data are needed."""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from modelport.compression.quantize.cpu import saturates
from modelport.compression.quantize.files import through_files
from modelport.compression.quantize.regions import Region
from modelport.core.steps import Quantize


def quantize_dynamic(model: ir.Model, step: Quantize, region: Region) -> ir.Model:
    """The graph with its matrix products on integers: DynamicQuantizeLinear, MatMulInteger and a scale behind it.

    Args:
        model: a graph in normal form; it is left as it was.
        step: says whether weights have a scale per channel, and of which type they are.
        region: the nodes that are quantized.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    return through_files(
        model,
        partial(
            quantize,
            # A Gemm is a MatMul and an Add to the quantizer, which names them so.
            nodes_to_quantize=[*region.nodes, *(f"{name}_MatMul" for name in region.nodes)],
            per_channel=step.per_channel,
            reduce_range=saturates(),
            weight_type=QuantType.QUInt8 if step.precision == "uint8" else QuantType.QInt8,
        ),
    )
