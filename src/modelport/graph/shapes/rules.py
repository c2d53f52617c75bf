"""The dims of operators that ONNX's inference leaves open where dimensions are symbolic.

A rule takes a `Site` and returns dims per output; `None` leaves an output, or all of them, to ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from modelport.graph.shapes.expr import Size, ceil, exact_div, floor, floordiv, is_at_least, maximum, minimum, product
from modelport.graph.shapes.info import Dims, Site

Rule = Callable[[Site], Sequence[Sequence[Size | None] | None] | None]

RULES: dict[str, Rule] = {}
"""Rules by operator, `domain.operator` outside ONNX's own domain."""

FAR = 2**31 - 1
"""Slice ends from here on mean the end of the axis."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for some operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def broadcast(*shapes: Sequence[Size]) -> Dims:
    """The shape that shapes broadcast to; of two sizes that may differ, the one that is not 1."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(_together(sizes) for sizes in zip(*padded, strict=True))


def _together(sizes: Sequence[Size]) -> Size:
    total: Size = 1
    for size in sizes:
        if total == 1 or total == size:
            total = size
        elif size == 1:
            continue
        elif isinstance(size, int):
            total = size if not isinstance(total, int) else total
        elif not isinstance(total, int):
            total = maximum(total, size)
    return total


def slice_size(dim: Size, start: Size, stop: Size, step: int) -> Size:
    """How many elements `[start:stop:step]` takes from an axis.

    Where the axis is symbolic, a start or a stop that is counted from its end, or is itself symbolic, is taken to lie
    inside it, as it does in every model that runs.
    """
    if isinstance(dim, int) and isinstance(start, int) and isinstance(stop, int):
        return len(range(*slice(start, stop, step).indices(dim)))
    start, stop = (dim if isinstance(place, int) and place >= FAR else place for place in (start, stop))
    from_end = is_at_least(stop, 0) is False
    if step < 0:
        first = _from_end(dim, start) if is_at_least(start, 0) is False else minimum(start, dim - 1)
        last = maximum(dim + stop, -1) if from_end else stop
        return ceil((first - last) * Fraction(1, -step))
    first = _from_end(dim, start) if is_at_least(start, 0) is False else start
    last = _from_end(dim, stop) if from_end else minimum(stop, dim) if isinstance(stop, int) else stop
    size = ceil((last - first) * Fraction(1, step))
    return max(size, 0) if isinstance(size, int) else size


def _from_end(dim: Size, offset: Size) -> Size:
    return 0 if isinstance(offset, int) and offset <= -FAR else dim + offset


@rule(
    *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
)
def broadcasting(site: Site) -> Sequence[Dims | None]:
    shapes = [site.dims(index) for index in range(len(site.node.inputs))]
    return [None if any(shape is None for shape in shapes) else broadcast(*(s for s in shapes if s is not None))]


@rule("MatMul")
def matmul(site: Site) -> Sequence[Dims | None] | None:
    a, b = site.dims(0), site.dims(1)
    if not a or not b:
        return None
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return [(*broadcast(a[:-2], b[:-2]), *rows, *columns)]


@rule("Reshape")
def reshape(site: Site) -> Sequence[Sequence[Size | None] | None] | None:
    data, target = site.dims(0), site.sizes(1)
    if target is None:
        shape = site.dims(1)
        return [[None] * shape[0]] if shape is not None and isinstance(shape[0], int) else None
    zero_is_copy = not site.attr("allowzero", 0)
    sizes: list[Size | None] = list(target)
    for axis, size in enumerate(target):
        if size == 0 and zero_is_copy:
            sizes[axis] = data[axis] if data is not None and axis < len(data) else None
    if -1 in sizes:
        axis = sizes.index(-1)
        rest = [size for index, size in enumerate(sizes) if index != axis]
        sizes[axis] = None if data is None or None in rest else _share(product(data), product(rest))  # type: ignore[arg-type]
    return [sizes]


def _share(total: Size, part: Size) -> Size | None:
    if part == 0:
        return None
    exact = exact_div(total, part)
    return floordiv(total, part) if exact is None else exact


@rule("Expand")
def expand(site: Site) -> Sequence[Dims] | None:
    data, target = site.dims(0), site.sizes(1)
    return None if data is None or target is None else [broadcast(data, target)]


@rule("Slice")
def slice_(site: Site) -> Sequence[Sequence[Size | None] | None] | None:
    data = site.dims(0)
    if data is None:
        return None
    if site.has(1):
        starts, stops = site.sizes(1), site.sizes(2)
        axes = site.ints(3) if site.has(3) else None if starts is None else tuple(range(len(starts)))
    else:  # up to opset 9
        starts, stops = site.attr("starts"), site.attr("ends")
        axes = tuple(site.attr("axes") or range(len(starts)))
    if axes is None:
        return [[None] * len(data)]
    axes = tuple(axis % len(data) for axis in axes)
    steps = site.ints(4) if site.has(4) else (1,) * len(axes)
    if starts is None or stops is None or steps is None:
        return [[None if axis in axes else size for axis, size in enumerate(data)]]
    sizes = list(data)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        sizes[axis] = slice_size(data[axis], start, stop, step)
    return [sizes]


