"""Writing one operator of a graph anew, with operators of the newest opset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from modelport.core.errors import UnsupportedOpError
from modelport.graph.shapes.expr import Size
from modelport.graph.shapes.info import ShapeInfo

NORMAL_OPSET = onnx.defs.onnx_opset_version()
"""The opset of the normal form: the newest that the installed onnx knows."""


class Rewrite:
    """One node, and the operators that will stand for it.

    What `op` makes goes before the node, in order, and is of `NORMAL_OPSET`.

    Attributes:
        node: the node.
        version: its opset.
    """

    def __init__(self, model: ir.Model, node: ir.Node, version: int, info: ShapeInfo) -> None:
        self.node, self.version = node, version
        self._model, self._info = model, info
        self.made: list[ir.Node] = []

    def input(self, index: int) -> ir.Value | None:
        """An input; `None` where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def given(self, index: int) -> ir.Value:
        """An input that the operator cannot do without.

        Raises:
            UnsupportedOpError: it is left out.
        """
        value = self.input(index)
        if value is None:
            raise self.refused(f"its input {index} is missing")
        return value

    def used(self, index: int) -> bool:
        """Whether anything takes an output."""
        if index >= len(self.node.outputs):
            return False
        value = self.node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; strings, numbers, tuples."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def dims(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """What is known of a value's shape; `None` where its rank is not known."""
        return None if value is None else self._info.dims(value)

    def rank(self, value: ir.Value | None) -> int | None:
        dims = self.dims(value)
        return None if dims is None else len(dims)

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The numbers of a constant."""
        if value is None:
            return None
        if value.const_value is not None:
            return value.const_value.numpy()
        maker = value.producer()
        tensor = maker.attributes.get_tensor("value") if maker is not None and maker.op_type == "Constant" else None
        return None if tensor is None else tensor.numpy()

    def dtype(self, value: ir.Value) -> ir.DataType:
        """The dtype of a value; FLOAT where it is not known."""
        return self._info.dtype(value) or ir.DataType.FLOAT

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The output of a new operator."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, outputs: int, *inputs: ir.Value | None, **attributes: Any) -> Sequence[ir.Value]:
        """The outputs of a new operator."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        kept = {name: value for name, value in attributes.items() if value is not None}
        node = ir.node(op_type, given, kept, num_outputs=outputs)
        node.version = NORMAL_OPSET
        node.metadata_props.update(self.node.metadata_props)
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, node)
        self.made.append(node)
        return node.outputs

    def constant(self, array: Any, dtype: ir.DataType | None = None) -> ir.Value:
        """A constant, of integers where nothing else is said."""
        tensor = ir.tensor(np.asarray(array, np.int64) if dtype is None else np.asarray(array, dtype.numpy()))
        value = self.op("Constant", value=tensor)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape)
        return value

    def like(self, number: float, value: ir.Value) -> ir.Value:
        """A scalar constant in the dtype of a value."""
        return self.constant(number, self.dtype(value))

    def total(self, *values: ir.Value | None) -> ir.Value:
        """The sum of the values that there are."""
        present = [value for value in values if value is not None]
        found = present[0]
        for value in present[1:]:
            found = self.op("Add", found, value)
        return found

    def refused(self, reason: str) -> UnsupportedOpError:
        """The error that says why there is no way for the node."""
        kind = f"{self.node.domain}::{self.node.op_type}" if self.node.domain else self.node.op_type
        where = self.node.name or self.node.outputs[0].name or ""
        return UnsupportedOpError(
            f"{kind} (node {where!r}) of opset {self.version} cannot be brought to opset {NORMAL_OPSET}: {reason}. "
            "Export the model with a newer opset, without the optimisations of a runtime.",
            op_type=self.node.op_type,
            node=where,
        )


Rewriter = Callable[[Rewrite], "ir.Value | Sequence[ir.Value | None]"]
"""Writes a node anew; returns what takes the place of its outputs, `None` for one that nothing takes."""


def apply(rewriter: Rewriter, site: Rewrite, info: ShapeInfo) -> None:
    """Write a node anew, in place; its results keep their names."""
    node = site.node
    found = rewriter(site)
    results = [found] if isinstance(found, ir.Value) else list(found)[: len(node.outputs)]
    results += [None] * (len(node.outputs) - len(results))
    _name(site, results)
    for before, after in zip(node.outputs, results, strict=True):
        if after is None:
            continue
        name = before.name
        before.replace_all_uses_with(after, replace_graph_outputs=True)
        before.name = None if name is None else f"{name}/before"
        after.name, after.type, after.shape = name, before.type, before.shape
        info.adopt(after, before)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _name(site: Rewrite, results: Sequence[ir.Value | None]) -> None:
    """Name the new nodes after the old one: the one that gives the result is called as the old one was."""
    label = site.node.name or site.node.outputs[0].name or site.node.op_type
    last = next((value.producer() for value in results if value is not None), None)
    counts: dict[str, int] = {}
    for node in site.made:
        count = counts[node.op_type] = counts.get(node.op_type, 0) + 1
        suffix = node.op_type if count == 1 else f"{node.op_type}_{count - 1}"
        node.name = label if node is last else f"{label}/{suffix}"
        for index, value in enumerate(node.outputs):
            if value not in results:
                value.name = f"{label}/{suffix}/{index}" if index else f"{label}/{suffix}/out"
