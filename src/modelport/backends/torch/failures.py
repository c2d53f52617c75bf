"""What torch says when it cannot trace a model, as an error that names the user's line and the remedy."""

from __future__ import annotations

import contextlib
import linecache
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from modelport.core.errors import ModelPortError, UnsupportedModelError, UnsupportedOpError
from modelport.core.signature import Signature

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)


def explain(
    exc: BaseException, module: nn.Module, signature: Signature, attempt: Callable[[], object]
) -> ModelPortError:
    """The error to raise for an exception of `torch.export`.

    Args:
        exc: what torch raised.
        module: the model.
        signature: what it was to be exported with.
        attempt: does it again; torch tells only its log where a dimension got fixed.
    """
    if isinstance(exc, ModelPortError):
        return exc
    name, text = type(module).__name__, str(exc)
    if fixes_a_size(exc):
        return _fixed_dimension(name, text, signature, _fixing_line(attempt))
    where = user_line(exc)
    if "data-dependent" in text:
        return UnsupportedModelError(
            f"{name} cannot be exported: it decides by the values of a tensor{where}. A portable graph has one course "
            "for all values: replace the Python `if` or loop by torch.where or masking, or fix the decision in the "
            "model."
        )
    if _is_packed(exc):
        return UnsupportedModelError(
            f"{name} cannot be exported: it packs sequences{where}, and only the run tells how many steps each step of "
            "the packed batch has. Give the recurrent layer the padded batch, and take each sequence's last output by "
            "its length: output[torch.arange(len(lengths)), lengths - 1]."
        )
    return UnsupportedModelError(
        f"{name} cannot be exported{where}: {type(exc).__name__}: {_first_paragraph(text)}. Rewrite that line with "
        "tensor operations that torch.export traces."
    )


def _is_packed(exc: BaseException) -> bool:
    """Whether an exception came out of torch's packed sequences."""
    frames = [frame for cause in _causes(exc) for frame, _ in traceback.walk_tb(cause.__traceback__)]
    packing = any(frame.f_code.co_filename.endswith("/nn/utils/rnn.py") for frame in frames)
    return packing or any(
        frame.f_code.co_filename.endswith("/nn/modules/rnn.py") and frame.f_locals.get("batch_sizes") is not None
        for frame in frames
    )


def fixes_a_size(exc: BaseException) -> bool:
    """Whether torch refuses to export a model because it takes a dimension of any size to have one."""
    return "specialized it to be a constant" in str(exc) or "Constraints violated" in str(exc)


def explain_translation(exc: BaseException, name: str) -> ModelPortError:
    """The error to raise for an exception of `torch.onnx.export`, which names an operator and never its place.

    Args:
        exc: what torch raised.
        name: the class of the model.
    """
    causes = list(_causes(exc))
    where = _translated_line(causes)
    for cause in causes:
        if isinstance(cause, UnsupportedOpError):
            told = f"{name} cannot be written as ONNX{where}: {cause}" if where else str(cause)
            return UnsupportedOpError(told, op_type=cause.op_type, node=cause.node)
        if type(cause).__name__ == "DispatchError":
            op = "".join(re.findall(r"op='([\w.]+)'", str(cause))[:1]) or "an operator"
            return UnsupportedOpError(
                f"{name} uses {op}{where}, which has no ONNX form: write that step with other torch operations.",
                op_type=op,
            )
    if "Unsupported attribute type" in str(causes[-1]):
        return UnsupportedModelError(
            f"{name} was traced but cannot be written as ONNX{where}: a setting of that step (a number of groups, an "
            "axis) follows from the input, and ONNX takes it as a fixed number. Make it a constant."
        )
    return UnsupportedModelError(
        f"{name} was traced but cannot be written as ONNX{where}: {_first_paragraph(str(causes[-1]))}. Write that step "
        "with other torch operations."
    )


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _translated_line(causes: Sequence[BaseException]) -> str:
    """Where the user's code made the call that was being translated: the translation's own frames hold its node."""
    frames = [frame for cause in causes for frame, _ in traceback.walk_tb(cause.__traceback__)]
    nodes = [found for frame in frames for found in frame.f_locals.values() if isinstance(found, torch.fx.Node)]
    for node in reversed(nodes):
        places = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
        users = [(file, int(line)) for file, line in places if _is_users(file)]
        if users:
            return _told(*users[-1])
    return ""


