"""What a chain of Reshapes, Transposes and selections makes of a tensor: its axes as products of factors, reordered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import onnx_ir as ir

from modelport.graph.shapes.expr import Expr, Size, exact_div, parse, product

Perm = Sequence[int]


@dataclass(frozen=True, eq=False)
class Factor:
    """One of the sizes whose product an axis is; it is told from others by being itself."""

    size: Size


Axis = tuple[Factor, ...]
"""The factors of an axis from the slowest to the fastest; none where its size is 1."""


@dataclass(frozen=True)
class View:
    """A tensor as the elements of another one.

    Attributes:
        base: the other one.
        source: the axes of `base`.
        axes: the axes of the tensor, of the same factors.
        picked: the one index at which a factor was taken; such a factor is in `source` only.
        length: how many operators lead from `base` to the tensor.
    """

    base: ir.Value
    source: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    picked: dict[Factor, int] = field(default_factory=dict)
    length: int = 0

    @classmethod
    def of(cls, value: ir.Value) -> View | None:
        """A value as itself; `None` where its rank or a size is not known."""
        sizes = sizes_of(value)
        if sizes is None:
            return None
        axes = tuple(() if size == 1 else (Factor(size),) for size in sizes)
        return cls(value, axes, axes)

    @property
    def sizes(self) -> tuple[Size, ...]:
        return tuple(product(factor.size for factor in axis) for axis in self.axes)

    @property
    def is_base(self) -> bool:
        """Whether the tensor is `base` itself."""
        return self.source == self.axes and not self.picked

    def transposed(self, perm: Perm) -> View:
        return self._longer(tuple(self.axes[axis] for axis in perm))

    def reshaped(self, sizes: Sequence[Size]) -> View | None:
        """The same elements in other sizes; `None` where axes are not joined and split along factors."""
        view, axes = self, list[Axis]()
        queue = [factor for axis in self.axes for factor in axis]
        for size in sizes:
            group: list[Factor] = []
            while (left := _quotient(size, product(factor.size for factor in group))) != 1:
                if left is None or not queue:
                    return None
                first = queue.pop(0)
                if _quotient(left, first.size) is None:
                    rest = _quotient(first.size, left)
                    if rest is None:
                        return None
                    parts = Factor(left), Factor(rest)
                    view, first = view._split(first, parts), parts[0]
                    queue.insert(0, parts[1])
                group.append(first)
            axes.append(tuple(group))
        return None if queue else view._longer(tuple(axes))

    def selected(self, axis: int, index: int, parts: int | None = None) -> View | None:
        """One index of an axis, which goes; or one of `parts` equal parts of it, which stays."""
        view: View | None = self
        if parts is not None:
            sizes = self.sizes
            inner = _quotient(sizes[axis], parts)
            if inner is None:
                return None
            view = self.reshaped((*sizes[:axis], parts, inner, *sizes[axis + 1 :]))
        if view is None or len(view.axes[axis]) != 1 or not isinstance(view.axes[axis][0].size, int):
            return None
        rest = (*view.axes[:axis], *view.axes[axis + 1 :])
        return replace(view, axes=rest, picked={**view.picked, view.axes[axis][0]: index}, length=self.length + 1)

    def _longer(self, axes: tuple[Axis, ...]) -> View:
        return replace(self, axes=axes, length=self.length + 1)

    def _split(self, factor: Factor, parts: Axis) -> View:
        return replace(
            self,
            source=tuple(_split(axis, factor, parts) for axis in self.source),
            axes=tuple(_split(axis, factor, parts) for axis in self.axes),
        )


def sizes_of(value: ir.Value) -> tuple[Size, ...] | None:
    """The sizes of a value's axes; `None` where one is not known."""
    if value.shape is None:
        return None
    sizes = [dim if isinstance(dim, int) else None if dim.value is None else parse(dim.value) for dim in value.shape]
    return None if any(size is None or size == 0 for size in sizes) else tuple(s for s in sizes if s is not None)


def _split(axis: Axis, factor: Factor, parts: Axis) -> Axis:
    return tuple(part for each in axis for part in (parts if each is factor else (each,)))


def _quotient(a: Size, b: Size) -> Size | None:
    """a / b where it is a whole number or an expression of whole numbers."""
    found = exact_div(a, b)
    if found is None or (isinstance(found, Fraction) and found.denominator != 1):
        return None
    if isinstance(found, Expr):
        return found if all(Fraction(number).denominator == 1 for number in found.terms.values()) else None
    return int(found)


@dataclass(frozen=True)
class Step:
    """One operator on the way from the base of a view to the view.

    Attributes:
        op_type: `Reshape`, `Transpose` or `Gather`.
        argument: the permutation, or the axis and the index, or the sizes as text.
        sizes: of its result.
    """

    op_type: str
    argument: tuple[Any, ...]
    sizes: tuple[Size, ...]


def steps(view: View) -> list[Step]:
    """The operators that a view takes: factors apart, into their order, one index taken, factors together."""
    found: list[Step] = []
    flat = [factor for axis in view.source for factor in axis]
    wanted = [factor for axis in view.axes for factor in axis]
    order = [*view.picked, *wanted]
    sizes = tuple(factor.size for factor in flat)
    if order == flat and not view.picked:
        return found if view.is_base else [_reshape(view.sizes)]
    if any(len(axis) != 1 for axis in view.source):
        found.append(_reshape(sizes))
    if order != flat:
        sizes = tuple(factor.size for factor in order)
        found.append(Step("Transpose", tuple(flat.index(factor) for factor in order), sizes))
    for index in view.picked.values():
        sizes = sizes[1:]
        found.append(Step("Gather", (0, index), sizes))
    if any(len(axis) != 1 for axis in view.axes):
        found.append(_reshape(view.sizes))
    return found


def _reshape(sizes: tuple[Size, ...]) -> Step:
    return Step("Reshape", tuple(map(str, sizes)), sizes)


def target(have: Sequence[Size], want: Sequence[Size]) -> list[int] | None:
    """The second input of a Reshape: 0 where a size is kept, -1 for one that is not known; `None` for more of those."""
    kept = [axis < len(have) and have[axis] == size for axis, size in enumerate(want)]
    found = [size if isinstance(size, int) else 0 if kept[axis] else -1 for axis, size in enumerate(want)]
    return found if found.count(-1) <= 1 else None
