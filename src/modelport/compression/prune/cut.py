"""Taking channels out: weights lose slices, and constants that say sizes are corrected."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from modelport.compression.prune.axes import Block, Digit, Layout, Lost
from modelport.graph.shapes.expr import Expr, Size, product
from modelport.graph.splice import ints


class Cut:
    """Which slots stay.

    Attributes:
        model: the graph that is being cut.
        keep: whether each slot stays.
    """

    def __init__(self, model: ir.Model, keep: np.ndarray) -> None:
        self.model = model
        self.keep = keep

    def digit(self, layout: Layout, digit: Digit) -> np.ndarray | None:
        """Which positions along a digit stay; `None` where all do."""
        block = layout.blocks.get(digit)
        return None if block is None else self._along(block, digit)

    def _along(self, block: Block, digit: Digit) -> np.ndarray | None:
        place = block.digits.index(digit)
        others = tuple(axis for axis in range(block.ids.ndim) if axis != place)
        kept = self.keep[block.ids].any(axis=others)
        return None if kept.all() else kept

    def mask(self, layout: Layout, axis: int) -> np.ndarray | None:
        """Which positions along an axis stay; `None` where all do.

        Raises:
            Lost: something goes from an axis that has a size which only the run tells.
        """
        masks = [self.digit(layout, digit) for digit in layout.axes[axis]]
        if all(mask is None for mask in masks):
            return None
        whole = np.ones(1, bool)
        for digit, mask in zip(layout.axes[axis], masks, strict=True):
            if not isinstance(digit.size, int):
                raise Lost("channels share an axis with a size that only the run tells")
            whole = np.outer(whole, np.ones(digit.size, bool) if mask is None else mask).ravel()
        return whole

    def size(self, layout: Layout, axis: int) -> Size:
        """How many positions along an axis stay."""
        masks = ((digit, self.digit(layout, digit)) for digit in layout.axes[axis])
        return product(digit.size if mask is None else int(mask.sum()) for digit, mask in masks)

    def touches(self, layout: Layout, axes: Iterable[int] | None = None) -> bool:
        """Whether anything goes from a value, or from some of its axes."""
        digits = (digit for axis in (range(len(layout.axes)) if axes is None else axes) for digit in layout.axes[axis])
        return any(self.digit(layout, digit) is not None for digit in digits)

    def kept(self, ids: np.ndarray) -> int:
        """How many of some slots stay."""
        return int(self.keep[ids].sum())

    def take(self, array: np.ndarray, layout: Layout) -> np.ndarray:
        """What stays of the data of a constant."""
        for axis in range(array.ndim):
            mask = self.mask(layout, axis)
            if mask is not None:
                array = np.compress(mask, array, axis)
        return array

    def rewrite(self, node: ir.Node, index: int, values: list[int] | int) -> None:
        """Let an input of a node be a new constant of integers."""
        node.replace_input_with(index, ints(self.model, f"{node.name}/cut_{index}", values))


class Sizes:
    """An input of a node that says sizes, such as the target of a Reshape: which entries can be corrected."""

    def __init__(self, node: ir.Node, index: int) -> None:
        self._node = node
        self._index = index
        value = node.inputs[index]
        self._parts: list[tuple[ir.Value, int]] | None = None if value is None else _parts(value)

    def constant(self, entry: int) -> int | None:
        """The number that stands at an entry; `None` where it is computed when the model runs."""
        if self._parts is None or entry >= len(self._parts):
            return None
        value, place = self._parts[entry]
        return None if value.const_value is None else int(value.const_value.numpy().ravel()[place])

    def can(self, entry: int) -> bool:
        """Whether an entry can be overwritten: it is constant, or computed on its own."""
        return (
            self._parts is not None
            and entry < len(self._parts)
            and (
                self.constant(entry) is not None
                or sum(1 for part, _ in self._parts if part is self._parts[entry][0]) == 1
            )
        )

    def correct(self, cut: Cut, sizes: dict[int, int]) -> None:
        """Put other numbers at some entries; the rest is computed as before."""
        if not sizes:
            return
        value = self._node.inputs[self._index]
        assert value is not None
        if value.const_value is not None:
            numbers = value.const_value.numpy().ravel().tolist()
            cut.rewrite(self._node, self._index, [sizes.get(place, number) for place, number in enumerate(numbers)])
            return
        concat = value.producer()
        assert concat is not None
        assert self._node.graph is not None
        fresh = ir.node("Concat", concat.inputs, {"axis": 0}, name=f"{self._node.name}/Concat_{self._index}")
        first = 0
        for index, part in enumerate(concat.inputs):
            numbers = [sizes.get(first + place, self.constant(first + place)) for place in range(int(part.shape[0]))]
            if None not in numbers:
                cut.rewrite(fresh, index, numbers)
            first += len(numbers)
        self._node.graph.insert_before(self._node, fresh)
        self._node.replace_input_with(self._index, fresh.outputs[0])


def _parts(value: ir.Value) -> list[tuple[ir.Value, int]] | None:
    """Where every entry of a vector comes from: a value, and the place there; `None` where that is not known."""
    if value.const_value is not None and value.producer() is None:
        return [(value, place) for place in range(value.const_value.size)]
    node = value.producer()
    if node is None or node.op_type != "Concat" or node.domain:
        return None
    parts = []
    for source in node.inputs:
        if source is None or source.shape is None or len(source.shape) != 1 or not isinstance(source.shape[0], int):
            return None
        parts += [(source, place) for place in range(source.shape[0])]
    return parts


def template(before: list[Size], after: list[Size]) -> list[int] | None:
    """The target of a Reshape from and to some sizes, with at most one that ONNX works out; `None` where it takes more.

    A size that only the run tells is copied (0) where the input has it on the same axis.
    """
    target: list[int] = []
    for axis, size in enumerate(after):
        if isinstance(size, Expr):
            target.append(0 if axis < len(before) and before[axis] == size else -1)
        else:
            target.append(int(size))
    return target if target.count(-1) < 2 else None
