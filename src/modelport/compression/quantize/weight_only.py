"""Weights in 4 or 8 bits by blocks, activations in float."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from modelport.compression.quantize.hessians import hessians
from modelport.compression.quantize.rounding import Bits, Blocks, compensated, nearest
from modelport.compression.quantize.weights import Matrix, find_matrices, write
from modelport.core.errors import StepError
from modelport.core.signature import Arrays, Signature
from modelport.core.steps import Quantize
from modelport.graph.named import Named


def quantize_weights(
    model: ir.Model, step: Quantize, excluded: Named, signature: Signature, data: Arrays | None
) -> dict[str, str]:
    """Store the weights of products and tables as integers by blocks, in place.

    A weight that a table and a product share stays one.

    Args:
        model: a graph in normal form.
        step: says in how many bits, how large a block is, and how numbers are rounded.
        excluded: the layers that stay in float.
        signature: of the graph.
        data: rows that the inputs of products are observed on, by input name, where the step needs them.

    Returns:
        Why a node with weights stays in float, by its name.

    Raises:
        StepError: there is no weight to store so.
    """
    bits: Bits = 4 if step.precision == "int4" else 8
    matrices, alone = find_matrices(model, excluded, step.block_size)
    if not matrices:
        told = "".join(f"\n  {name}: {reason}" for name, reason in alone.items()) or " it has no such layer."
        raise StepError(f"{step} finds no weight that it can store by blocks of {step.block_size}:{told}")
    for matrix, blocks in _rounded(model, matrices, step, bits, signature, data):
        write(model, matrix, blocks, bits)
    return alone


def _rounded(
    model: ir.Model, matrices: list[Matrix], step: Quantize, bits: Bits, signature: Signature, data: Arrays | None
) -> Iterator[tuple[Matrix, Blocks]]:
    left = list(matrices)
    if step.algorithm == "gptq":
        assert data is not None
        for name, hessian in hessians(model.clone(), _wanted(matrices), signature, data):
            for matrix in [each for each in left if _input(each) == name]:
                yield matrix, compensated(matrix.columns, hessian, step.block_size, bits)
                left.remove(matrix)
    for matrix in left:
        yield matrix, nearest(matrix.columns, step.block_size, bits)


def _input(matrix: Matrix) -> str | None:
    """The name of what a weight multiplies; `None` for a table, and for a weight of several inputs."""
    names = {str(value.name) for value, _ in matrix.products.values()}
    return names.pop() if len(names) == 1 else None


def _wanted(matrices: list[Matrix]) -> list[tuple[str, int, int]]:
    found = {}
    for matrix in matrices:
        if (name := _input(matrix)) is not None:
            axis = next(iter(matrix.products.values()))[1]
            found[name] = (name, axis, matrix.columns.shape[1])
    return list(found.values())
