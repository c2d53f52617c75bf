"""Sizes that Keras does not know, made from tensors that have them.

A Keras tensor has no size that one could compute with. But a slice of a tensor has the length, and ones of that
length can be added up: every named dimension has a vector of zeros, its *witness*, and from those come the size as a
scalar, a range of numbers, and a tensor of any shape in those dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from keras import ops

from modelport.backends.keras.ops.registry import NeedsValues
from modelport.backends.keras.ops.tensors import along, plus, zeros_along
from modelport.graph.shapes.expr import Atom, Call, Expr, Size


class Lengths:
    """Sizes as tensors.

    Args:
        tensor_of: the Keras tensor and the axis in which the size behind a symbol can be read; `None` where it is no
            size of a tensor.
    """

    def __init__(self, tensor_of: Callable[[str], tuple[Any, int] | None]) -> None:
        self._tensor_of = tensor_of
        self._witnesses: dict[str, Any] = {}
        self._scalars: dict[Size, Any] = {}

    def witness(self, symbol: str) -> Any:
        """Zeros (n,) of int64 for a named dimension.

        Raises:
            NeedsValues: no tensor has the size.
        """
        if symbol not in self._witnesses:
            found = self._tensor_of(symbol)
            if found is None:
                raise NeedsValues(f"the size {symbol!r} is a value that only the run tells")
            self._witnesses[symbol] = zeros_along(*found)
        return self._witnesses[symbol]

    def scalar(self, size: Size) -> Any:
        """A size as an int64 scalar: a Python number where it is known."""
        if not isinstance(size, Expr):
            return int(size)
        if size not in self._scalars:
            self._scalars[size] = self._computed(size)
        return self._scalars[size]

    def _computed(self, size: Expr) -> Any:
        bottom = math.lcm(*(Fraction(coefficient).denominator for coefficient in size.terms.values()))
        total: Any = 0
        for monomial, coefficient in size.terms.items():
            term: Any = int(coefficient * bottom)
            for atom, power in monomial:
                for _ in range(power):
                    term = ops.multiply(self._atom(atom), term)
            total = plus(term, total)
        return total if bottom == 1 else ops.floor_divide(total, bottom)

    def _atom(self, atom: Atom) -> Any:
        if isinstance(atom, str):
            return ops.sum(plus(self.witness(atom), 1))
        if atom.function == "floor":
            return self.scalar(atom.args[0])
        left, *rest = (self.scalar(arg) for arg in atom.args)
        function = {"//": ops.floor_divide, "min": ops.minimum, "max": ops.maximum}[atom.function]
        for right in rest:
            left = function(left, right)
        return left

    def zeros(self, size: Size) -> Any:
        """Zeros (size,) of int64.

        Raises:
            NeedsValues: the size is no sum of products of named dimensions.
        """
        if not isinstance(size, Expr):
            return np.zeros(int(size), np.int64)
        pieces, cut = [], 0
        for monomial, coefficient in size.terms.items():
            if not monomial and coefficient < 0:
                cut = -int(coefficient)
                continue
            if coefficient < 0 or Fraction(coefficient).denominator != 1:
                raise NeedsValues(f"the size {size} is no sum of named dimensions")
            pieces.append(self._product(monomial, int(coefficient)))
        whole = pieces[0] if len(pieces) == 1 else ops.concatenate(pieces)
        return whole[(slice(cut, None),)] if cut else whole

    def _product(self, monomial: Any, coefficient: int) -> Any:
        factors = [np.zeros(coefficient, np.int64)] if coefficient != 1 or not monomial else []
        for atom, power in monomial:
            factors += [self.witness(atom) if isinstance(atom, str) else self._of_call(atom)] * power
        whole = factors[0]
        for factor in factors[1:]:
            whole = ops.reshape(plus(ops.expand_dims(whole, 1), ops.expand_dims(factor, 0)), (-1,))
        return whole

    def _of_call(self, atom: Call) -> Any:
        if atom.function == "floor" and isinstance(atom.args[0], Expr):
            inner = atom.args[0]
            bottom = math.lcm(*(Fraction(c).denominator for c in inner.terms.values()))
            # Every bottom-th element of the numerator's zeros.
            return self.zeros(inner * bottom)[(slice(bottom - 1, None, bottom),)]
        if atom.function == "max" and 0 in atom.args and len(atom.args) == 2:
            # What is cut off more than there is leaves nothing.
            return self.zeros(next(arg for arg in atom.args if arg != 0))
        if atom.function == "min":
            most = min((arg for arg in atom.args if isinstance(arg, int)), default=None)
            rest = [arg for arg in atom.args if isinstance(arg, Expr)]
            if most is not None and len(rest) == 1:
                return self.zeros(rest[0])[(slice(0, most),)]
        raise NeedsValues(f"the size {atom} is no sum of named dimensions")

    def arange(self, size: Size) -> Any:
        """0, 1 ... size - 1 of int64."""
        if not isinstance(size, Expr):
            return np.arange(int(size))
        return ops.subtract(ops.cumsum(plus(self.zeros(size), 1)), 1)

    def zeros_of(self, shape: tuple[Size, ...]) -> Any:
        """Zeros of int64 in a shape."""
        if not shape:
            return np.zeros((), np.int64)
        total: Any = None
        for axis, size in enumerate(shape):
            row = along(self.zeros(size), axis, len(shape))
            total = row if total is None else plus(total, row)
        return total

    def places(self, shape: tuple[Size, ...]) -> Any:
        """The flat place of every element of a tensor of a shape."""
        total: Any = np.zeros((1,) * len(shape), np.int64)
        for axis, size in enumerate(shape):
            total = plus(ops.multiply(total, self.scalar(size)), along(self.arange(size), axis, len(shape)))
        return total
