"""Before a transfer: what will and will not survive it, and why."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from modelport.core import registry
from modelport.core.backend import Backend, Exported, Support
from modelport.core.errors import UnsupportedModelError, UnsupportedOpError
from modelport.core.model import Model
from modelport.core.report import CheckReport, CheckRow
from modelport.core.signature import Signature
from modelport.verbs.dynamic import Dynamic
from modelport.verbs.subject import exported, subject

_SHOWN = 5


def check(
    model: Any,
    *,
    to: str,
    example: Any = None,
    signature: Signature | None = None,
    dynamic: Dynamic | None = None,
) -> CheckReport:
    """What a transfer to another framework would keep, run by other means, drop or refuse; builds nothing.

    Args:
        model: a native model, a `Model` or a path.
        to: the backend it would go to.
        example: as for `transfer`.
        signature: as for `transfer`.
        dynamic: as for `transfer`.

    Returns:
        A `CheckReport` with one row per operator, or two where some of its nodes take strings; `report.ok` says whether
        the transfer can be made.

    Raises:
        MissingBackendError: the target's framework is not installed, or no backend has that name.
        UnsupportedModelError: no backend owns the model.
        SignatureError: the inputs are not known, or do not fit.

    Example:
        >>> print(mp.check("net.onnx", to="keras"))    # doctest: +SKIP
    """
    target = registry.backend(to)
    source = subject(model, example=example, signature=signature, dynamic=dynamic)
    try:
        graph = exported(source)
    except (UnsupportedModelError, UnsupportedOpError) as error:
        return CheckReport(source.backend, target.name, (), problem=str(error))
    return _report(source, target, graph)


def _report(source: Model, target: Backend, export: Exported) -> CheckReport:
    from modelport.graph.splice import is_text

    nodes: dict[tuple[str, Support], list[str]] = defaultdict(list)
    for node in _build_graph(export.graph, target).graph.all_nodes():
        text = any(map(is_text, (*node.inputs, *node.outputs)))
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        support = target.support(node.op_type, node.domain, text=text)
        nodes[name, support].append(node.name or node.outputs[0].name or "")
    rows = tuple(
        CheckRow(op_type, len(names), support, tuple(names[:_SHOWN]))
        for (op_type, support), names in sorted(nodes.items())
    )
    return CheckReport(source.backend, target.name, rows, export.notes)


def _build_graph(graph: Any, target: Backend) -> Any:
    """The graph as the target would build it: with layers where the target has layers."""
    from modelport.graph.layers.recognize import recognize_layers
    from modelport.graph.normal import normalize

    if target.support("Linear", "modelport") == "unsupported":
        return graph
    return recognize_layers(normalize(graph))
