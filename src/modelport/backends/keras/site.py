"""One node during the build, as the operators' functions see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from keras import layers, ops

from modelport.backends.keras.build_layers import dropped
from modelport.backends.keras.ops.math import to_dtype
from modelport.backends.keras.ops.registry import NeedsValues
from modelport.backends.keras.ops.tensors import along, cast, chosen, dtype, is_float, plus, positive, rank
from modelport.graph.shapes.expr import Expr, Size, ceil, exact_div, is_at_least

if TYPE_CHECKING:
    from modelport.backends.keras.build import Program


class Site:
    """What a function may ask about its node, and what it may make of sizes that Keras does not know."""

    def __init__(self, program: Program, node: ir.Node) -> None:
        self.program, self.node = program, node
        self.lengths = program.lengths

    def dims(self, index: int) -> tuple[Size, ...]:
        """The sizes of an input.

        Raises:
            NeedsValues: its rank is not known.
        """
        return self._dims(self.node.inputs[index])

    def has_size(self, size: Size, axis: int) -> bool:
        """Whether an axis of the first input has a size that is not static."""
        return isinstance(size, Expr) and size == self.dims(0)[axis]

    def output_dims(self) -> tuple[Size, ...]:
        """The sizes of the first output."""
        return self._dims(self.node.outputs[0])

    def _dims(self, value: ir.Value | None) -> tuple[Size, ...]:
        found = None if value is None else self.program.info.dims(value)
        if found is None:
            raise NeedsValues("a rank is not known")
        return found

    def dropped(self, x: Any, ratio: float) -> Any:
        """A tensor of which a share is dropped in training."""
        return dropped(self.program, self.node, x, ratio)

    def reshape(self, x: Any, target: tuple[Any, ...]) -> Any:
        """A tensor in a shape of which more than one size is not static."""
        own = self.dims(0)
        if -1 in target or not all(isinstance(size, int | Expr) for size in target):
            target = self.output_dims()
        unknown = [axis for axis, size in enumerate(target) if not isinstance(size, int)]
        if len(unknown) == 1:
            return ops.reshape(x, tuple(-1 if axis in unknown else size for axis, size in enumerate(target)))
        if len(unknown) == 2 and unknown[0] == 0 and own and target[0] == own[0] and rank(x) > 1 and dtype(x) != "bool":
            rest = tuple(-1 if axis in unknown else size for axis, size in enumerate(target))[1:]
            # An integer dtype is no policy of a layer: Keras takes int8 for a way to quantize.
            return layers.Reshape(rest, dtype=dtype(x) if is_float(x) else None)(x)
        # An index per element: Keras has no reshape to a shape that only the run tells.
        last = unknown[-1] + 1
        rows = ops.reshape(x, (-1, *target[last:]))
        return ops.take(rows, self.lengths.places(target[:last]), axis=0)

    def expand(self, x: Any, target: tuple[Any, ...], missing: int) -> Any:
        """A tensor of the target's rank, broadcast; `missing` of its first axes are new."""
        own = (1,) * missing + self.dims(0)
        copies: list[int] = []
        shape: list[Size] = []
        for mine, size in zip(own, target, strict=True):
            if not isinstance(size, int | Expr):
                raise NeedsValues("a size is not static")
            copied = mine == 1 and isinstance(size, int)
            copies.append(size if copied and isinstance(size, int) else 1)
            shape.append(1 if copied or size == mine or size == 1 else size)
        if any(count != 1 for count in copies):
            x = ops.tile(x, copies)
        if all(size == 1 for size in shape):
            return x
        zeros = self.lengths.zeros_of(tuple(shape))
        if dtype(x) == "bool":
            return ops.logical_or(x, ops.cast(zeros, "bool"))
        return plus(x, cast(zeros, dtype(x)))

    def repeat(self, x: Any, axis: int, count: Size) -> Any:
        """A tensor over and over along one axis."""
        size = self.dims(0)[axis]
        if size == 1:
            return ops.take(x, self.lengths.zeros(count), axis=axis)
        places = ops.mod(self.lengths.arange(count * size), self.lengths.scalar(size))
        return ops.take(x, places, axis=axis)

    def pad(self, x: Any, pads: tuple[Any, ...], axes: tuple[int, ...] | None, value: Any) -> Any:
        """A tensor with something around it, as much as only the run tells: a value, or with `None` its edges."""
        axes = tuple(range(rank(x))) if axes is None else tuple(positive(axis, rank(x)) for axis in axes)
        own, padded = self.dims(0), self.output_dims()
        for axis, before in zip(axes, pads, strict=False):
            if before == 0 and padded[axis] == own[axis]:
                continue
            last = ops.subtract(self.lengths.scalar(own[axis]), 1)
            places = ops.subtract(self.lengths.arange(padded[axis]), self.lengths.scalar(before))
            inside = ops.logical_and(ops.greater_equal(places, 0), ops.less_equal(places, last))
            x = ops.take(x, ops.minimum(ops.maximum(places, 0), last), axis=axis)
            if value is not None:
                x = chosen(along(inside, axis, rank(x)), x, cast(np.asarray(value), dtype(x)))
        return x

    def full(self, shape: tuple[Any, ...], fill: np.ndarray) -> Any:
        """A tensor of one value."""
        zeros = self.lengths.zeros_of(shape)
        return to_dtype(zeros, "bool") if fill.dtype == bool and not fill else self._filled(zeros, fill)

    @staticmethod
    def _filled(zeros: Any, fill: np.ndarray) -> Any:
        if fill.dtype == bool:
            return ops.logical_not(ops.cast(zeros, "bool"))
        return plus(cast(zeros, dtype(fill)), fill)

    def arange(self, start: Size, limit: Size, step: Size, result: str) -> Any:
        """`start`, `start + step`, ... below `limit`."""
        if isinstance(step, Expr):
            raise NeedsValues("the step of a range is not static")
        span = limit - start
        count = span if step == 1 else ceil(exact_div(span, step) or span)
        numbers = ops.multiply(self.lengths.arange(count), step) if step != 1 else self.lengths.arange(count)
        return cast(plus(numbers, self.lengths.scalar(start)), result)

    def bounds(self, axis: int, start: Size, stop: Size) -> tuple[int | None, int | None] | None:
        """A slice's start and end as numbers counted from the front or the back; `None` where they are neither."""
        size = self.dims(0)[axis]
        first = start if isinstance(start, int) else self._from_back(start, size)
        last = stop if isinstance(stop, int) else None if is_at_least(stop, size) else self._from_back(stop, size)
        if first is None or (last is None and not isinstance(stop, int) and not is_at_least(stop, size)):
            return None
        return first, last

    @staticmethod
    def _from_back(place: Size, size: Size) -> int | None:
        distance = place - size
        return distance if isinstance(distance, int) and distance < 0 else None

    def take_range(self, x: Any, axis: int, start: Size, stop: Size, step: int) -> Any:
        """A slice between bounds that are not static."""
        size = self.dims(0)[axis]
        start, stop = (self._clamped(place, size) for place in (start, stop))
        return ops.take(x, self.arange(start, stop, step, "int64"), axis=positive(axis, rank(x)))

    @staticmethod
    def _clamped(place: Size, size: Size) -> Size:
        """A bound inside 0 and the size.

        Raises:
            NeedsValues: where it lies depends on the sizes.
        """
        if isinstance(place, int) and place < 0:
            place = place + size
        if is_at_least(place, size):
            return size
        if is_at_least(place, 0) and (is_at_least(size, place) or not isinstance(size, int)):
            return place
        if isinstance(place, Expr) and isinstance(size, int) and is_at_least(place, 0):
            # A weight is sliced to the length of the input (the first positions of an embedding): a longer input
            # cannot be meant, and takes fewer elements in the source.
            return place
        raise NeedsValues(f"whether the bound {place} lies inside the size {size} is known only at run time")
