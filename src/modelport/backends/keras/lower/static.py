"""What is known of a traced graph's tensors without running it: constants, and sizes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

_SIZES = frozenset({"Shape", "ShapeN", "Size", "Rank"})

_NEVER = frozenset({"Placeholder", "PlaceholderWithDefault", "ReadVariableOp", "VarHandleOp", "NoOp", "ResourceGather"})

_MOST = 1 << 24
"""Elements of the largest constant that is computed beforehand; a larger one is left to run time."""


class Unknown(NamedTuple):
    """A size that is not known: that of one axis of a tensor."""

    tensor: str
    axis: int


Size = int | Unknown


def sizes(tensor: Any) -> tuple[int | None, ...] | None:
    """The static shape of a symbolic tensor; `None` where its rank is not known."""
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


class Statics:
    """The constants of one graph.

    Args:
        graph: a `FuncGraph`.
        given: arrays for placeholders that are known, by tensor name.
    """

    def __init__(self, graph: Any, given: dict[str, np.ndarray]) -> None:
        self._values: dict[str, np.ndarray] = dict(given)
        self._known: set[str] = set(given)
        # Ops are in the order in which they were made, so that the inputs of each have been looked at before it.
        for op in graph.get_operations():
            if self._is_known(op) or self._is_size(op):
                self._known.update(tensor.name for tensor in op.outputs)

    def _is_known(self, op: Any) -> bool:
        if op.type in _SIZES:
            return all(tensor.shape.is_fully_defined() for tensor in op.inputs)
        if op.type in _NEVER or op.op_def.is_stateful or not op.outputs:
            return False
        if any(t.dtype.name in ("resource", "variant") for t in (*op.inputs, *op.outputs)) or _has_function(op):
            return False
        if any((t.shape.num_elements() or 0) > _MOST for t in op.outputs):
            return False
        return all(tensor.name in self._known for tensor in op.inputs)

    def _is_size(self, op: Any) -> bool:
        """Whether an op takes sizes that are known out of a shape that is not known as a whole; keeps them."""
        if op.type not in _ELEMENTS or len(op.outputs) != 1:
            return False
        (result,) = op.outputs
        if not result.dtype.is_integer or not result.shape.is_fully_defined():
            return False
        found = self.elements(result)
        if found is None or len(found) != result.shape.num_elements() or any(isinstance(n, Unknown) for n in found):
            return False
        self._values[result.name] = np.asarray(found, result.dtype.as_numpy_dtype).reshape(result.shape.as_list())
        return True

    def value(self, tensor: Any) -> np.ndarray | None:
        """The value of a tensor that does not depend on inputs or variables."""
        if tensor.name not in self._known:
            return None
        if tensor.name not in self._values:
            results = self._compute(tensor.op)
            self._values.update({t.name: array for t, array in zip(tensor.op.outputs, results, strict=True)})
        return self._values[tensor.name]

    def _compute(self, op: Any) -> list[np.ndarray]:
        import tensorflow as tf

        if op.type == "Const":
            return [tf.make_ndarray(op.get_attr("value"))]
        if op.type in _SIZES:
            return [
                _size_of(op.type, t, out.dtype.as_numpy_dtype) for t, out in zip(op.inputs, op.outputs, strict=True)
            ]
        inputs = [self.value(tensor) for tensor in op.inputs]
        with tf.device("CPU:0"):
            results = _execute(op, inputs)
        return [np.asarray(result) for result in results]

    def elements(self, tensor: Any, most: int = 64) -> list[Size] | None:
        """The elements of a small integer tensor (a shape, say), as far as they are known; a scalar has one."""
        constant = self.value(tensor)
        if constant is not None:
            whole = constant.dtype.kind in "iu" and constant.size <= most
            return [int(n) for n in constant.ravel()] if whole else None
        rule = _ELEMENTS.get(tensor.op.type)
        return None if rule is None else rule(self, tensor)


def _has_function(op: Any) -> bool:
    return any(attribute.type == "func" for attribute in op.op_def.attr)


def _size_of(kind: str, tensor: Any, dtype: Any) -> np.ndarray:
    shape = tensor.shape.as_list()
    what = {"Size": math.prod(shape), "Rank": len(shape)}.get(kind, shape)
    return np.asarray(what, dtype)


def _execute(op: Any, inputs: list[Any]) -> list[Any]:
    """Run one op eagerly with the attributes it has in the graph."""
    import tensorflow as tf
    from tensorflow.python.eager import context, execute

    attributes: list[Any] = []
    for attribute in op.op_def.attr:
        value = op.get_attr(attribute.name)
        attributes += [attribute.name, _enum(value)]
    tensors = [tf.constant(array, tensor.dtype) for array, tensor in zip(inputs, op.inputs, strict=True)]
    return list(execute.execute(op.type.encode(), len(op.outputs), tensors, tuple(attributes), context.context()))


def _enum(value: Any) -> Any:
    """An attribute as the eager runtime takes it: dtypes by number."""
    if isinstance(value, list):
        return [_enum(item) for item in value]
    return value.as_datatype_enum if hasattr(value, "as_datatype_enum") else value


def _of_shape(statics: Statics, tensor: Any) -> list[Size] | None:
    source = tensor.op.inputs[tensor.value_index if tensor.op.type == "ShapeN" else 0]
    shape = sizes(source)
    if shape is None:
        return None
    return [Unknown(source.name, axis) if size is None else size for axis, size in enumerate(shape)]


def _of_strided_slice(statics: Statics, tensor: Any) -> list[Size] | None:
    source, begin, end, strides = tensor.op.inputs
    known = statics.elements(source)
    bounds = [statics.elements(t) for t in (begin, end, strides)]
    if known is None or any(b is None or len(b) != 1 or not isinstance(b[0], int) for b in bounds):
        return None
    first, last, step = (int(b[0]) for b in bounds if b is not None and isinstance(b[0], int))
    if tensor.op.get_attr("shrink_axis_mask") & 1:
        return [known[first]]
    start = None if tensor.op.get_attr("begin_mask") & 1 else first
    stop = None if tensor.op.get_attr("end_mask") & 1 else last
    return known[slice(start, stop, step)]


def _of_concat(statics: Statics, tensor: Any) -> list[Size] | None:
    parts = tensor.op.inputs if tensor.op.type == "Pack" else tensor.op.inputs[:-1]
    if tensor.shape.rank != 1:
        return None
    known = [statics.elements(part) for part in parts]
    return None if any(k is None for k in known) else [size for k in known if k is not None for size in k]


def _of_same(statics: Statics, tensor: Any) -> list[Size] | None:
    return statics.elements(tensor.op.inputs[0])


def _of_split(statics: Statics, tensor: Any) -> list[Size] | None:
    known, parts = statics.elements(tensor.op.inputs[0]), statics.elements(tensor.op.inputs[1])
    if known is None or parts is None or tensor.op.inputs[0].shape.rank != 1:
        return None
    counts = [n if isinstance(n, int) else -1 for n in parts]
    if min(counts, default=-1) < 0:
        return None
    place = next(i for i, output in enumerate(tensor.op.outputs) if output is tensor)
    return known[sum(counts[:place]) : sum(counts[: place + 1])]


def _of_gather(statics: Statics, tensor: Any) -> list[Size] | None:
    known, indices = statics.elements(tensor.op.inputs[0]), statics.elements(tensor.op.inputs[1])
    if known is None or indices is None or tensor.op.inputs[0].shape.rank != 1:
        return None
    return [known[index] for index in indices if isinstance(index, int)]


def _of_product(statics: Statics, tensor: Any) -> list[Size] | None:
    known = statics.elements(tensor.op.inputs[0])
    if known is None or tensor.shape.rank != 0:
        return None
    if all(isinstance(n, int) for n in known):
        return [math.prod(n for n in known if isinstance(n, int))]
    unknown = [n for n in known if not (isinstance(n, int) and n == 1)]
    return unknown if len(unknown) == 1 else [Unknown(tensor.name, 0)]


def _of_arithmetic(statics: Statics, tensor: Any) -> list[Size] | None:
    left, right = (statics.elements(t) for t in tensor.op.inputs)
    if left is None or right is None:
        return None
    count = max(len(left), len(right))
    left, right = (side * count if len(side) == 1 else side for side in (left, right))
    compute = _ARITHMETIC[tensor.op.type]
    return [
        compute(a, b) if isinstance(a, int) and isinstance(b, int) else _unit(tensor, a, b, index)
        for index, (a, b) in enumerate(zip(left, right, strict=True))
    ]


def _unit(tensor: Any, a: Size, b: Size, index: int) -> Size:
    """An unknown size times or over 1, plus or minus 0, is itself."""
    neutral = 1 if tensor.op.type in ("Mul", "FloorDiv") else 0
    if b == neutral:
        return a
    if a == neutral and tensor.op.type in ("Mul", "AddV2"):
        return b
    return Unknown(tensor.name, index)


_ARITHMETIC: dict[str, Any] = {
    "Mul": lambda a, b: a * b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "FloorDiv": lambda a, b: a // b,
    "Maximum": max,
    "Minimum": min,
}

_ELEMENTS: dict[str, Any] = {
    "Shape": _of_shape,
    "ShapeN": _of_shape,
    "StridedSlice": _of_strided_slice,
    "ConcatV2": _of_concat,
    "Pack": _of_concat,
    "GatherV2": _of_gather,
    "SplitV": _of_split,
    "Prod": _of_product,
    **dict.fromkeys(("Identity", "Cast", "Squeeze", "ExpandDims", "Reshape", "EnsureShape"), _of_same),
    **dict.fromkeys(_ARITHMETIC, _of_arithmetic),
}
