"""Random small graphs of convolutions, pools, elementwise operators, reshapes and transposes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from tests.graph.running import model_of, run, tensor, weight


class Drawing:
    """A graph that grows by one random operator at a time; sizes are known because every value is run once.

    Attributes:
        rng: decides everything.
        values: the values so far, with their sizes.
    """

    def __init__(self, seed: int, symbolic_batch: bool) -> None:
        self.rng = np.random.default_rng(seed)
        shape = (2, 4, 6, 6)
        self.x = tensor("x", ("batch", *shape[1:]) if symbolic_batch else shape)
        self.tape = ir.tape.Tape()
        self.values: list[tuple[ir.Value, tuple[int, ...]]] = [(self.x, shape)]
        self.symbolic = symbolic_batch
        self.count = 0

    def weight(self, *shape: int) -> ir.Value:
        self.count += 1
        array = self.rng.standard_normal(shape).astype(np.float32)
        return weight(self.tape, f"w{self.count}", array)

    def ints(self, *numbers: int) -> ir.Value:
        self.count += 1
        return weight(self.tape, f"c{self.count}", np.asarray(numbers, np.int64))

    def pick(self, rank: int | None = None) -> tuple[ir.Value, tuple[int, ...]]:
        """A value, a late one more often."""
        found = [pair for pair in self.values if rank is None or len(pair[1]) == rank]
        return found[min(int(self.rng.exponential(2)), len(found) - 1) * -1 - 1]

    def add(self, op: str, inputs: list[ir.Value | None], shape: tuple[int, ...], **attributes: object) -> None:
        self.values.append((self.tape.op(op, inputs, attributes), shape))

    def model(self) -> ir.Model:
        outputs = [self.values[-1][0]] + [value for value, _ in self.values[1:-1] if not value.uses()]
        outputs = list(dict.fromkeys(outputs))
        named = []
        for value in outputs:
            named.append(value if value is not self.x else self.tape.op("Identity", [value]))
        model = model_of(self.tape, [self.x], named)
        return ShapeInferencePass()(model).model


def conv(d: Drawing) -> None:
    x, (n, c, h, w) = d.pick(4)
    if h * w > 1:
        d.add("Conv", [x, d.weight(3, c, 1, 1), d.weight(3)], (n, 3, h, w), kernel_shape=[1, 1])


def conv_transpose(d: Drawing) -> None:
    x, (n, c, h, w) = d.pick(4)
    if h * w <= 256:
        d.add("ConvTranspose", [x, d.weight(c, 2, 2, 2)], (n, 2, 2 * h, 2 * w), kernel_shape=[2, 2], strides=[2, 2])


def max_pool(d: Drawing) -> None:
    x, shape = d.pick(4)
    d.add("MaxPool", [x], shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def global_pool(d: Drawing) -> None:
    x, (n, c, _, _) = d.pick(4)
    d.add("GlobalAveragePool", [x], (n, c, 1, 1))


def batch_norm(d: Drawing) -> None:
    x, shape = d.pick(4)
    c = shape[1]
    variance = weight(d.tape, f"var{len(d.values)}", np.ones(c, np.float32))
    d.add("BatchNormalization", [x, d.weight(c), d.weight(c), d.weight(c), variance], shape)


def prelu(d: Drawing) -> None:
    x, shape = d.pick(4)
    d.add("PRelu", [x, d.weight(shape[1], 1, 1)], shape)


def unary(d: Drawing) -> None:
    x, shape = d.pick()
    d.add(str(d.rng.choice(["Relu", "Sigmoid", "Tanh", "Identity"])), [x], shape)


def broadcast_weight(d: Drawing) -> None:
    x, shape = d.pick()
    keep = d.rng.random(len(shape)) < 0.5
    sizes = [dim if kept else 1 for dim, kept in zip(shape, keep, strict=True)]
    if d.symbolic:
        sizes = [1 if dim == 2 else dim for dim in sizes]
    start = int(d.rng.integers(0, len(sizes))) if sizes else 0
    operands = [x, d.weight(*sizes[start:])]
    d.add(str(d.rng.choice(["Add", "Mul"])), operands[:: int(d.rng.choice([1, -1]))], shape)


def residual(d: Drawing) -> None:
    x, shape = d.pick()
    same = [value for value, other in d.values if other == shape]
    d.add("Add", [x, same[int(d.rng.integers(len(same)))]], shape)


def lower_rank(d: Drawing) -> None:
    """An activation that broadcasts against one of a higher rank."""
    x, shape = d.pick(4)
    fits = [
        v for v, s in d.values if len(s) < 4 and all(a in (1, b) for a, b in zip(s[::-1], shape[::-1], strict=False))
    ]
    if fits:
        d.add("Mul", [x, fits[int(d.rng.integers(len(fits)))]], shape)


def concat(d: Drawing) -> None:
    x, shape = d.pick()
    same = [value for value, other in d.values if other == shape]
    if not shape or max(shape) > 32:
        return
    axis = int(d.rng.integers(1 if d.symbolic else 0, len(shape))) if len(shape) > 1 else 0
    if d.symbolic and shape[axis] == 2:
        return
    joined = tuple(2 * dim if place == axis else dim for place, dim in enumerate(shape))
    d.add("Concat", [x, same[int(d.rng.integers(len(same)))]], joined, axis=axis)


def transpose(d: Drawing) -> None:
    x, shape = d.pick()
    perm = [int(axis) for axis in d.rng.permutation(len(shape))]
    if len(shape) == 4 and d.rng.random() < 0.6:
        perm = [[0, 2, 3, 1], [0, 3, 1, 2]][int(d.rng.integers(2))]
    d.add("Transpose", [x], tuple(shape[axis] for axis in perm), perm=perm)


def reduce_mean(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) < 2:
        return
    axes = sorted(int(a) for a in d.rng.choice(len(shape), int(d.rng.integers(1, len(shape))), replace=False))
    keep = bool(d.rng.integers(2))
    out = tuple(1 if a in axes else dim for a, dim in enumerate(shape) if keep or a not in axes)
    d.add("ReduceMean", [x, d.ints(*axes)], out, keepdims=int(keep))


def pad(d: Drawing) -> None:
    x, shape = d.pick()
    if not shape or max(shape) > 32:
        return
    axis = int(d.rng.integers(len(shape)))
    if d.symbolic and shape[axis] == 2:
        return
    out = tuple(dim + 3 if a == axis else dim for a, dim in enumerate(shape))
    if d.rng.integers(2):
        d.add("Pad", [x, d.ints(1, 2), None, d.ints(axis - len(shape))], out)
    else:
        pads = [1 if a == axis else 0 for a in range(len(shape))] + [2 if a == axis else 0 for a in range(len(shape))]
        d.add("Pad", [x, d.ints(*pads)], out)


def slice_(d: Drawing) -> None:
    x, shape = d.pick()
    axes = [a for a, dim in enumerate(shape) if dim > 2]
    if axes:
        axis = int(d.rng.choice(axes))
        out = tuple(dim - 1 if a == axis else dim for a, dim in enumerate(shape))
        d.add("Slice", [x, d.ints(1), d.ints(1000), d.ints(axis)], out)


def along_axis(d: Drawing) -> None:
    x, shape = d.pick()
    if shape:
        axis = int(d.rng.integers(-len(shape), len(shape)))
        if d.rng.integers(2):
            d.add(str(d.rng.choice(["Softmax", "LogSoftmax"])), [x], shape, axis=axis)
        else:
            d.add("CumSum", [x, d.tape.op("Constant", [], {"value_int": axis})], shape)


def unsqueeze(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) < 5:
        axis = int(d.rng.integers(len(shape) + 1))
        d.add("Unsqueeze", [x, d.ints(axis)], (*shape[:axis], 1, *shape[axis:]))


def squeeze(d: Drawing) -> None:
    x, shape = d.pick()
    units = [a for a, dim in enumerate(shape) if dim == 1]
    if units:
        axis = int(d.rng.choice(units))
        d.add("Squeeze", [x, d.ints(axis)], (*shape[:axis], *shape[axis + 1 :]))


def reshape(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) < 2:
        return
    if d.rng.integers(2):
        axis = int(d.rng.integers(len(shape) - 1))
        if d.symbolic and 2 in shape[axis : axis + 2]:
            return
        out = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    else:
        even = [a for a, dim in enumerate(shape) if dim % 2 == 0 and dim > 2]
        if not even or len(shape) > 4:
            return
        axis = int(d.rng.choice(even))
        out = (*shape[:axis], 2, shape[axis] // 2, *shape[axis + 1 :])
    written = [-1 if d.symbolic and dim == 2 and out.count(2) == 1 else dim for dim in out]
    if d.symbolic and 2 in written:
        return
    d.add("Reshape", [x, d.ints(*written)], out)


def flatten(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) > 1:
        axis = int(d.rng.integers(1, len(shape)))
        d.add("Flatten", [x], (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))), axis=axis)


def gather(d: Drawing) -> None:
    x, shape = d.pick()
    axes = [a for a, dim in enumerate(shape) if dim > 2]
    if axes:
        axis = int(d.rng.choice(axes))
        d.add("Gather", [x, d.ints(0, 2)], (*shape[:axis], 2, *shape[axis + 1 :]), axis=axis)


def resize(d: Drawing) -> None:
    x, (n, c, h, w) = d.pick(4)
    if h * w <= 256:
        scales = weight(d.tape, f"scales{len(d.values)}", np.asarray([1, 1, 2, 2], np.float32))
        d.add("Resize", [x, None, scales], (n, c, 2 * h, 2 * w), mode="nearest")


def matmul(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) > 1:
        d.add("MatMul", [x, d.weight(shape[-1], 3)], (*shape[:-1], 3))


def layer_norm(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) > 1 and shape[-1] > 1:
        d.add("LayerNormalization", [x, d.weight(shape[-1]), d.weight(shape[-1])], shape, axis=-1)


def sizes(d: Drawing) -> None:
    """A value times its own batch, read at run time."""
    x, shape = d.pick()
    if shape:
        size = d.tape.op("Shape", [x], {"start": 0, "end": 1})
        d.add("Mul", [x, d.tape.op("Cast", [size], {"to": 1})], shape)


def expand_and_tile(d: Drawing) -> None:
    x, shape = d.pick()
    if shape and max(shape) <= 16 and d.rng.integers(2):
        times = [1 if dim == 2 and d.symbolic else int(d.rng.integers(1, 3)) for dim in shape]
        d.add("Tile", [x, d.ints(*times)], tuple(dim * time for dim, time in zip(shape, times, strict=True)))
    elif 1 in shape:
        axis = shape.index(1)
        target = [3 if a == axis else 1 for a in range(len(shape))]
        d.add("Expand", [x, d.ints(*target)], (*shape[:axis], 3, *shape[axis + 1 :]))


def expand_at_run_time(d: Drawing) -> None:
    """An Expand to the sizes that another value has at run time."""
    x, shape = d.pick()
    fits = [
        (v, s) for v, s in d.values if len(s) == len(shape) and all(a in (1, b) for a, b in zip(shape, s, strict=True))
    ]
    if shape and fits:
        other, sizes_ = fits[int(d.rng.integers(len(fits)))]
        d.add("Expand", [x, d.tape.op("Shape", [other])], sizes_)


def split(d: Drawing) -> None:
    x, shape = d.pick()
    axes = [a for a, dim in enumerate(shape) if dim > 2]
    if axes:
        axis = int(d.rng.choice(axes))
        parts = (1, shape[axis] - 1)
        given = d.ints(*parts)
        found = d.tape.op_multi_out("Split", [x, given], {"axis": axis - len(shape)}, num_outputs=2)
        for value, part in zip(found, parts, strict=True):
            d.values.append((value, (*shape[:axis], part, *shape[axis + 1 :])))


def where(d: Drawing) -> None:
    x, shape = d.pick()
    same = [value for value, other in d.values if other == shape]
    zero = d.tape.op("Constant", [], {"value_float": 0.0})
    condition = d.tape.op("Greater", [same[int(d.rng.integers(len(same)))], zero])
    d.add("Where", [condition, x, d.tape.op("Neg", [x])], shape)


def arg_max(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) > 1:
        axis, keep = int(d.rng.integers(len(shape))), bool(d.rng.integers(2))
        found = d.tape.op("ArgMax", [x], {"axis": axis, "keepdims": int(keep)})
        d.add("Cast", [found], tuple(1 if a == axis else dim for a, dim in enumerate(shape) if keep or a != axis), to=1)


def einsum(d: Drawing) -> None:
    x, shape = d.pick(4)
    channels = int(d.rng.integers(1, 4))
    if shape[channels] != 2 or not d.symbolic:
        letters = "abcd"
        kept = letters.replace(letters[channels], "")
        d.add("Einsum", [x, d.weight(shape[channels], 3)], (*(shape["abcd".index(c)] for c in kept), 3),
              equation=f"abcd,{letters[channels]}e->{kept}e")  # fmt: skip


def top_k(d: Drawing) -> None:
    x, shape = d.pick()
    axes = [a for a, dim in enumerate(shape) if dim > 2]
    if axes:
        axis = int(d.rng.choice(axes))
        values, indices = d.tape.op_multi_out("TopK", [x, d.ints(2)], {"axis": axis}, num_outputs=2)
        out = (*shape[:axis], 2, *shape[axis + 1 :])
        d.values.append((values, out))
        d.add("GatherElements", [x, indices], out, axis=axis)


def quantize(d: Drawing) -> None:
    x, shape = d.pick()
    axes = [a for a, dim in enumerate(shape) if dim > 2]
    if axes:
        axis = int(d.rng.choice(axes))
        scale = weight(d.tape, f"scale{len(d.values)}", d.rng.uniform(0.1, 1, shape[axis]).astype(np.float32))
        zero = weight(d.tape, f"zero{len(d.values)}", np.zeros(shape[axis], np.int8))
        found = d.tape.op("QuantizeLinear", [x, scale, zero], {"axis": axis - len(shape)})
        d.add("DequantizeLinear", [found, scale, zero], shape, axis=axis)


def resize_on_axes(d: Drawing) -> None:
    x, (n, c, h, w) = d.pick(4)
    if h * w <= 256:
        d.add("Resize", [x, None, None, d.ints(2 * w, h)], (n, c, h, 2 * w), mode="nearest", axes=[3, 2])


def dropout(d: Drawing) -> None:
    x, shape = d.pick()
    d.add("Dropout", [x], shape)


def gather_scalar(d: Drawing) -> None:
    x, shape = d.pick()
    if len(shape) > 2:
        axis = int(d.rng.integers(1, len(shape)))
        index = d.tape.op("Constant", [], {"value_int": 0})
        d.add("Gather", [x, index], (*shape[:axis], *shape[axis + 1 :]), axis=axis - len(shape))


def branch(d: Drawing) -> None:
    """An If whose branches read a value from outside."""
    x, shape = d.pick()
    graphs = []
    for op in ("Relu", "Neg"):
        node = ir.node(op, [x])
        node.outputs[0].name = f"{op.lower()}{len(d.values)}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        graphs.append(ir.Graph([], node.outputs, nodes=[node], name=f"branch_{op}{len(d.values)}"))
    condition = weight(d.tape, f"condition{len(d.values)}", np.asarray(bool(d.rng.integers(2))))
    d.add("If", [condition], shape, then_branch=graphs[0], else_branch=graphs[1])
    d.values[-1][0].type = ir.TensorType(ir.DataType.FLOAT)


OPERATORS: tuple[Callable[[Drawing], None], ...] = (
    conv, conv_transpose, max_pool, global_pool, batch_norm, prelu, unary, broadcast_weight, residual, lower_rank,
    concat, transpose, transpose, transpose, reduce_mean, pad, slice_, along_axis, unsqueeze, squeeze, reshape, flatten,
    gather, resize, matmul, layer_norm, sizes, expand_and_tile, expand_at_run_time, split, where, arg_max, einsum,
    top_k, quantize, resize_on_axes, dropout, gather_scalar, branch,
)  # fmt: skip


def draw(seed: int, length: int, symbolic_batch: bool) -> ir.Model:
    """A random graph of about `length` operators."""
    drawing = Drawing(seed, symbolic_batch)
    for _ in range(length):
        operator = OPERATORS[int(drawing.rng.integers(len(OPERATORS)))]
        if any(len(shape) == 4 for _, shape in drawing.values):
            operator(drawing)
    return drawing.model()


def outputs(model: ir.Model, batch: int = 2) -> dict[str, np.ndarray]:
    """What a graph computes for one fixed input, by output name."""
    x = np.random.default_rng(7).standard_normal((batch, 4, 6, 6)).astype(np.float32)
    return dict(zip([value.name or "" for value in model.graph.outputs], run(model, {"x": x}), strict=True))
