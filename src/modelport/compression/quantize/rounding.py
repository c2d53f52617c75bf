"""A matrix in few bits, by blocks: integers with a scale and a zero point for each block of every column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from modelport.graph.upgrade.contrib_quantized import unpacked

Bits = Literal[4, 8]

_BLOCKS_AT_ONCE = 1 << 16
_REFINEMENTS = 3
_SHARES = (0.8, 0.85, 0.9, 0.95)
"""Of the range of a block, that its 16 steps are spread over."""

_HALF_DIGITS = 2.0**-10
"""What float16 may take from a scale, relative to it."""

_DAMPING = 0.01
"""Of the mean of the Hessian's diagonal, that is added to it (Frantar et al. 2023, section 3.3)."""


@dataclass(frozen=True)
class Blocks:
    """A matrix (columns, rows) of integers; `scale * (steps - zero)` is what it stands for.

    Attributes:
        steps: uint8, (columns, rows), from 0 to `2 ** bits - 1`.
        scale: float16, or float32 where a number is outside its range, (columns, blocks).
        zero: uint8, (columns, blocks).
        size: rows of a block; the last block of a column may have fewer.
    """

    steps: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    size: int

    def numbers(self) -> np.ndarray:
        """The matrix in float32, (columns, rows)."""
        rows = self.steps.shape[1]
        scale, zero = (np.repeat(x.astype(np.float32), self.size, 1)[:, :rows] for x in (self.scale, self.zero))
        return scale * (self.steps - zero)


