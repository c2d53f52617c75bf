"""What hides keys from queries: the masks of an attention that is written out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelport.graph.chance import RANDOM
from modelport.graph.splice import insert, is_op, is_same_size, scalar

_LOWEST = -1e30
"""A score is lost beside a number this low: adding it or putting it in the score's place is the same."""


@dataclass(frozen=True)
class _Selection:
    """`Where(condition, scores, fill)`, or with its last inputs swapped where `seen` is false.

    Attributes:
        triangle: whether the condition holds for the keys up to a query's own place.
    """

    condition: ir.Value
    seen: bool
    fill: float
    triangle: bool


@dataclass
class Masks:
    """The masks of one attention.

    Attributes:
        is_causal: whether a lower triangle is among them: no query sees a key after its own place.
        sighted: which queries see a key at all, (..., queries, 1), where some may see none and the others must not
            notice. The scores of a query that sees none were one number: no gradient reached it or a key, and a fused
            kernel cannot tell its sum of exponentials from one. So it is made 0 and no key is hidden from it, which
            weighs the values alike too. `None` where every query sees a key, or that is not known. Set by `written`.
    """

    is_causal: bool = False
    sighted: ir.Value | None = None
    _added: list[ir.Value] = field(default_factory=list)
    _selected: list[_Selection] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.is_causal or bool(self._added) or bool(self._selected)

    def add(self, value: ir.Value) -> None:
        """Something added to the scores."""
        if _is_causal_bias(value):
            self.is_causal = True
        else:
            self._added.append(_before_expand(value))

    def select(self, condition: ir.Value, seen: bool, fill: float, scores: ir.Value) -> bool:
        """A number put in the place of some scores; whether an added mask does the same."""
        wide = scores.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
        if fill != -np.inf and not (wide and fill <= _LOWEST):
            return False
        triangle = seen and _is_triangle(condition) and _has_queries(condition, scores)
        if triangle and fill == -np.inf:
            self.is_causal = True
        else:
            self._selected.append(_Selection(condition, seen, fill, triangle))
        return True

    def close(self) -> None:
        """Say what the masks are together, once all are known.

        Under a triangle alone every query sees a key, and beside its score even a finite number this low is lost.
        """
        if len(self._selected) == 1 and not self._added and self._selected[0].triangle:
            self._selected.clear()
            self.is_causal = True

    def fit(self, scores: ir.Value) -> bool:
        """Whether every mask has the keys as its last axis, and no more axes than the scores."""
        return all(fits(value, scores) for value in (*self._added, *(each.condition for each in self._selected)))

    def written(self, model: ir.Model, before: ir.Node) -> ir.Value | None:
        """One mask for all but the triangle, as ONNX's Attention takes it; its nodes go before a node."""
        kind = before.inputs[0].dtype if before.inputs[0] is not None else None
        groups: dict[float, list[ir.Value]] = {}
        for each in self._selected:
            visible = each.condition if each.seen else _made(before, "Not", [each.condition], ir.DataType.BOOL)
            groups.setdefault(each.fill, []).append(visible)
        conditions = {fill: _folded(before, "And", values, ir.DataType.BOOL) for fill, values in groups.items()}
        if not self._added and list(conditions) == [-np.inf]:
            return _raised(model, before, conditions[-np.inf])
        assert kind is not None or not self
        terms = list(self._added)
        for fill, condition in conditions.items():
            assert kind is not None
            if not terms and len(conditions) == 1 and not self.is_causal and _may_blind(condition, fill):
                self.sighted = _any_key(model, before, condition)
                condition = _made(before, "Or", [condition, _made(before, "Not", [self.sighted], _BOOL)], _BOOL)
            numbers = (constant_of(model, np.array(number, kind.numpy())) for number in (0.0, fill))
            terms.append(_made(before, "Where", [condition, *numbers], kind))
        if not terms or kind is None:
            return None
        return _raised(model, before, _folded(before, "Add", terms, kind))


_BOOL = ir.DataType.BOOL


def _may_blind(condition: ir.Value, fill: float) -> bool:
    """Whether a mask that goes by the query may hide every key from one, and still weighs their values alike."""
    shape = condition.shape
    if fill == -np.inf or shape is None or len(shape) < 2 or shape[-2] == 1:
        return False
    known = condition.const_value
    return known is None or not known.numpy().any(-1).all()


def _any_key(model: ir.Model, before: ir.Node, condition: ir.Value) -> ir.Value:
    """Whether a query sees any key: (..., queries, 1)."""
    assert condition.shape is not None
    number = insert(before, "Cast", [condition], {"to": ir.DataType.INT32.value})
    number.name, number.type, number.shape = f"{before.name}/cast", ir.TensorType(ir.DataType.INT32), condition.shape
    most = insert(before, "ReduceMax", [number, constant_of(model, np.array([-1]))], {"keepdims": 1})
    most.name, most.type = f"{before.name}/any", number.type
    most.shape = ir.Shape([*list(condition.shape)[:-1], 1])
    return _made(before, "Greater", [most, constant_of(model, np.array(0, np.int32))], _BOOL)


