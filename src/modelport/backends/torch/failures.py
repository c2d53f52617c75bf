"""What torch says when it cannot trace a model, as an error that names the user's line and the remedy."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from modelport.core.errors import ModelPortError, UnsupportedModelError
from modelport.core.signature import Signature

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)


def explain(exc: BaseException, module: nn.Module, signature: Signature) -> ModelPortError:
    """The error to raise for an exception of `torch.export`."""
    if isinstance(exc, ModelPortError):
        return exc
    name, text = type(module).__name__, str(exc)
    where = user_line(exc)
    if "Constraints violated" in text or "specialized it to be a constant" in text:
        return _fixed_dimension(name, text, signature)
    if "data-dependent" in text:
        return UnsupportedModelError(
            f"{name} cannot be exported: it decides by the values of a tensor{where}. A portable graph has one course "
            "for all values: replace the Python `if` or loop by torch.where or masking, or fix the decision in the "
            "model."
        )
    if "batch_sizes" in text or "PackedSequence" in text:
        return UnsupportedModelError(
            f"{name} cannot be exported: it packs sequences{where}. Run the recurrent layer on the padded batch."
        )
    return UnsupportedModelError(
        f"{name} cannot be exported{where}: {type(exc).__name__}: {_first_paragraph(text)}. Rewrite that line with "
        "tensor operations that torch.export traces."
    )


def user_line(exc: BaseException) -> str:
    """` at file:line: code` of the last line of code outside torch that an exception came through; empty if none."""
    for part in _chain(exc):
        frames = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(part.__traceback__)
            if not frame.f_code.co_filename.startswith((_TORCH, _OURS, "<"))
        ]
        # The frames before the trace began are the caller's, not the model's.
        inside = [f for f in traceback.walk_tb(part.__traceback__) if f[0].f_code.co_filename.startswith(_TORCH)]
        if frames and inside and "forward" in [f.f_code.co_name for f, _ in traceback.walk_tb(part.__traceback__)]:
            file, line = frames[-1]
            return f" at {file}:{line}: {linecache.getline(file, line).strip()}"
    return ""


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _fixed_dimension(name: str, text: str, signature: Signature) -> UnsupportedModelError:
    fixed = re.findall(r"L\[(.+?)\]\.size\(\)\[(\d+)\].*?specialized it to be a constant \((\d+)\)", text)
    size = fixed[0][2] if fixed else "one value"
    dims = sorted({dim for spec in signature.inputs for dim in spec.shape or () if isinstance(dim, str)})
    places = ", ".join(f"axis {axis} of {source.strip(chr(39))}" for source, axis, _ in fixed)
    shapes = {
        spec.name: tuple(size if isinstance(d, str) else d for d in spec.shape or ()) for spec in signature.inputs
    }
    return UnsupportedModelError(
        f"{name} works for one size of a dimension only: the signature calls {', '.join(dims)} dynamic, but the code "
        f"fixes {places or 'it'} to {size}. Make the code independent of that size (reshape with -1, read sizes from "
        f"the tensor), or fix it: signature=signature.with_dims({shapes})."
        + ("" if fixed else f" torch says: {_first_paragraph(text)}")
    )


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())