@rule("Concat")
def concat(site: Site) -> Sequence[Dims] | None:
    shapes = [site.dims(index) for index in range(len(site.node.inputs))]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    axis = site.attr("axis", 0) % len(known[0])
    sizes = [next((s for s in column if isinstance(s, int)), column[0]) for column in zip(*known, strict=True)]
    sizes[axis] = sum((shape[axis] for shape in known[1:]), start=known[0][axis])
    return [tuple(sizes)]


@rule("Split")
def split(site: Site) -> Sequence[Dims] | None:
    data = site.dims(0)
    if data is None:
        return None
    count = len(site.node.outputs)
    axis = site.attr("axis", 0) % len(data)
    parts: Sequence[Size] | None = site.sizes(1) if site.has(1) else site.attr("split")
    if parts is None and not site.has(1):
        chunk = exact_div(data[axis], count)
        chunk = ceil(data[axis] * Fraction(1, count)) if chunk is None or floor(chunk) != chunk else chunk
        parts = [chunk] * (count - 1) + [data[axis] - chunk * (count - 1)]
    return None if parts is None else [(*data[:axis], part, *data[axis + 1 :]) for part in parts]


@rule("Flatten")
def flatten(site: Site) -> Sequence[Dims] | None:
    data = site.dims(0)
    if data is None:
        return None
    axis = site.attr("axis", 1)
    axis += len(data) if axis < 0 else 0
    return [(product(data[:axis]), product(data[axis:]))]


@rule("Transpose")
def transpose(site: Site) -> Sequence[Sequence[Size | None]] | None:
    perm = site.attr("perm")
    return None if perm is None or site.dims(0) is not None else [[None] * len(perm)]


@rule("Squeeze")
def squeeze(site: Site) -> Sequence[Dims] | None:
    data = site.dims(0)
    if data is None or site.has(1) or site.attr("axes") is not None:
        return None
    return [tuple(size for size in data if size != 1)]


@rule("Tile")
def tile(site: Site) -> Sequence[Dims] | None:
    data, repeats = site.dims(0), site.sizes(1)
    return None if data is None or repeats is None else [tuple(a * b for a, b in zip(data, repeats, strict=True))]


@rule("Pad")
def pad(site: Site) -> Sequence[Dims] | None:
    data, pads = site.dims(0), site.sizes(1)
    axes = site.ints(3) if site.has(3) else tuple(range(len(data or ())))
    if data is None or pads is None or axes is None:
        return None
    sizes = list(data)
    for index, axis in enumerate(axes):
        sizes[axis % len(data)] = sizes[axis % len(data)] + pads[index] + pads[index + len(axes)]
    return [tuple(sizes)]


@rule("Range")
def range_(site: Site) -> Sequence[Sequence[Size | None]] | None:
    parts = [site.sizes(index) for index in range(3)]
    if any(part is None for part in parts):
        return None
    start, stop, step = (part[0] for part in parts if part is not None)
    length = None if step == 0 else exact_div(stop - start, step)
    if length is None:
        return None
    return [(maximum(ceil(length), 0),)]


@rule("ConstantOfShape")
def constant_of_shape(site: Site) -> Sequence[Dims] | None:
    sizes = site.sizes(0)
    return None if sizes is None else [sizes]


@rule("OneHot")
def one_hot(site: Site) -> Sequence[Sequence[Size | None]] | None:
    indices, depth = site.dims(0), site.sizes(1)
    if indices is None:
        return None
    axis = site.attr("axis", -1) % (len(indices) + 1)
    return [(*indices[:axis], None if depth is None else depth[0], *indices[axis:])]


@rule("TopK")
def top_k(site: Site) -> Sequence[Sequence[Size | None]] | None:
    data, k = site.dims(0), site.sizes(1)
    if data is None:
        return None
    axis = site.attr("axis", -1) % len(data)
    return [(*data[:axis], None if k is None else k[0], *data[axis + 1 :])] * 2


@rule("GatherND")
def gather_nd(site: Site) -> Sequence[Dims] | None:
    data, indices, batch = site.dims(0), site.dims(1), site.attr("batch_dims", 0)
    if data is None or not indices or not isinstance(depth := indices[-1], int):
        return None
    return [(*indices[:-1], *data[batch + depth :])]


@rule("Attention")
def attention(site: Site) -> Sequence[Dims | None]:
    """Kept keys and values are those kept before and the new ones, of which ONNX adds up static sizes only."""
    found: list[Dims | None] = [None]
    for new, kept in ((site.dims(1), site.dims(4)), (site.dims(2), site.dims(5))):
        if kept is None or new is None:
            found.append(new if new is not None and len(new) == 4 and not site.has(4) else None)
        else:
            found.append((*kept[:2], kept[2] + new[-2], kept[3]))
    return found