def only_sighted(model: ir.Model, before: ir.Node, query: ir.Value, sighted: ir.Value) -> ir.Value:
    """The queries, with 0 for those that see no key."""
    assert query.dtype is not None
    zero = constant_of(model, np.array(0.0, query.dtype.numpy()))
    result = _made(before, "Where", [sighted, query, zero], query.dtype)
    result.shape = query.shape
    return result


def fits(mask: ir.Value, scores: ir.Value) -> bool:
    """Whether a mask reaches all keys: ONNX hides those that a shorter one does not name."""
    if mask.shape is None or scores.shape is None or not 1 <= len(mask.shape) <= len(scores.shape):
        return False
    last, keys = mask.shape[-1], scores.shape[-1]
    return is_same_size(last, keys)


def constant_of(model: ir.Model, array: np.ndarray) -> ir.Value:
    """A constant of the main graph; equal ones are made once."""
    name = f"attention/{array.dtype}{array.tolist()}"
    if name not in model.graph.initializers:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        model.graph.register_initializer(value)
    return model.graph.initializers[name]


def bare_condition(where: ir.Node) -> None:
    """Take away from the condition of a Where what is true everywhere, and the nodes that are then not needed."""
    old, result = where.inputs[0], where.outputs[0]
    full = any(value is not None and value.shape == result.shape for value in where.inputs[1:])
    if old is None or result.shape is None or not full:
        return
    where.replace_input_with(0, _condition(old))
    _drop(old)


def _drop(value: ir.Value | None) -> None:
    """Remove what makes a value that nothing reads."""
    node = None if value is None else value.producer()
    if node is None or node.graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
        return
    inputs = node.inputs
    node.graph.remove(node, safe=True)
    for each in inputs:
        _drop(each)


def _condition(value: ir.Value) -> ir.Value:
    """A condition less what is true everywhere, and less the copies that broadcasting makes anyway."""
    while True:
        node = value.producer()
        if node is None or node.domain:
            return value
        if node.op_type == "Expand" and _keeps_keys(node.inputs[0], value):
            assert node.inputs[0] is not None
            value = node.inputs[0]
            continue
        if node.op_type != "And":
            return value
        a, b = node.inputs
        if a is not None and _is_true(b) and _keeps_keys(a, value):
            value = a
        elif b is not None and _is_true(a) and _keeps_keys(b, value):
            value = b
        else:
            return value


def _keeps_keys(inner: ir.Value | None, outer: ir.Value) -> bool:
    return inner is not None and fits(inner, outer)


def _before_expand(value: ir.Value) -> ir.Value:
    node = value.producer()
    if node is not None and is_op(value, "Expand") and _keeps_keys(node.inputs[0], value):
        assert node.inputs[0] is not None
        return node.inputs[0]
    return value


def _is_true(value: ir.Value | None) -> bool:
    """Whether a condition holds everywhere."""
    node = None if value is None else value.producer()
    if value is None or (node is not None and not is_op(value, "Expand")):
        return False
    source = value if node is None else node.inputs[0]
    tensor = None if source is None else source.const_value
    return tensor is not None and tensor.dtype == ir.DataType.BOOL and bool(tensor.numpy().all())


