"""ONNX's reference evaluator as a backend: it shows what the harness itself can reach."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from modelport.core.backend import Built, Support
from modelport.core.signature import Arrays, Signature


class Reference:
    """The part of the protocol that the cases use."""

    name = "reference"

    def build(self, graph: ir.Model) -> Built:
        return Built(ReferenceEvaluator(ir.to_proto(graph)))

    def run(self, native: Any, inputs: Arrays, signature: Signature) -> Arrays:
        names = [spec.name for spec in signature.outputs]
        return dict(zip(names, native.run(names, inputs), strict=True))

    def support(self, op_type: str, domain: str = "") -> Support:
        return "native" if onnx.defs.has(op_type, domain) else "unsupported"


BACKEND = Reference()
