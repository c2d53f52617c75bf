"""A backend that hangs on one case, ends its process on another, and is wrong or raises on others."""

from __future__ import annotations

import os
import time
from typing import Any

from modelport.core.errors import UnsupportedOpError
from modelport.core.signature import Arrays, Signature
from tests.conformance.reference import Reference


class Misbehaving(Reference):
    """Its mood depends on the operator."""

    def run(self, native: Any, inputs: Arrays, signature: Signature) -> Arrays:
        outputs = super().run(native, inputs, signature)
        (op_type,) = {node.op_type for node in native.proto_.graph.node}
        if op_type == "Abs":
            time.sleep(60)
        if op_type == "Acos":
            os._exit(139)
        if op_type == "Acosh":
            return {name: value + 1 for name, value in outputs.items()}
        if op_type == "Asin":
            raise UnsupportedOpError("no Asin here", op_type="Asin")
        if op_type == "Asinh":
            raise ValueError("some framework's own error")
        return outputs


BACKEND = Misbehaving()
