"""ONNX, run by ONNX Runtime. This module holds the light backend object; the rooms beside it do the work."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelport.core.backend import Built, Exported, FileFormat, Opened, Support
from modelport.core.signature import Arrays, Signature

if TYPE_CHECKING:
    from modelport.core.backend import Graph


def _detect(path: Path) -> bool:
    from modelport.backends.onnx.files import detect

    return detect(path)


def _open(path: Path) -> Opened:
    from modelport.backends.onnx.files import open_file

    return open_file(path)


def _write(native: Any, path: Path, signature: Signature | None, example: Any) -> None:
    from modelport.backends.onnx.files import write_file

    write_file(native, path, signature)


class OnnxBackend:
    """`onnx.ModelProto` (and `onnx_ir.Model`) as native models."""

    name: str = "onnx"
    aliases: tuple[str, ...] = ("onnxruntime", "ort")
    modules: tuple[str, ...] = ("onnx", "onnx_ir", "onnxruntime")
    formats: tuple[FileFormat, ...] = (FileFormat("onnx", (".onnx",), _detect, open=_open, write=_write),)

    def owns(self, native: Any) -> bool:
        onnx, onnx_ir = sys.modules.get("onnx"), sys.modules.get("onnx_ir")
        return (onnx is not None and isinstance(native, onnx.ModelProto)) or (
            onnx_ir is not None and isinstance(native, onnx_ir.Model)
        )

    def signature(self, native: Any, example: Any = None) -> Signature:
        from modelport.backends.onnx.export import signature

        return signature(native)

    def flatten(self, native: Any, example: Any, signature: Signature) -> Arrays:
        return signature.bind(example)

    def export(self, native: Any, example: Arrays, signature: Signature) -> Exported:
        from modelport.backends.onnx.export import export

        return export(native, signature)

    def build(self, graph: Graph) -> Built:
        from modelport.backends.onnx.build import build

        return build(graph)

    def run(self, native: Any, inputs: Arrays, signature: Signature) -> Arrays:
        from modelport.backends.onnx.run import run

        return run(native, inputs, signature)

    def borrowing(self, native: Any, graph: Graph) -> AbstractContextManager[None]:
        from modelport.backends.onnx.borrow import borrowing

        return borrowing(native, graph)

    def parameters(self, native: Any) -> Arrays:
        from modelport.backends.onnx.parameters import parameters

        return parameters(native)

    def assign(self, native: Any, parameters: Mapping[str, Any]) -> None:
        from modelport.backends.onnx.parameters import assign

        assign(native, parameters)

    def place(self, native: Any, device: str) -> Any:
        from modelport.backends.onnx.device import place

        return place(native, device)

    def support(self, op_type: str, domain: str = "", *, text: bool = False) -> Support:
        from modelport.backends.onnx.ops import support

        return support(op_type, domain)


BACKEND = OnnxBackend()