def _is_triangle(condition: ir.Value) -> bool:
    """Whether a condition is the lower triangle: as a constant, or made for any number of queries and keys."""
    node = condition.producer()
    while node is not None and is_op(condition, "Unsqueeze") and _is_matrix_of(node.inputs[0], condition):
        assert node.inputs[0] is not None
        condition = node.inputs[0]
        node = condition.producer()
    if node is not None and is_op(condition, "Trilu"):
        diagonal = scalar(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else 0
        return diagonal == 0 and node.attributes.get_int("upper", 1) == 0 and _is_true(node.inputs[0])
    matrix = _matrix(condition)
    return matrix is not None and matrix.dtype == bool and bool((matrix == np.tril(np.ones_like(matrix))).all())


def _is_matrix_of(inner: ir.Value | None, outer: ir.Value) -> bool:
    """Whether the last two axes of a value are those of another with more axes before them."""
    if inner is None or inner.shape is None or outer.shape is None or len(inner.shape) < 2:
        return False
    pairs = zip(inner.shape[-2:], outer.shape[-2:], strict=True)
    return all(is_same_size(size, other) for size, other in pairs)


def _has_queries(condition: ir.Value, scores: ir.Value) -> bool:
    """Whether a condition says something of every query by itself, and not of all the same."""
    if condition.shape is None or scores.shape is None or min(len(condition.shape), len(scores.shape)) < 2:
        return False
    return is_same_size(condition.shape[-2], scores.shape[-2])


def _is_causal_bias(value: ir.Value) -> bool:
    """Whether a mask adds nothing up to the diagonal, and minus infinity or nearly so above it."""
    node = value.producer()
    if node is not None and is_op(value, "Trilu"):
        diagonal = scalar(node.inputs[1]) if len(node.inputs) > 1 else 0
        return diagonal == 1 and node.attributes.get_int("upper", 1) == 1 and _is_lowest(node.inputs[0])
    matrix = _matrix(value)
    if matrix is None or matrix.dtype.kind != "f":
        return False
    above = np.triu(np.ones(matrix.shape, bool), 1)
    return bool((matrix[above] == -np.inf).all() and (matrix[~above] == 0).all())


def _is_lowest(value: ir.Value | None) -> bool:
    """Whether a value is minus infinity everywhere."""
    node = None if value is None else value.producer()
    if node is not None and is_op(value, "Expand"):
        return scalar(node.inputs[0]) == -np.inf
    if node is not None and is_op(value, "ConstantOfShape"):
        tensor = node.attributes["value"].as_tensor() if "value" in node.attributes else None
        return tensor is not None and float(tensor.numpy().reshape(-1)[0]) == -np.inf
    matrix = None if value is None else _matrix(value)
    return matrix is not None and bool((matrix == -np.inf).all())


def _matrix(value: ir.Value) -> np.ndarray | None:
    """A constant of queries and keys; axes of size 1 before them do not count."""
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.producer() is not None:
        return None
    shape = tuple(tensor.shape.numpy())
    if len(shape) < 2 or any(size != 1 for size in shape[:-2]) or min(shape) == 0:
        return None
    return tensor.numpy().reshape(shape[-2:])


def share_masks(model: ir.Model) -> None:
    """Compute once what the masks of several attentions have in common, in place."""
    front = [
        node.inputs[3]
        for node in model.graph
        if node.op_type == "Attention" and len(node.inputs) > 3 and node.inputs[3] is not None
    ]
    behind: set[ir.Node] = set()
    while front:
        value = front.pop()
        node = None if value is None else value.producer()
        if node is not None and node.graph is model.graph and node not in behind:
            behind.add(node)
            front += node.inputs
    known: dict[tuple[object, ...], ir.Node] = {}
    for node in [node for node in model.graph if node in behind]:
        if len(node.outputs) != 1 or node.op_type in RANDOM | {"Dropout"} or node.outputs[0].is_graph_output():
            continue
        settings = tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
        first = known.setdefault((node.domain, node.op_type, tuple(map(id, node.inputs)), settings), node)
        if first is not node:
            node.outputs[0].replace_all_uses_with(first.outputs[0])
            model.graph.remove(node, safe=True)


def _raised(model: ir.Model, before: ir.Node, mask: ir.Value) -> ir.Value:
    """A mask of three axes with a batch axis before them, of one axis with one of queries."""
    rank = len(mask.shape or ())
    if rank not in (1, 3):
        return mask
    raised = _made(before, "Unsqueeze", [mask, constant_of(model, np.array([0]))], mask.dtype)
    raised.shape = None if mask.shape is None else ir.Shape([1, *mask.shape])
    return raised


def _folded(before: ir.Node, op_type: str, values: list[ir.Value], kind: ir.DataType) -> ir.Value:
    total = values[0]
    for value in values[1:]:
        total = _made(before, op_type, [total, value], kind)
    return total


_MADE = "modelport.masks"
"""Where a node keeps how many values of each operator were made for it, in its `meta`."""


def _made(before: ir.Node, op_type: str, inputs: list[ir.Value], kind: ir.DataType | None) -> ir.Value:
    """A new value of the inputs' broadcast shape."""
    value = insert(before, op_type, inputs)
    made: Counter[str] = before.meta.setdefault(_MADE, Counter())
    made[op_type] += 1
    value.name = f"{before.name}/{op_type.lower()}" + (f"_{made[op_type] - 1}" if made[op_type] > 1 else "")
    value.type = None if kind is None else ir.TensorType(kind)
    value.shape = _broadcast([each.shape for each in inputs])
    return value


def _broadcast(shapes: list[ir.Shape | None]) -> ir.Shape | None:
    if any(shape is None for shape in shapes):
        return None
    rank = max(len(shape or ()) for shape in shapes)
    sizes = []
    for axis in range(-rank, 0):
        dims = [shape[axis] for shape in shapes if shape is not None and len(shape) >= -axis]
        sizes.append(next((dim for dim in dims if dim != 1), 1))
    return ir.Shape(sizes)
