"""PyTorch: modules, exported programs and TorchScript, and their files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelport.backends.torch.files import FORMATS
from modelport.core.backend import Built, Exported, FileFormat, Support
from modelport.core.signature import Arrays, Signature
from modelport.core.training import Batch, Epoch, Plan

if TYPE_CHECKING:
    from modelport.core.backend import Graph


class TorchBackend:
    """The `Backend` and `Trainer` of PyTorch; torch is imported by the first method that needs it."""

    name: str = "torch"
    aliases: tuple[str, ...] = ("pytorch",)
    modules: tuple[str, ...] = ("torch",)
    formats: tuple[FileFormat, ...] = FORMATS

    def owns(self, native: Any) -> bool:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "nn"):
            return False
        # torch.export is loaded on first use; a program cannot exist before that. A ScriptModule is an nn.Module.
        program = getattr(sys.modules.get("torch.export"), "ExportedProgram", torch.nn.Module)
        return isinstance(native, (torch.nn.Module, program))

    def signature(self, native: Any, example: Any = None) -> Signature:
        from modelport.backends.torch.run import signature

        return signature(native, example)

    def flatten(self, native: Any, example: Any, signature: Signature) -> Arrays:
        from modelport.backends.torch.run import flatten

        return flatten(native, example, signature)

    def export(self, native: Any, example: Arrays, signature: Signature) -> Exported:
        from modelport.backends.torch.export import export

        return export(native, example, signature)

    def build(self, graph: Graph) -> Built:
        from modelport.backends.torch.build import build

        return build(graph)

    def run(self, native: Any, inputs: Arrays, signature: Signature) -> Arrays:
        from modelport.backends.torch.run import run

        return run(native, inputs, signature)

    def parameters(self, native: Any) -> Arrays:
        from modelport.backends.torch.parameters import parameters

        return parameters(native)

    def assign(self, native: Any, parameters: Mapping[str, Any]) -> None:
        from modelport.backends.torch.parameters import assign

        assign(native, parameters)

    def place(self, native: Any, device: str) -> Any:
        from modelport.backends.torch.device import place

        return place(native, device)

    def support(self, op_type: str, domain: str = "", *, text: bool = False) -> Support:
        from modelport.backends.torch.ops import support

        return support(op_type, domain, text=text)

    def gradients(self, native: Any, inputs: Arrays, cotangents: Arrays, signature: Signature) -> Arrays:
        from modelport.backends.torch.train import gradients

        return gradients(native, inputs, cotangents, signature)

    def fit(
        self,
        native: Any,
        batches: Callable[[int], Iterable[Batch]],
        plan: Plan,
        signature: Signature,
        on_epoch: Callable[[Epoch], bool],
    ) -> tuple[Epoch, ...]:
        from modelport.backends.torch.train import fit

        return fit(native, batches, plan, signature, on_epoch)


BACKEND = TorchBackend()