def user_line(exc: BaseException | None) -> str:
    """` at file:line: code` of the last line outside torch that an exception came through; empty if there is none."""
    while exc is not None:
        lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(exc.__traceback__)]
        entered = next((i for i, (file, _) in enumerate(lines) if file.startswith(_TORCH)), len(lines))
        inside = [place for place in lines[entered:] if _is_users(place[0])]
        if inside:
            return _told(*inside[-1])
        exc = exc.__cause__ or exc.__context__
    return ""


def _is_users(file: str) -> bool:
    return not file.startswith((_TORCH, _OURS, "<")) and not file.endswith(("/contextlib.py", "/functools.py"))


def _told(file: str, line: int) -> str:
    return f" at {file}:{line}: {linecache.getline(file, line).strip()}"


class _Listener(logging.Handler):
    """Notes which line of the user's code runs while torch logs that a symbol became a number."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.line = ""

    def emit(self, record: logging.LogRecord) -> None:
        values = record.args if isinstance(record.args, tuple) else ()
        fixed = record.msg.startswith("set_replacement") and len(values) > 1 and str(values[1]).isdigit()
        if fixed and not self.line:
            stack = list(traceback.walk_stack(sys._getframe()))
            calls = [i for i, (frame, _) in enumerate(stack) if frame.f_code.co_filename.startswith(_TORCH)]
            inside = stack[: max(calls, default=0)]
            users = ((f.f_code.co_filename, n) for f, n in inside if _is_users(f.f_code.co_filename))
            self.line = next((_told(*place) for place in users if "/logging/" not in place[0]), "")


def _fixing_line(attempt: Callable[[], object]) -> str:
    """Where a dimension got fixed, found by tracing once more with torch's log open."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    listener, level, propagate, others = _Listener(), logger.level, logger.propagate, logger.handlers
    logger.handlers, logger.propagate = [listener], False
    logger.setLevel(logging.INFO)
    try:
        with contextlib.suppress(Exception):
            attempt()
    finally:
        logger.handlers, logger.propagate = others, propagate
        logger.setLevel(level)
    return listener.line


def _fixed_dimension(name: str, text: str, signature: Signature, where: str) -> UnsupportedModelError:
    fixed = re.findall(r"L\[(.+?)\]\.size\(\)\[(\d+)\].*?specialized it to be a constant \((\d+)\)", text)
    dims = sorted({dim for spec in signature.inputs for dim in spec.shape or () if isinstance(dim, str)})
    if not fixed:
        return UnsupportedModelError(
            f"{name} does not work for every size of {', '.join(dims)}{where}: {_first_paragraph(text)}. Fix the "
            "dimension in the signature (signature.with_dims), or make the code independent of it."
        )
    specs = {f"'{spec.name}'": spec.shape or () for spec in signature.inputs}
    sizes = {str(specs[source][int(axis)]): int(size) for source, axis, size in fixed if source in specs}
    # A nested input is not called in torch's message what it is called here: then it is any of the dimensions.
    sizes = sizes or dict.fromkeys(dims, int(fixed[0][2]))
    shapes = {s.name: tuple(sizes.get(str(d), d) for d in s.shape or ()) for s in signature.inputs}
    places = ", ".join(f"axis {axis} of {source.strip(chr(39))}" for source, axis, _ in fixed)
    return UnsupportedModelError(
        f"{name} works for one size of a dimension only: the signature calls {', '.join(sizes)} dynamic, but the "
        f"code fixes {places} to {fixed[0][2]}{where}. Make it independent of that size (reshape with -1, no Python "
        f"loop over it), or fix the dimension: signature.with_dims({shapes})."
    )


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split()).rstrip(".")
