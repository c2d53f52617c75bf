"""Which operators ONNX Runtime runs: it is asked, so the answer is that of the installed version."""

from __future__ import annotations

from functools import cache

from modelport.core.backend import Support


def support(op_type: str, domain: str = "") -> Support:
    """`"native"` where ONNX Runtime has a kernel, or the standard defines the operator by others that have one."""
    domain = "" if domain == "ai.onnx" else domain
    return "native" if (domain, op_type) in _kernels() or _is_function(op_type, domain) else "unsupported"


@cache
def _kernels() -> frozenset[tuple[str, str]]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    kernels = {(kernel.domain, kernel.op_name) for kernel in get_all_opkernel_def()}
    # Constants become initializers when a session opens, so there is no kernel for them.
    return frozenset(kernels | {("", "Constant")})


@cache
def _is_function(op_type: str, domain: str) -> bool:
    import onnx

    if not onnx.defs.has(op_type, domain):
        return False
    schema = onnx.defs.get_schema(op_type, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)
