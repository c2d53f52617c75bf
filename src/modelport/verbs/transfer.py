"""Move a trained model along one axis: to another framework, or to another device."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from modelport.core import registry
from modelport.core.backend import Backend
from modelport.core.errors import DataError, ParityError
from modelport.core.model import Model
from modelport.core.report import Note, ParityReport, TransferReport
from modelport.core.signature import Signature
from modelport.verbs.compare import TOLERANCE, parity, tolerance_for
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.rounding import rounding_notes, rounding_slack
from modelport.verbs.subject import borrowing, exported, subject

if TYPE_CHECKING:
    from modelport.core.backend import Graph
    from modelport.graph.layout.native import Orders

Layout = Literal["source", "native"]


def transfer(
    model: Any,
    *,
    to: str | None = None,
    device: str | None = None,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
    layout: Layout = "source",
    check: bool = True,
    tolerance: float = TOLERANCE,
) -> Model:
    """Move a model to another framework, another device, or both; what arrives is a plain native model.

    Args:
        model: a native model, a `Model` or a path.
        to: the backend to go to: `"torch"`, `"keras"` (or `"tensorflow"`), `"onnx"`, or a plug-in's name.
        device: the device to go to: `"cpu"`, `"cuda"`, `"cuda:1"`.
        example: inputs in the native call's nesting; needed for a model whose framework does not know its shapes
            (PyTorch). Its first axis becomes the dynamic dimension `"batch"`.
        signature: the named inputs and outputs, where they shall not be those that the framework finds.
        dynamic: axes of the inputs that may have any size: `{1: "sequence"}` for axis 1 of every input that has one, or
            by input, `{"input_ids": {1: "source"}, "decoder_input_ids": {1: "target"}}`. One name is one size.
        layout: `"source"`: images go in and come out as the source has them. `"native"`: as the target computes them,
            with channels last in Keras and first in torch, so that nothing is transposed; the signature and the
            example of the result say so.
        check: whether to prove parity on the example (or on inputs drawn from the signature) at two
            sizes of every dynamic dimension.
        tolerance: what the relative error of an output may be (see `ParityRow.max_rel`); unless another is given, more
            of a model that computes in float16 (`verbs.compare.HALF_TOLERANCE`). The output of a quantized model may
            differ by what rounding explains (see `verbs.rounding`), and a note says so.

    Returns:
        A `Model`; its `report` is a `TransferReport`, which its `history` keeps.

    Raises:
        MissingBackendError: the target's framework is not installed, or no backend has that name.
        UnsupportedModelError: no backend owns the model, or its framework cannot trace it.
        UnsupportedOpError: the target has no counterpart of an operator.
        SignatureError: the inputs are not known, or do not fit.
        ParityError: the outputs changed beyond the tolerance; nothing is returned.
        DataError: neither `to` nor `device` is given, there is no such device, or no such layout.

    Example:
        >>> keras_model = mp.transfer(torch_net, to="keras", example=x).native    # doctest: +SKIP
    """
    if to is None and device is None:
        raise DataError('transfer needs a place to go: to="keras", device="cuda", or both')
    if layout not in ("source", "native"):
        raise DataError(f'there is no layout {layout!r}: pass "source" or "native"')
    target = None if to is None else registry.backend(to)
    source = subject(model, example=example, signature=signature, dynamic=dynamic)
    moved, orders, graph = (source, None, None) if target is None else _to_backend(source, target, layout)
    if device is not None:
        native = registry.backend(moved.backend).place(moved.native, device)
        report = moved.report if target else TransferReport(source.backend, moved.backend)
        moved = moved.replaced(native=native, report=report)
    return _proved(source, moved, orders, graph, check=check, tolerance=tolerance, device=device)


def _to_backend(source: Model, target: Backend, layout: Layout) -> tuple[Model, Orders | None, Graph]:
    started = time.perf_counter()
    graph, notes = exported(source)
    exported_at = time.perf_counter()
    orders = _native_orders(graph, target) if layout == "native" else None
    built = target.build(graph)
    seconds = {"export": exported_at - started, "build": time.perf_counter() - exported_at}

    from modelport.graph.signature import read_signature
    from modelport.graph.weights import aliases

    report = TransferReport(
        source.backend,
        target.name,
        dict(Counter(node.op_type for node in graph.graph.all_nodes()).most_common()),
        notes + (() if orders is None else orders.notes()) + built.notes,
        seconds=seconds,
    )
    arrived = built.signature or read_signature(graph)
    example = source.example if source.example is None or orders is None else orders.to_native(source.example)
    moved = Model(built.native, target, arrived, example=example, report=report, aliases=aliases(graph))
    return moved, orders, graph


def _native_orders(graph: Any, target: Backend) -> Orders:
    from modelport.graph.layout.native import to_native_layout

    return to_native_layout(graph, last=getattr(target, "channels_last", False))


def _proved(
    source: Model,
    moved: Model,
    orders: Orders | None,
    graph: Graph | None,
    *,
    check: bool,
    tolerance: float,
    device: str | None,
) -> Model:
    report: TransferReport = moved.report
    if check:
        started = time.perf_counter()
        with borrowing(source, graph), borrowing(moved, graph):
            allowed = tolerance_for(graph, tolerance)
            slack = None if graph is None else rounding_slack(graph)
            measured = parity(source, moved, gradients=False, tolerance=allowed, orders=orders, slack=slack)
        refuse(measured, report.notes, report.operators)
        seconds = {**report.seconds, "parity": time.perf_counter() - started}
        notes = (*report.notes, *rounding_notes(measured, allowed))
        report = replace(report, notes=notes, parity=measured, seconds=seconds)
    event = {"verb": "transfer", "device": device, **report.to_json()}
    return moved.replaced(history=(*source.history, event), report=report)


def refuse(measured: ParityReport, notes: tuple[Note, ...] = (), operators: Collection[str] = ()) -> None:
    """Raise `ParityError` where a report is not within its tolerance.

    Args:
        measured: the report.
        notes: what did not cross as it was.
        operators: of the graph; those that draw random numbers are named as the reason.
    """
    if measured.ok:
        return
    from modelport.graph.chance import RANDOM

    chance = ", ".join(sorted(RANDOM.intersection(operators)))
    remedy = "Pass tolerance= to allow more, or check=False to look at the result."
    if chance:
        remedy = f"The model draws random numbers ({chance}), of which no two runs have the same: pass check=False."
    worst = max((row for row in measured.rows if not row.ok), key=lambda row: row.max_rel)
    told = "".join(f"\n  {note.kind}: {note.where}: {note.message}" for note in notes)
    raise ParityError(
        f"{worst.kind} {worst.name!r} changed by {worst.max_rel:.2e} relative at batch size {worst.batch} on the way "
        f"from {measured.reference} to {measured.candidate}; {worst.tolerance:.0e} is allowed. "
        f"{remedy}{told}\n{measured}",
        measured,
    )
