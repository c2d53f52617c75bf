"""A small node for every operator whose schema has changed since opset 7, as every opset since then writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

OLDEST, NEWEST = 7, onnx.defs.onnx_opset_version()


@dataclass(frozen=True)
class Written:
    """How an operator is written from one opset to another.

    Attributes:
        op_type: the operator.
        inputs: arrays, `None` for an input that is left out; those in `constants` are initializers.
        attributes: or a function that makes them, from the opset.
        outputs: how many.
        since, until: the opsets.
        constants: which inputs are known.
        random: whether no two runs give the same.
        after: an operator that makes a tensor of the result, and its second input.
        gives: the result, where it is known.
        label: what its values are called after.
    """

    op_type: str
    inputs: tuple[np.ndarray | None, ...]
    attributes: dict[str, Any] | Callable[[int], dict[str, Any]] = field(default_factory=dict)
    outputs: int = 1
    since: int = OLDEST
    until: int = NEWEST
    constants: tuple[int, ...] = ()
    random: bool = False
    after: tuple[str, int | None] | None = None
    gives: np.ndarray | None = None
    label: str = ""

    def model(self, opset: int) -> onnx.ModelProto:
        """A model of this one node."""
        names = ["" if array is None else f"{self.label}_{i}" for i, array in enumerate(self.inputs)]
        attributes = self.attributes(opset) if callable(self.attributes) else self.attributes
        results = [f"{self.label}_out{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op_type, names, results, f"the_{self.label}", **attributes)
        graph = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name=name) for name in results])
        if self.after is not None:
            self._take(graph)
        for i, array in enumerate(self.inputs):
            if array is not None and i in self.constants:
                graph.initializer.append(onnx.numpy_helper.from_array(array, names[i]))
            elif array is not None:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.input.append(helper.make_tensor_value_info(names[i], kind, array.shape))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    def _take(self, graph: onnx.GraphProto) -> None:
        """Let the graph return a tensor that a further operator takes out of the result."""
        op_type, index = self.after or ("", None)
        inputs = [graph.output[0].name] + ([] if index is None else [f"{self.label}_index"])
        graph.node.append(helper.make_node(op_type, inputs, [f"{self.label}_taken"], f"{op_type}_of_{self.label}"))
        if index is not None:
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(index), f"{self.label}_index"))
        graph.output[0].name = f"{self.label}_taken"

    def feed(self) -> dict[str, np.ndarray]:
        """The inputs by name."""
        named = {f"{self.label}_{i}": array for i, array in enumerate(self.inputs) if i not in self.constants}
        return {name: array for name, array in named.items() if array is not None}


def opsets_of(op_type: str) -> list[int]:
    """The opsets from 7 on at which an operator came or changed, the last change before 7 included.

    One that was taken out of the standard counts where models were written with it all the same.
    """
    gone = {"Upsample", "Scatter"}  # their names ended with the opset that took them out
    return sorted({max(s.since_version, OLDEST) for s in _history()[op_type] if not (s.deprecated and op_type in gone)})


def changed() -> set[tuple[str, int]]:
    """Every operator of the standard that was written in more than one way since opset 7, with the opset of each."""
    return {(name, opset) for name in _history() if len(opsets_of(name)) > 1 for opset in opsets_of(name)}


@cache
def _history() -> dict[str, list[Any]]:
    """The schemas of every operator of the standard."""
    found: dict[str, list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema)
    return found


def cases() -> Iterator[tuple[Written, int]]:
    """Every way of writing, at every opset that changed the operator."""
    for written in WRITTEN:
        for opset in opsets_of(written.op_type):
            if written.since <= opset <= written.until:
                yield written, opset


_rng = np.random.default_rng(7)


def _floats(*shape: int) -> np.ndarray:
    return _rng.uniform(-2, 2, shape).astype(np.float32)


def _positive(*shape: int) -> np.ndarray:
    return _rng.uniform(0.3, 0.9, shape).astype(np.float32)


def _ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def _scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _float_vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


X = _floats(2, 3, 4)
IMAGE = _floats(1, 2, 6, 6)
PAIR = _floats(2)


def _each(op_types: str, *inputs: np.ndarray, **settings: Any) -> list[Written]:
    return [Written(op_type, inputs, **settings) for op_type in op_types.split()]


def _elementwise() -> list[Written]:
    return [
        *_each("Abs Ceil Elu Erf Exp Floor HardSigmoid LeakyRelu Neg Relu Selu Sigmoid Sign Sin", X),
        *_each("Asinh Atan Cos Cosh Identity IsNaN Round Sinh Softplus Softsign Tan Tanh", X),
        *_each("Acos Asin Atanh Log Reciprocal Sqrt", _positive(2, 3)),
        *_each("Acosh", _positive(2, 3) + 1),
        *_each("Celu HardSwish Mish ThresholdedRelu", X),
        *_each("IsInf", np.array([1, np.inf, -np.inf], np.float32)),
        *_each("Add Sub Mul Div", X, _positive(3, 1)),
        *_each("Greater Less GreaterOrEqual LessOrEqual", X, _floats(4)),
        *_each("Equal", _ints(1, 2, 3), _ints(1, 5, 3)),
        *_each("Max Min Mean Sum", _floats(2, 3), _floats(2, 3), _floats(2, 3)),
        *_each("Max Min Mean Sum", _floats(2, 3), _floats(3), since=8),
        Written("Pow", (_positive(2, 3), _scalar(2))),
        Written("PRelu", (X, _floats(3, 1))),
        Written("Mod", (_ints(-7, 7, 5), _ints(3, -3, 2))),
        Written("Mod", (_floats(5), _positive(5)), {"fmod": 1}),
        Written("BitShift", (np.array([1, 2, 3], np.uint8), np.array([2, 1, 1], np.uint8)), {"direction": "LEFT"}),
        Written("Where", (np.array([True, False, True]), _floats(3), _floats(2, 3))),
        Written("Clip", (X,), {"min": -0.5, "max": 0.5}, until=10),
        Written("Clip", (X, _scalar(-0.5), _scalar(0.5)), since=11, constants=(1, 2)),
        Written("Clip", (X, None, _scalar(0.5)), since=11),
        Written("Cast", (X,), {"to": TensorProto.INT64}),
        Written("Cast", (_ints(0, 1, 2),), {"to": TensorProto.BOOL}),
        Written("CastLike", (X, _ints(1))),
        Written("Dropout", (X,), {"ratio": 0.25}, until=11),
        Written("Dropout", (X, _scalar(0.25)), since=12, constants=(1,)),
        Written("QuantizeLinear", (X, _scalar(0.1), np.array(3, np.uint8)), constants=(1, 2)),
        Written(
            "DequantizeLinear", (np.array([3, 9], np.uint8), _scalar(0.1), np.array(3, np.uint8)), constants=(1, 2)
        ),
        Written("Multinomial", (_floats(2, 3),), {"sample_size": 4}, random=True),
        Written("Bernoulli", (_positive(2, 3),), random=True),
        *_each("RandomNormalLike RandomUniformLike", X, random=True),
        *_each("RandomNormal RandomUniform", attributes={"shape": [2, 3]}, random=True),
    ]


def _matrices_and_norms() -> list[Written]:
    channel = (_positive(3), _floats(3), _floats(3), _positive(3))
    recurrent = {"hidden_size": 3}
    return [
        Written("MatMul", (_floats(2, 3, 4), _floats(4, 5)), constants=(1,)),
        Written("Gemm", (_floats(2, 3), _floats(3, 4), _floats(4)), {"alpha": 0.5, "transB": 0}, constants=(1, 2)),
        Written("Gemm", (_floats(2, 3), _floats(3, 4)), since=11),
        Written("Einsum", (_floats(2, 3), _floats(3, 4)), {"equation": "ij,jk->ik"}),
        Written("Det", (_floats(2, 3, 3),)),
        Written(
            "QLinearMatMul",
            (
                np.array([[3, 9]], np.uint8),
                _scalar(0.1),
                np.array(3, np.uint8),
                np.array([[5], [8]], np.uint8),
                _scalar(0.2),
                np.array(1, np.uint8),
                _scalar(0.3),
                np.array(2, np.uint8),
            ),
            constants=(1, 2, 4, 5, 6, 7),
        ),
        Written("BatchNormalization", (X, *channel), {"epsilon": 1e-3, "momentum": 0.8}, constants=(1, 2, 3, 4)),
        Written("BatchNormalization", (X, *channel), {"spatial": 1}, until=8, constants=(1, 2, 3, 4)),
        Written("InstanceNormalization", (X, *channel[:2]), constants=(1, 2)),
        Written("GroupNormalization", (_floats(2, 4, 3), _floats(2), _floats(2)), {"num_groups": 2}, until=20),
        Written("GroupNormalization", (_floats(2, 4, 3), _floats(4), _floats(4)), {"num_groups": 2}, since=21),
        Written("LRN", (IMAGE,), {"size": 3}),
        Written("LpNormalization", (_positive(2, 3),), {"axis": 1, "p": 1}),
        Written("MeanVarianceNormalization", (IMAGE,)),
        *_each("Softmax LogSoftmax Hardmax", X),
        *_each("Softmax LogSoftmax Hardmax", X, attributes={"axis": 1}),
        *_each("Softmax LogSoftmax Hardmax", X, attributes={"axis": 2}),
        *_each("Softmax LogSoftmax Hardmax", X, attributes={"axis": -1}, since=11),
        Written("LSTM", (_floats(4, 2, 3), _floats(1, 12, 3), _floats(1, 12, 3)), recurrent, 3, constants=(1, 2)),
        Written("GRU", (_floats(4, 2, 3), _floats(1, 9, 3), _floats(1, 9, 3)), recurrent, 2, constants=(1, 2)),
        Written("RNN", (_floats(4, 2, 3), _floats(1, 3, 3), _floats(1, 3, 3)), recurrent, 2, constants=(1, 2)),
        Written("Attention", (_floats(1, 2, 3, 4), _floats(1, 2, 3, 4), _floats(1, 2, 3, 4)), {"is_causal": 1}),
        Written("NegativeLogLikelihoodLoss", (_floats(3, 4), _ints(1, 0, 3))),
        Written("SoftmaxCrossEntropyLoss", (_floats(3, 4), _ints(1, 0, 3)), {"reduction": "sum"}),
    ]


def _images() -> list[Written]:
    boxes, numbers = np.array([[0, 0, 3, 3], [1, 1, 5, 4]], np.float32), _ints(0, 0)
    align = {"output_height": 2, "output_width": 2, "sampling_ratio": 2, "spatial_scale": 1.0}
    offsets = _floats(1, 8, 5, 5) / 4
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return [
        Written("Conv", (IMAGE, _floats(3, 2, 3, 3), _floats(3)), {"pads": [1, 1, 1, 1]}, constants=(1, 2)),
        Written("Conv", (IMAGE, _floats(3, 2, 3, 3)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, constants=(1,)),
        Written("ConvTranspose", (IMAGE, _floats(2, 3, 2, 2)), {"strides": [2, 2]}, constants=(1,)),
        Written("DeformConv", (IMAGE, _floats(3, 2, 2, 2), offsets), {"kernel_shape": [2, 2]}, constants=(1,)),
        *_each("GlobalAveragePool GlobalMaxPool GlobalLpPool", IMAGE),
        *_each("AveragePool MaxPool", IMAGE, attributes=window),
        *_each("AveragePool", IMAGE, attributes={**window, "pads": [1, 0, 1, 0], "count_include_pad": 1}),
        *_each("AveragePool MaxPool", IMAGE, attributes={**window, "ceil_mode": 1}, since=10),
        *_each("LpPool", IMAGE, attributes={**window, "p": 2}),
        Written("MaxRoiPool", (IMAGE, np.array([[0, 0, 0, 3, 3]], np.float32)), {"pooled_shape": [2, 2]}),
        Written("MaxUnpool", (_floats(1, 1, 2, 2), _ints([[[0, 6], [8, 15]]])), window, constants=(1,)),
        Written("RoiAlign", (IMAGE, boxes, numbers), align, until=15),
        Written(
            "RoiAlign", (IMAGE, boxes, numbers), {**align, "coordinate_transformation_mode": "half_pixel"}, since=16
        ),
        Written("GridSample", (IMAGE, _floats(1, 3, 3, 2) / 2), {"mode": "bilinear"}, until=19),
        Written("GridSample", (IMAGE, _floats(1, 3, 3, 2) / 2), {"mode": "linear"}, since=20),
        Written("Upsample", (IMAGE,), {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, until=8),
        Written("Upsample", (IMAGE,), {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}, until=8),
        Written("Upsample", (IMAGE, _float_vector(1, 1, 2, 2)), {"mode": "nearest"}, since=9, until=9, constants=(1,)),
        Written("Upsample", (IMAGE, _float_vector(1, 1, 2, 2)), {"mode": "linear"}, since=9, until=9, constants=(1,)),
        Written("Resize", (IMAGE, _float_vector(1, 1, 2, 2)), {"mode": "nearest"}, until=10, constants=(1,)),
        Written("Resize", (IMAGE, _float_vector(1, 1, 1.5, 0.5)), {"mode": "linear"}, until=10, constants=(1,)),
        Written("Resize", (IMAGE, _float_vector(1, 1, 1.3, 1.3)), {"mode": "nearest"}, until=10, constants=(1,)),
        Written("Resize", (IMAGE, _float_vector(1, 1, 0.7, 0.6)), {"mode": "nearest"}, until=10, constants=(1,)),
        Written("Resize", (IMAGE, _float_vector(1, 1, 1.3, 0.7)), {"mode": "nearest"}, until=10, constants=(1,)),
        Written("Resize", (IMAGE, _float_vector(), _float_vector(1, 1, 2, 2)), {}, since=11, constants=(1, 2)),
        Written(
            "Resize",
            (IMAGE, _float_vector(), _float_vector(), _ints(1, 2, 9, 4)),
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            since=11,
            constants=(1, 2, 3),
        ),
        Written(
            "Resize",
            (IMAGE, _float_vector(0, 0, 0.25, 0.25, 1, 1, 0.75, 0.75), _float_vector(), _ints(1, 2, 3, 4)),
            {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
            since=11,
            constants=(1, 2, 3),
        ),
        Written("DepthToSpace", (_floats(1, 4, 2, 3),), {"blocksize": 2}),
        Written("SpaceToDepth", (_floats(1, 1, 2, 4),), {"blocksize": 2}),
        Written(
            "NonMaxSuppression",
            (boxes[None], _positive(1, 1, 2), _ints(5), _float_vector(0.5), _float_vector(0.0)),
            constants=(2, 3, 4),
        ),
        Written("DFT", (_floats(1, 4, 3, 1),), {"axis": 1}, until=19),
        Written("DFT", (_floats(1, 4, 3, 1), None, _ints(1).reshape(())), since=20, constants=(2,)),
    ]


def _reductions() -> list[Written]:
    by_input = (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare"
    )
    found = [
        *_each("ArgMax ArgMin", X, attributes={"axis": 1, "keepdims": 0}),
        *_each("ArgMax ArgMin", X, attributes={"axis": -1, "select_last_index": 1}, since=12),
        *_each("ReduceSum", X, attributes={"axes": [1]}, until=12),
        *_each("ReduceSum", X, _ints(1), since=13, constants=(1,)),
        *_each("ReduceSum", X, attributes={"keepdims": 0}),
    ]
    for axes, keep in ([1], 1), ([0, 2], 0), ([-1], 0):
        since = 11 if axes == [-1] else OLDEST
        both = {"axes": axes, "keepdims": keep}
        found += _each(by_input, _positive(2, 3, 4), attributes=both, since=since, until=17)
        found += _each(
            by_input, _positive(2, 3, 4), _ints(*axes), attributes={"keepdims": keep}, since=18, constants=(1,)
        )
    return found + _each(by_input, _positive(2, 3, 4), attributes={"keepdims": 0})


def _shapes() -> list[Written]:
    pads = [0, 1, 0, 0, 2, 1]
    return [
        Written("Concat", (_floats(2, 3), _floats(2, 1)), {"axis": 1}),
        Written("Expand", (_floats(3, 1), _ints(2, 3, 4)), constants=(1,)),
        Written("Flatten", (X,), {"axis": 2}),
        Written("Flatten", (X,), {"axis": -1}, since=11),
        Written("Pad", (X,), {"pads": pads, "value": 0.5}, until=10),
        Written("Pad", (X,), {"pads": pads, "mode": "reflect"}, until=10),
        Written("Pad", (X,), {"pads": pads, "mode": "edge", "value": 2.0}, until=10),
        Written("Pad", (X, _ints(*pads), _scalar(0.5)), since=11, constants=(1, 2)),
        Written("Pad", (X, _ints(*pads)), {"mode": "edge"}, since=11, constants=(1,)),
        Written("Reshape", (X, _ints(0, -1)), constants=(1,)),
        Written("Shape", (X,)),
        Written("Size", (X,)),
        Written("Slice", (X,), {"axes": [1, 2], "starts": [1, -3], "ends": [9, -1]}, until=9),
        Written("Slice", (X,), {"starts": [0, 1], "ends": [1, 3]}, until=9),
        Written("Slice", (X, _ints(1, -1), _ints(9, -9), _ints(1, 2), _ints(1, -2)), since=10, constants=(1, 2, 3, 4)),
        Written("Split", (_floats(4, 2),), {"axis": 0}, 2, until=17),
        Written("Split", (_floats(4, 2),), {"axis": 0, "split": [1, 3]}, 2, until=12),
        Written("Split", (_floats(4, 2), _ints(1, 3)), {"axis": 0}, 2, since=13, constants=(1,)),
        Written("Split", (_floats(5, 2),), {"axis": 0, "num_outputs": 2}, 2, since=18),
        Written("Squeeze", (_floats(2, 1, 3, 1),), {"axes": [1]}, until=12),
        Written("Squeeze", (_floats(2, 1, 3, 1), _ints(-1)), since=13, constants=(1,)),
        Written("Squeeze", (_floats(2, 1, 3, 1),)),
        Written("Unsqueeze", (_floats(2, 3),), {"axes": [0, 2]}, until=12),
        Written("Unsqueeze", (_floats(2, 3), _ints(0, -1)), since=13, constants=(1,)),
        Written("Tile", (_floats(2, 3), _ints(2, 1)), constants=(1,)),
        Written("Transpose", (X,), {"perm": [2, 0, 1]}),
        Written("Constant", (), lambda opset: {"value": onnx.numpy_helper.from_array(_ints(1, 2), "c")}),
        Written("Constant", (), {"value_floats": [1.0, 2.0]}, since=12),
        Written("ConstantOfShape", (_ints(2, 3),), {"value": onnx.numpy_helper.from_array(_ints(4), "c")}),
        Written("EyeLike", (_floats(3, 4),), {"k": 1}),
        Written("Range", (_scalar(1), _scalar(6), _scalar(2)), constants=(0, 1, 2)),
    ]


def _indices() -> list[Written]:
    rows = _ints([0, 2, 1], [1, 0, 0])
    return [
        Written("Compress", (X, np.array([True, False, True])), {"axis": 1}, constants=(1,)),
        Written("CumSum", (X, np.array(1, np.int32)), {"reverse": 1}, constants=(1,)),
        Written("Gather", (X, _ints([0, 2])), {"axis": 1}),
        Written("Gather", (X, _ints(-1)), {"axis": -1}, since=11),
        Written("GatherElements", (_floats(3, 3), rows)),
        Written("GatherND", (X, _ints([0, 1], [1, 2]))),
        Written("GatherND", (X, _ints([1], [2])), {"batch_dims": 1}, since=12),
        Written("NonZero", (_ints([1, 0], [0, 3]),)),
        Written("OneHot", (_ints(0, 2, -1), np.array(3), _float_vector(0, 5)), {"axis": 0}, constants=(1, 2)),
        Written("OneHot", (_ints([0, 2], [1, 1]), np.array(3), _float_vector(0, 5)), {"axis": -2}, constants=(1, 2)),
        Written("ReverseSequence", (_floats(4, 2), _ints(3, 2)), {"time_axis": 0, "batch_axis": 1}),
        Written("Scatter", (_floats(3, 3), rows, _floats(2, 3)), until=10),
        Written("ScatterElements", (_floats(3, 3), rows, _floats(2, 3))),
        Written("ScatterElements", (_floats(3, 3), rows, _floats(2, 3)), {"reduction": "add"}, since=16),
        Written("ScatterND", (X, _ints([0, 1], [1, 2]), _floats(2, 4))),
        Written("ScatterND", (X, _ints([0, 1], [1, 2]), _floats(2, 4)), {"reduction": "mul"}, since=16),
        Written("TopK", (X,), {"k": 2, "axis": 1}, 2, until=9),
        Written("TopK", (X, _ints(2)), {"axis": 1}, 2, since=10, constants=(1,)),
        Written("TopK", (X, _ints(2)), {"largest": 0}, 2, since=11, constants=(1,)),
        Written("Unique", (_ints(2, 1, 1, 3),), {"sorted": 1}, 4),
    ]


def _graph(name: str, inputs: Sequence[tuple[str, int, list[int]]], nodes: list[Any], outputs: list[str]) -> Any:
    given = [helper.make_tensor_value_info(*each) for each in inputs]
    return helper.make_graph(nodes, name, given, [onnx.ValueInfoProto(name=each) for each in outputs])


def _typed(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _branches(opset: int) -> dict[str, Any]:
    def branch(name: str, value: float) -> Any:
        constant = onnx.numpy_helper.from_array(_float_vector(value, 2), "c")
        nodes = [helper.make_node("Constant", [], [f"{name}_c"], value=constant)]
        if opset < 13:
            nodes.append(helper.make_node("Unsqueeze", [f"{name}_c"], [f"{name}_out"], axes=[0]))
        else:
            axes = onnx.numpy_helper.from_array(_ints(0), "a")
            nodes.append(helper.make_node("Constant", [], [f"{name}_a"], value=axes))
            nodes.append(helper.make_node("Unsqueeze", [f"{name}_c", f"{name}_a"], [f"{name}_out"]))
        return helper.make_graph(nodes, name, [], [_typed(f"{name}_out", TensorProto.FLOAT, [1, 2])])

    return {"then_branch": branch("then", 1), "else_branch": branch("else", 5)}


def _loop(opset: int) -> dict[str, Any]:
    nodes = [
        helper.make_node("Identity", ["go"], ["still"]),
        helper.make_node("Add", ["carried", "carried"], ["doubled"]),
        helper.make_node("Identity", ["doubled"], ["kept"]),
    ]
    inputs = [_typed("step", TensorProto.INT64, []), _typed("go", TensorProto.BOOL, [])]
    inputs.append(_typed("carried", TensorProto.FLOAT, [2]))
    outputs = [_typed("still", TensorProto.BOOL, []), _typed("doubled", TensorProto.FLOAT, [2])]
    outputs.append(_typed("kept", TensorProto.FLOAT, [2]))
    return {"body": helper.make_graph(nodes, "body", inputs, outputs)}


def _scan(opset: int) -> dict[str, Any]:
    nodes = [
        helper.make_node("Add", ["sum_in", "row"], ["sum_out"]),
        helper.make_node("Identity", ["sum_out"], ["scanned"]),
    ]
    inputs = [_typed("sum_in", TensorProto.FLOAT, [2]), _typed("row", TensorProto.FLOAT, [2])]
    outputs = [_typed("sum_out", TensorProto.FLOAT, [2]), _typed("scanned", TensorProto.FLOAT, [2])]
    return {"body": helper.make_graph(nodes, "body", inputs, outputs), "num_scan_inputs": 1}


def _control_flow() -> list[Written]:
    return [
        Written("If", (np.array(True),), _branches),
        Written("SplitToSequence", (_floats(4, 2), _ints(1, 3)), after=("SequenceAt", 1)),
        Written("SplitToSequence", (_floats(4, 2),), {"axis": 1, "keepdims": 0}, after=("SequenceAt", 1)),
        Written("Optional", (PAIR,), after=("OptionalGetElement", None), gives=PAIR),
        Written("OptionalGetElement", (_floats(2),), since=18),
        Written("OptionalHasElement", (_floats(2),), since=18),
        Written("Loop", (np.array(3), np.array(True), _floats(2)), _loop, 2, constants=(0, 1)),
        Written("Scan", (_floats(2), _floats(3, 2)), _scan, 2, since=9),
        Written("Scan", (None, _floats(4, 2), _floats(4, 3, 2)), _scan, 2, until=8),
    ]


_ALL = [
    *_elementwise(),
    *_matrices_and_norms(),
    *_images(),
    *_reductions(),
    *_shapes(),
    *_indices(),
    *_control_flow(),
]

WRITTEN = [replace(written, label=f"{written.op_type}{index}") for index, written in enumerate(_ALL)]
