"""Recurrent layers, and the ONNX operators that fit none, unrolled over a known number of steps."""

from __future__ import annotations
