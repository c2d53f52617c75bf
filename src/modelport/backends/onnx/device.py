"""Where ONNX Runtime runs a model."""

from __future__ import annotations

import re
from typing import Any

import onnxruntime

from modelport.backends.onnx.held import held
from modelport.backends.onnx.run import forget
from modelport.core.errors import DataError


def place(native: Any, device: str) -> Any:
    """The same model, run from now on on a device.

    Raises:
        DataError: this ONNX Runtime has no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DataError(f'there is no device {device!r} for ONNX: say "cpu", "cuda" or "cuda:1".')
    if device != "cpu" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DataError(
            f"the installed ONNX Runtime cannot run on {device!r}, it has {onnxruntime.get_available_providers()}: "
            "pip install onnxruntime-gpu."
        )
    held(native).device = device
    forget(native)
    return native
