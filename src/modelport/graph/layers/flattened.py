"""Products with a matrix for which a tensor was flattened to rows and the result unflattened again."""

from __future__ import annotations

import onnx_ir as ir

from modelport.graph.shapes.info import ShapeInfo
from modelport.graph.splice import is_op, only_use, replace_outputs


def unflatten_products(model: ir.Model, info: ShapeInfo) -> int:
    """Multiply a tensor by a matrix as it is, without the Reshapes around it, in place; how many products there were.

    MatMul takes tensors of any rank. Where nothing stands between it and what it reads, runtimes find more in it.

    Args:
        model: the graph.
        info: its shapes.
    """
    products = [node for node in model.graph.all_nodes() if node.op_type == "MatMul" and not node.domain]
    return sum(_unflatten(product, info) for product in products)


def _unflatten(product: ir.Node, info: ShapeInfo) -> bool:
    rows, matrix = product.inputs[:2]
    behind = only_use(product.outputs[0])
    before = rows.producer() if rows is not None and is_op(rows, "Reshape") else None
    if before is None or behind is None or behind.op_type != "Reshape" or behind.domain:
        return False
    x, result = before.inputs[0], behind.outputs[0]
    if x is None or rows is None or matrix is None or behind.inputs[0] is not product.outputs[0]:
        return False
    dims, flat, sizes, wanted = (info.dims(value) for value in (x, rows, matrix, result))
    if dims is None or flat is None or sizes is None or wanted is None or len(flat) != 2 or len(sizes) != 2:
        return False
    if dims[-1:] != flat[-1:] or wanted != (*dims[:-1], sizes[-1]):
        return False
    replace_outputs([result], "MatMul", [x, matrix], name=product.name, at=product)
    return True