def nearest(matrix: np.ndarray, size: int, bits: Bits) -> Blocks:
    """Every number rounded to the nearest step.

    The steps of a block are the nearest to it among those of ONNX Runtime's two searches, between the extremes and
    k-quant, and those that clip the extremes; their scale is then fitted by least squares.

    Args:
        matrix: float32, (columns, rows).
        size: rows of a block.
        bits: of an integer.
    """
    rows = matrix.shape[1]
    count = -(-rows // size)
    padded = np.pad(matrix, ((0, 0), (0, count * size - rows))).reshape(-1, size)
    steps, scale, zero = np.empty(padded.shape, np.uint8), np.empty((len(padded), 1)), np.empty((len(padded), 1))
    for start in range(0, len(padded), _BLOCKS_AT_ONCE):
        part = slice(start, start + _BLOCKS_AT_ONCE)
        scale[part], zero[part] = _nearer(padded[part], bits)
    scale = _stored(scale)
    for start in range(0, len(padded), _BLOCKS_AT_ONCE):
        part = slice(start, start + _BLOCKS_AT_ONCE)
        divided = padded[part] / np.where(scale[part] == 0, 1, scale[part]).astype(np.float32)
        steps[part] = np.clip(np.round(divided) + zero[part], 0, 2**bits - 1)
    return _blocks(steps, scale, zero, (len(matrix), rows), size)


def _nearer(blocks: np.ndarray, bits: Bits) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of blocks (blocks, size): the nearest to each that the searches come by."""
    scale, zero, error = _of_least_error(
        blocks, [_between_extremes(blocks, bits), _least_squares(blocks, bits), *_shrunk(blocks, bits)]
    )
    for _ in range(_REFINEMENTS):
        offsets = _steps(blocks, scale, zero, bits) - zero
        squares = np.square(offsets).sum(1, keepdims=True)
        # The scale of least squared error for given steps is that of a regression through the origin.
        fitted = np.where(squares > 0, (blocks * offsets).sum(1, keepdims=True) / np.maximum(squares, 1), scale)
        found = np.square(fitted * (_steps(blocks, fitted, zero, bits) - zero) - blocks).sum(1, keepdims=True)
        better = found < error
        scale, error = np.where(better, fitted, scale), np.where(better, found, error)
    return scale, zero


def _of_least_error(
    blocks: np.ndarray, grids: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, zero point and squared error of the grid that is nearest to each block; the first one where none is."""
    scale = zero = error = np.empty(0)
    for place, (steps, other_scale, other_zero) in enumerate(grids):
        found = np.square(other_scale * (steps - other_zero) - blocks).sum(1, keepdims=True)
        if place == 0:
            scale, zero, error = other_scale, other_zero, found
            continue
        better = found < error
        scale, zero = np.where(better, other_scale, scale), np.where(better, other_zero, zero)
        error = np.where(better, found, error)
    return scale, zero, error


def _steps(blocks: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: Bits) -> np.ndarray:
    return np.clip(np.round(blocks / np.where(scale == 0, 1, scale)) + zero, 0, 2**bits - 1)


def _shrunk(blocks: np.ndarray, bits: Bits) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Grids that clip the extremes, for the gain in all that lies between."""
    if bits > 4:
        return
    low, high = np.minimum(blocks.min(1, keepdims=True), 0), np.maximum(blocks.max(1, keepdims=True), 0)
    for share in _SHARES:
        scale = share * (high - low) / (2**bits - 1)
        zero = np.round(-share * low / np.where(scale == 0, 1, scale))
        yield _steps(blocks, scale, zero, bits), scale, zero


def _between_extremes(blocks: np.ndarray, bits: Bits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    size = blocks.shape[1]
    kernel = DefaultWeightOnlyQuantizer(DefaultWeightOnlyQuantConfig(block_size=size, bits=bits))
    packed, scale, zero = kernel.qbits_block_quant(np.ascontiguousarray(blocks.T))
    steps = unpacked(packed, bits).reshape(-1, size).astype(np.float64)
    return steps, scale.astype(np.float64), unpacked(zero, bits)[:, :1].astype(np.float64)


def _least_squares(blocks: np.ndarray, bits: Bits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    # A block of one number only has no steps to search; its error is not a number, and the other search is taken.
    with np.errstate(all="ignore"):
        steps, scale, zero = quant_tensor_k_quant_cpu(blocks, bits, blocks.shape[1])
    return steps, scale, zero.astype(np.float64)


def compensated(matrix: np.ndarray, hessian: np.ndarray, size: int, bits: Bits) -> Blocks:
    """Every number rounded so that the numbers after it make up for what the rounding did to the products.

    GPTQ (Frantar et al. 2023, algorithm 1): with `U` the upper Cholesky factor of the inverse Hessian, a rounding error
    `e` of row i takes `U[i, j] / U[i, i] * e` from each row j after it. The scale of a block is found, as in `nearest`,
    when all rows before it are rounded. ONNX Runtime's own `gptq` reads the factor across, where it is zero, and so
    rounds to the nearest.

    Args:
        matrix: float32, (columns, rows).
        hessian: the sum of `x x^T` over inputs x of the product, (rows, rows).
        size: rows of a block.
        bits: of an integer.
    """
    rows = matrix.shape[1]
    factor = _inverse_factor(hessian)
    left = np.ascontiguousarray(matrix.T, np.float32)
    steps, scales, zeros = np.empty(left.shape, np.float32), [], []
    for start in range(0, rows, size):
        end = min(start + size, rows)
        part = nearest(np.ascontiguousarray(left[start:end].T), size, bits)
        scale, zero = part.scale[:, 0].astype(np.float32), part.zero[:, 0].astype(np.float32)
        scales.append(scale)
        zeros.append(zero)
        errors = np.empty((end - start, len(matrix)), np.float32)
        for row in range(start, end):
            now = np.round(left[row] / np.where(scale == 0, 1, scale)) + zero
            steps[row] = np.clip(now, 0, 2**bits - 1)
            errors[row - start] = (left[row] - scale * (steps[row] - zero)) / factor[row, row]
            left[row + 1 : end] -= np.outer(factor[row, row + 1 : end], errors[row - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return _blocks(steps.T, _stored(np.stack(scales, 1)), np.stack(zeros, 1), (len(matrix), rows), size)


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor of the inverse of a damped Hessian, float32."""
    damped = hessian.astype(np.float64)
    diagonal = np.einsum("ii->i", damped)
    diagonal += _DAMPING * (diagonal.mean() or 1.0)
    return np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)


def _blocks(steps: np.ndarray, scale: np.ndarray, zero: np.ndarray, shape: tuple[int, int], size: int) -> Blocks:
    columns, rows = shape
    return Blocks(
        np.ascontiguousarray(steps.reshape(columns, -1)[:, :rows].astype(np.uint8)),
        scale.reshape(columns, -1),
        zero.reshape(columns, -1).astype(np.uint8),
        size,
    )


def _stored(scale: np.ndarray) -> np.ndarray:
    """Scales in float16, or in float32 where one is too small or too large for it."""
    with np.errstate(over="ignore"):
        narrow = scale.astype(np.float16)
    is_inside = (np.abs(narrow - scale) <= _HALF_DIGITS * np.abs(scale)).all()
    return narrow if is_inside else scale.astype(np.float32)
