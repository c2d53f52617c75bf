"""Scales and zero points as arithmetic has them: constants and weights in a shape that broadcasts against the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelport.graph.names import unique_name
from modelport.graph.splice import insert
from modelport.graph.weights import roles

INTEGERS = {
    kind: (np.iinfo(kind.numpy()).min, np.iinfo(kind.numpy()).max)
    for kind in (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
}
"""What QuantizeLinear makes, and its limits."""

_RESHAPES = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Setting:
    """A scale or a zero point.

    Attributes:
        root: the initializer that it comes from.
        array: its numbers in the shape in which they broadcast.
    """

    root: ir.Value
    array: np.ndarray

    def blocks(self, shape: tuple[object, ...]) -> tuple[int, int] | None:
        """The axis along which every number holds for a block of the data, and the length of a block.

        The last block may be shorter. `None` where there are no blocks.
        """
        tensor = self.root.const_value
        kept = () if tensor is None else tuple(tensor.shape.numpy())
        if tensor is None or self.array.shape != shape or len(kept) != len(shape):
            return None
        axes = [axis for axis, size in enumerate(kept) if size != shape[axis]]
        if len(axes) != 1:
            return None
        (axis,), numbers = axes, tensor.numpy()
        size, count = self.array.shape[axis], kept[axis]
        for length in range(-(-size // count), size + 1):
            repeated = np.repeat(numbers, length, axis)
            if -(-size // length) == count and np.array_equal(np.take(repeated, range(size), axis), self.array):
                return axis, length
        return None

    def axis(self, shape: tuple[object, ...]) -> int | None:
        """The only axis of the data along which it has more than one number; -1 where it has one for all.

        `None` where it has them along several axes, or broadcasting would make the data larger.
        """
        if self.array.ndim > len(shape):
            return None
        if self.array.size == 1:
            return -1
        first = len(shape) - self.array.ndim
        axes = [first + place for place, size in enumerate(self.array.shape) if size != 1]
        return axes[0] if len(axes) == 1 and shape[axes[0]] == self.array.size else None


class Settings:
    """Reads the settings of a graph, and writes them as the operators take them.

    Args:
        model: the graph.
    """

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._roles = roles(model)
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def read(self, value: ir.Value | None) -> Setting | None:
        """What a value is, where it is a constant or a weight that no gradient reaches, cast and reshaped or not."""
        steps: list[ir.Node] = []
        while value is not None and (node := value.producer()) is not None:
            if node.domain or node.op_type not in _RESHAPES | {"Cast", "Gather"}:
                return None
            steps.append(node)
            value = node.inputs[0]
        if value is None or value.const_value is None or self._roles.get(str(value.name)) == "parameter":
            return None
        array = value.const_value.numpy()
        for node in reversed(steps):
            moved = _step(node, array)
            if moved is None:
                return None
            array = moved
        return Setting(value, array)

    def write(self, setting: Setting, dtype: ir.DataType, shape: tuple[int, ...], before: ir.Node) -> ir.Value:
        """A setting in a dtype and a shape: what it comes from where that has both, else a constant.

        A weight that has another shape is reshaped, and one of another dtype is cast, so that it stays the weight.
        """
        root, tensor = setting.root, setting.root.const_value
        assert tensor is not None
        one = setting.array.size == 1 and tuple(tensor.shape.numpy()) in ((), (1,)) and len(shape) < 2
        fits = tensor.dtype == dtype and (one or tuple(tensor.shape.numpy()) == shape)
        if fits and root.name not in self._roles:
            array = tensor.numpy()
            return self._made.setdefault((dtype, array.dtype.str, array.shape, array.tobytes()), root)
        if fits:
            return root
        if root.name in self._roles:
            value = root if tensor.dtype == dtype else insert(before, "Cast", [root], {"to": dtype.value})
            value.type = ir.TensorType(dtype)
            target = self.constant(np.array(shape, np.int64), f"{root.name}.shape")
            value = insert(before, "Reshape", [value, target])
            value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
            return value
        return self.constant(setting.array.reshape(shape).astype(dtype.numpy()), str(root.name), dtype)

    def constant(self, array: np.ndarray, name: str, dtype: ir.DataType | None = None) -> ir.Value:
        """A new constant; one for all that are equal."""
        key = (dtype, array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            label = unique_name(name, self._graph.initializers)
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype, name=label)
            kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
            self._made[key] = ir.Value(name=label, type=kind, shape=shape, const_value=tensor)
            self._graph.register_initializer(self._made[key])
        return self._made[key]


def _step(node: ir.Node, array: np.ndarray) -> np.ndarray | None:
    """An array behind a Cast, in another shape, or with some of its numbers repeated."""
    result = node.outputs[0]
    if node.op_type == "Cast":
        return array.astype(ir.DataType(node.attributes.get_int("to", 1)).numpy())
    if node.op_type == "Gather":
        places = None if node.inputs[1] is None else node.inputs[1].const_value
        axis = node.attributes.get_int("axis", 0)
        return None if places is None else np.take(array, places.numpy(), axis)
    if result.shape is None or not all(isinstance(size, int) for size in result.shape):
        return None
    return array.reshape(tuple(result.shape.numpy()))


def whole_numbers(array: np.ndarray, limits: tuple[int, int]) -> bool:
    """Whether every number is an integer within limits."""
    numbers = array.astype(np.float64)
    inside = (numbers >= limits[0]) & (numbers <= limits[1])
    return bool(np.isfinite(numbers).all() and inside.all() and (numbers == np.round(numbers)).all())
