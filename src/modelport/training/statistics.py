"""BatchNormalization that learns, and how many values it has to measure."""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from modelport.core.errors import DataError
from modelport.core.signature import Signature
from modelport.core.training import Batch
from modelport.graph.shapes.expr import Expr
from modelport.graph.shapes.infer import infer


class Measured:
    """The normalizations of a graph that measure each batch.

    Args:
        graph: in normal form.
        signature: of the batches.
        frozen: the names of the weights that do not learn; a normalization that has no others measures nothing.
    """

    def __init__(self, graph: ir.Model, signature: Signature, frozen: Collection[str]) -> None:
        info, self._signature = infer(graph), signature
        self._sizes: dict[str, list[int | Expr]] = {}
        for node in graph.graph:
            if node.op_type != "BatchNormalization" or node.domain or node.inputs[0] is None:
                continue
            dims, own = info.dims(node.inputs[0]), [value.name for value in node.inputs[1:3] if value is not None]
            if dims is not None and not all(name in frozen for name in own):
                self._sizes[str(node.name)] = [
                    dim if isinstance(dim, Expr) else int(dim) for axis, dim in enumerate(dims) if axis != 1
                ]

    def check(self, batch: Batch) -> None:
        """Refuse a batch that has one value per channel: it is its own mean, and has no variance.

        Raises:
            DataError: it does.
        """
        sizes = self._signature.sizes(batch.inputs)
        for name, dims in self._sizes.items():
            if all(isinstance(dim, int) or dim.symbols() <= set(sizes) for dim in dims):
                count = math.prod(dim if isinstance(dim, int) else dim.evaluate(sizes) for dim in dims)
                if count < 2:
                    raise DataError(
                        f"a batch has one value per channel for the BatchNormalization {name!r}, which needs two or "
                        "more to measure: give batches of more rows, or freeze this layer."
                    )
