"""One trained model, any framework: save, load, check, compare, profile, transfer between PyTorch, Keras and ONNX."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelport.core.compressed import CompressReport
    from modelport.core.costs import ProfileReport
    from modelport.core.errors import (
        DataError,
        FormatError,
        IntegrityError,
        MissingBackendError,
        ModelPortError,
        ParityError,
        SignatureError,
        StepError,
        UnsupportedModelError,
        UnsupportedOpError,
        UntrustedFileError,
    )
    from modelport.core.model import Model
    from modelport.core.report import CheckReport, Note, ParityReport, ParityRow, TransferReport
    from modelport.core.signature import Signature, TensorSpec
    from modelport.core.steps import Distill, FineTune, Prune, Quantize
    from modelport.core.swept import SweepReport, SweepRow
    from modelport.verbs.check import check
    from modelport.verbs.compare import compare
    from modelport.verbs.compress import compress
    from modelport.verbs.load import load
    from modelport.verbs.profile import profile
    from modelport.verbs.save import save
    from modelport.verbs.sweep import sweep
    from modelport.verbs.transfer import transfer

__version__ = "0.1.0"

__all__ = [
    "CheckReport",
    "CompressReport",
    "DataError",
    "Distill",
    "FineTune",
    "FormatError",
    "IntegrityError",
    "MissingBackendError",
    "Model",
    "ModelPortError",
    "Note",
    "ParityError",
    "ParityReport",
    "ParityRow",
    "ProfileReport",
    "Prune",
    "Quantize",
    "Signature",
    "SignatureError",
    "StepError",
    "SweepReport",
    "SweepRow",
    "TensorSpec",
    "TransferReport",
    "UnsupportedModelError",
    "UnsupportedOpError",
    "UntrustedFileError",
    "check",
    "compare",
    "compress",
    "load",
    "profile",
    "save",
    "sweep",
    "transfer",
]

_HOMES = {
    "modelport.core.compressed": ("CompressReport",),
    "modelport.core.costs": ("ProfileReport",),
    "modelport.core.errors": (
        "DataError", "FormatError", "IntegrityError", "MissingBackendError", "ModelPortError", "ParityError",
        "SignatureError", "StepError", "UnsupportedModelError", "UnsupportedOpError", "UntrustedFileError",
    ),
    "modelport.core.model": ("Model",),
    "modelport.core.report": ("CheckReport", "Note", "ParityReport", "ParityRow", "TransferReport"),
    "modelport.core.signature": ("Signature", "TensorSpec"),
    "modelport.core.steps": ("Distill", "FineTune", "Prune", "Quantize"),
    "modelport.core.swept": ("SweepReport", "SweepRow"),
    "modelport.verbs.check": ("check",),
    "modelport.verbs.compare": ("compare",),
    "modelport.verbs.compress": ("compress",),
    "modelport.verbs.load": ("load",),
    "modelport.verbs.profile": ("profile",),
    "modelport.verbs.save": ("save",),
    "modelport.verbs.sweep": ("sweep",),
    "modelport.verbs.transfer": ("transfer",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'modelport' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