@rule("STFT")
def stft(site: Site) -> Sequence[Sequence[Size | None]] | None:
    """ONNX's inference takes the length of a frame for twice the number of its frequencies."""
    signal, window, step, length = site.dims(0), site.dims(2), site.sizes(1), site.sizes(3)
    if signal is None:
        return None
    is_half = site.attr("onesided", 1) and (len(signal) == 2 or signal[2] == 1)
    size: Size | None = length[0] if length else window[0] if window else None
    if size is None:
        return [(signal[0], None, None, 2)]
    known = step[0] if step else None
    frames = floordiv(signal[1] - size, known) + 1 if isinstance(known, int) else None
    bins = floordiv(size, 2) + 1 if is_half else size
    return [(signal[0], frames, bins, 2)]


@rule("SequenceEmpty")
def sequence_empty(site: Site) -> None:
    site.info.set_empty(site.node.outputs[0], True)


@rule("SequenceInsert")
def sequence_insert(site: Site) -> Sequence[Dims | None] | None:
    """The first element tells of what shape they are; ONNX takes an empty sequence for one that may hold any."""
    return [site.dims(1)] if site.info.is_empty(site.node.inputs[0]) else None


@rule("Resize")
def resize(site: Site) -> Sequence[Dims] | None:
    data = site.dims(0)
    if data is None or site.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    axes = [axis % len(data) for axis in site.attr("axes", range(len(data)))]
    sizes: list[Size] = list(data)
    targets = site.sizes(3)
    if site.has(2) and not site.has(3):
        scales = site.node.inputs[2]
        tensor = None if scales is None else ir.convenience.get_const_tensor(scales)
        if tensor is None or tensor.size != len(axes):
            return None
        targets = tuple(_scaled(data[axis], scale) for axis, scale in zip(axes, tensor.numpy(), strict=True))
    if targets is None:
        return None
    for axis, size in zip(axes, targets, strict=True):
        sizes[axis] = size
    return [tuple(sizes)]


def _scaled(dim: Size, scale: np.floating) -> Size:
    # The standard multiplies in float32, where three times a third is one; the nearest short fraction says the same.
    short = Fraction(float(scale)).limit_denominator(1000)
    return floor(dim * (short if np.float32(short) == scale else Fraction(float(scale))))


@rule("DepthToSpace")
def depth_to_space(site: Site) -> Sequence[Dims] | None:
    data, block = site.dims(0), site.attr("blocksize", 1)
    if data is None:
        return None
    return [(data[0], floordiv(data[1], block * block), *(size * block for size in data[2:]))]


@rule("SpaceToDepth")
def space_to_depth(site: Site) -> Sequence[Dims] | None:
    data, block = site.dims(0), site.attr("blocksize", 1)
    if data is None:
        return None
    return [(data[0], data[1] * block * block, *(floordiv(size, block) for size in data[2:]))]


@rule("Einsum")
def einsum(site: Site) -> Sequence[Dims] | None:
    shapes = [site.dims(index) for index in range(len(site.node.inputs))]
    terms, arrow, result = site.attr("equation", "").replace(" ", "").partition("->")
    letters: dict[str, Size] = {}
    for term, shape in zip(terms.split(","), shapes, strict=False):
        if shape is None or "." in term or len(term) != len(shape):
            return None
        for letter, size in zip(term, shape, strict=True):
            letters[letter] = _together([letters.get(letter, 1), size])
    if not arrow:
        result = "".join(letter for letter in sorted(letters) if terms.count(letter) == 1)
    return None if "." in result else [tuple(letters[letter] for letter in result)]


@rule("StringNormalizer")
def string_normalizer(site: Site) -> Sequence[Dims] | None:
    data = site.dims(0)
    return None if data is None or site.attr("stopwords", ()) else [data]


@rule("modelport.Linear")
def linear(site: Site) -> Sequence[Dims] | None:
    x, weight = site.dims(0), site.dims(1)
    return None if x is None or weight is None else [(*x[:-1], weight[1 if site.attr("transposed", 0) else 0])]


@rule("modelport.Embedding")
def embedding(site: Site) -> Sequence[Dims] | None:
    ids, weight = site.dims(0), site.dims(1)
    return None if ids is None or weight is None else [(*ids, weight[1])]


@rule("modelport.LSTM", "modelport.GRU", "modelport.RNN")
def recurrent(site: Site) -> Sequence[Dims] | None:
    x = site.dims(0)
    if x is None:
        return None
    directions = 2 if site.attr("bidirectional", 0) else 1
    hidden = site.attr("hidden_size")
    state = (directions * site.attr("num_layers", 1), x[0] if site.attr("batch_first", 0) else x[1], hidden)
    return [(x[0], x[1], directions * hidden), state, state]
