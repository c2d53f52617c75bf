"""Values inside a teacher and a student that shall be equal, by the names of the layers that give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelport.core.errors import StepError
from modelport.core.steps import Distill
from modelport.graph.named import Named
from modelport.graph.weights import roles, set_roles


@dataclass(frozen=True)
class Pair:
    """A value of the teacher and the one of the student that shall be equal to it.

    Attributes:
        teacher: the name of the teacher's value.
        student: the name of the student's value, behind the map that is learned.
        target: what the teacher's value is called among the targets.
        perm: how the teacher's axes are turned.
    """

    teacher: str
    student: str
    target: str
    perm: tuple[int, ...]

    def turned(self, array: np.ndarray) -> np.ndarray:
        """The teacher's value with its axes where the student has them."""
        return array.transpose(self.perm)


def paired(teacher: ir.Model, student: ir.Model, step: Distill) -> tuple[ir.Model, tuple[Pair, ...]]:
    """The values that a step pairs, and a copy of the student with a linear map where two differ in their channels.

    Raises:
        StepError: a name is no layer, or the sizes of two values differ elsewhere.
    """
    model = student.clone()
    pairs = []
    for place, (name, other) in enumerate((step.features or {}).items()):
        wanted, given = _value(teacher, name, "the teacher"), _value(model, other, "the student")
        label = f"features {name!r} of the teacher and {other!r} of the student"
        shapes = _dims(wanted, label), _dims(given, label)
        perm, axis = _aligned(*shapes, (channel_axis(wanted), channel_axis(given)), label)
        size, own = shapes[0][perm[axis]], shapes[1][axis]
        if size != own:
            given = _mapped(model, given, axis, (own, size), f"distill.map_{place}", step.seed)
        pairs.append(Pair(str(wanted.name), str(given.name), f"/features/{place}", perm))
    return model, tuple(pairs)


def _value(model: ir.Model, name: str, whose: str) -> ir.Value:
    """The last value that a layer gives."""
    named = Named([name], model, f"Distill: features, in {whose},")
    inside = [node for node in model.graph if named.node(node)]
    if not inside:
        raise StepError(f"Distill: features names {name!r}, which is a weight of {whose} and no layer.")
    return inside[-1].outputs[0]


_SECOND = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool",
    "GroupNormalization", "InstanceNormalization", "LpPool", "MaxPool", "PRelu",
})  # fmt: skip
"""Operators whose channels are on the second axis."""

_SAME = frozenset({
    "Add", "Cast", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Mish", "Mul", "Pad", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sub",
    "Swish", "Tanh", "ThresholdedRelu",
})  # fmt: skip
"""Operators that leave the axes where they are."""


def channel_axis(value: ir.Value) -> int | None:
    """The axis of a value's channels, by the layers that it comes from; `None` where they do not say."""
    perms: list[Sequence[int]] = []
    node, rank = value.producer(), len(value.shape or ())
    while node is not None and not node.domain and node.inputs[0] is not None:
        if node.op_type in _SECOND:
            axis = 1
            for perm in reversed(perms):
                axis = list(perm).index(axis)
            return axis
        if node.op_type == "Transpose":
            perms.append(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))
        elif node.op_type not in _SAME:
            return None
        node = _main_source(node, rank)
    return None


def _main_source(node: ir.Node, rank: int) -> ir.Node | None:
    """The node that makes the first input which has all axes and is no weight."""
    for source in node.inputs:
        if source is not None and source.const_value is None and len(source.shape or ()) == rank:
            return source.producer()
    return None


def _dims(value: ir.Value, label: str) -> tuple[int | None, ...]:
    if value.shape is None:
        raise StepError(f"Distill: {label}: the shape of {value.name!r} is not known.")
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def _aligned(
    teacher: Sequence[int | None],
    student: Sequence[int | None],
    channels: tuple[int | None, int | None],
    label: str,
) -> tuple[tuple[int, ...], int]:
    """How the teacher's axes have to be turned, and which axis of the student has the channels.

    Channels are where the layers before have them. Where these do not say, channels are on the last axis, of images
    (four axes) on the second one or the last.
    """
    last = len(student) - 1
    if len(teacher) == len(student) > 1:
        plain = tuple(range(last + 1))
        options = [(plain, last)]
        if last == 3:
            options = [(plain, 1), (plain, 3), ((0, 3, 1, 2), 1), ((0, 2, 3, 1), 3)]
        source, target = channels
        if source and target:
            order = [axis for axis in plain if axis != source]
            options = [((*order[:target], source, *order[target:]), target)]
        for perm, axis in options:
            rest = [(teacher[perm[each]], student[each]) for each in plain if each not in (0, axis)]
            known = teacher[perm[axis]] is not None and student[axis] is not None
            if known and all(first == second or None in (first, second) for first, second in rest):
                return perm, axis
    raise StepError(f"Distill: {label} are {tuple(teacher)} and {tuple(student)}: only their channels may differ.")


def _mapped(
    model: ir.Model, value: ir.Value, axis: int, sizes: tuple[int | None, int | None], name: str, seed: int
) -> ir.Value:
    """The value times a matrix that is learned, along its channels."""
    own, size = int(sizes[0] or 0), int(sizes[1] or 0)
    dtype = value.dtype or ir.DataType.FLOAT
    array = np.random.default_rng(seed).normal(0, own**-0.5, (own, size)).astype(dtype.numpy())
    first = value.shape is not None and axis != len(value.shape) - 1
    if first:
        array = np.ascontiguousarray(array.T).reshape(size, own, *[1] * (len(value.shape or ()) - 2))
    weight = ir.Value(
        name=f"{name}.weight",
        type=ir.TensorType(dtype),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, dtype=dtype, name=f"{name}.weight"),
    )
    kept = roles(model)
    model.graph.register_initializer(weight)
    set_roles(model, {**kept, str(weight.name): "parameter"})
    node = ir.node("Conv" if first else "MatMul", [value, weight], name=name)
    dims = list(value.shape or ())
    dims[axis] = size
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(dtype)
    node.outputs[0].shape = ir.Shape(dims)
    owner = value.producer()
    assert owner is not None
    model.graph.insert_after(owner, node)
    return node.outputs[0]
