"""A node that torch cannot express, inside a module: NumPy computes it on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from modelport.backends.torch.dtypes import narrowed
from modelport.backends.torch.run import to_numpy, to_tensor
from modelport.backends.torch.whole import Whole, kept, whole_node
from modelport.graph.host import HostNode, host_node


class HostOp(nn.Module):
    """One ONNX node by onnx's reference evaluator; no gradient goes through it.

    Args:
        node: what is computed.
        dtypes: NumPy's names of the dtypes of the values that a call takes, empty where one is no tensor.
        whole: the node as it goes home; `None` where it takes or gives what no tensor stands for then.
    """

    def __init__(self, node: HostNode, dtypes: tuple[str, ...], whole: Whole | None = None) -> None:
        super().__init__()
        self.whole = whole
        self.node = node
        self.dtypes = dtypes

    def extra_repr(self) -> str:
        return self.node.op_type

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """The outputs: tensors on the device of the first tensor given; lists, `None` and strings as they are."""
        kept_whole = kept(self.whole, values)
        return self._run(*values) if kept_whole is None else kept_whole

    @torch.compiler.disable
    def _run(self, *values: Any) -> tuple[Any, ...]:
        device = next((value.device for value in values if isinstance(value, torch.Tensor)), torch.device("cpu"))
        given = [_to_host(value, dtype) for value, dtype in zip(values, self.dtypes, strict=True)]
        return tuple(_from_host(result, device) for result in self.node(*given))


def host_op(node: ir.Node, opsets: dict[str, int], weights: Any) -> tuple[HostOp, tuple[ir.Value, ...]]:
    """The module of a node, and the values that it takes."""
    host, values = host_node(node, opsets, weights)
    whole = whole_node(node, (host, values), {value: ((place,), None) for place, value in enumerate(values)})
    return HostOp(host, tuple(_dtype(value) for value in values), whole), values


def constant_on_host(value: ir.Value) -> HostOp:
    """A module that takes nothing and gives a constant that is no tensor of torch."""
    node = ir.node("Identity", [value])
    node.outputs[0].name = f"{value.name}/text"
    return host_op(node, {"": 21}, ())[0]


def _dtype(value: ir.Value) -> str:
    plain = isinstance(value.type, ir.TensorType) and value.dtype != ir.DataType.STRING
    return np.dtype(value.dtype.numpy()).name if plain and value.dtype is not None else ""


def _to_host(value: Any, dtype: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to_host(item, dtype) for item in value]
    if isinstance(value, torch.Tensor):
        return narrowed(to_numpy(value), dtype)
    return value


def _from_host(value: Any, device: torch.device) -> Any:
    if value is None or isinstance(value, list):
        return value if value is None else [_from_host(item, device) for item in value]
    return value if value.dtype == object else to_tensor(value).to(device)
