"""The normal form computes what the graph computed, and loses no weight, no Dropout and no name."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from modelport.core.errors import UnsupportedOpError
from modelport.graph.normal import NORMAL_OPSET, normalize
from modelport.graph.weights import roles
from tests.graph.running import model_of, tensor, weight


def evaluate(model: ir.Model, *arrays: np.ndarray) -> list[np.ndarray]:
    feed = dict(zip([value.name for value in model.graph.inputs], arrays, strict=False))
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feed)


def op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


OLD_MODELS = [
    case for kind in ("simple", "pytorch-operator", "pytorch-converted") for case in load_model_tests(kind=kind)
]


@pytest.mark.parametrize("case", OLD_MODELS, ids=lambda case: case.name)
def test_a_graph_of_an_old_opset_computes_the_same(case):
    model = onnx.load(Path(case.model_dir) / "model.onnx")
    if any(not value.type.HasField("tensor_type") for value in model.graph.input):
        pytest.skip("the inputs are no tensors")
    files = sorted(glob.glob(f"{case.model_dir}/test_data_set_0/input_*.pb"), key=lambda f: int(f.split("_")[-1][:-3]))
    arrays = [onnx.numpy_helper.to_array(onnx.load_tensor(file)) for file in files]
    try:
        want = ReferenceEvaluator(model).run(None, dict(zip([v.name for v in model.graph.input], arrays, strict=False)))
    except (RuntimeError, TypeError, ValueError, IndexError):
        pytest.skip("onnx's reference evaluator does not run the original")

    normal = normalize(ir.from_proto(model))

    for mine, theirs in zip(evaluate(normal, *arrays), want, strict=True):
        if isinstance(theirs, np.ndarray) and theirs.dtype.kind in "OSU":
            assert mine.tolist() == theirs.tolist()
        elif isinstance(theirs, np.ndarray):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert normal.graph.opset_imports[""] == NORMAL_OPSET
    assert not normal.functions


def test_weights_used_or_not_stay_and_the_original_is_left_as_it_was():
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 2])
    w = weight(tape, "w", np.ones((2, 2), np.float32))
    weight(tape, "unused", np.ones(3, np.float32))
    doubled = tape.op("Add", [w, w])
    model = model_of(tape, [x], [tape.op("MatMul", [tape.op("Identity", [x]), doubled])])

    normal = normalize(model)

    assert op_types(normal) == ["Add", "MatMul"]
    assert roles(normal) == {"w": "parameter", "unused": "parameter"}
    assert set(normal.graph.initializers) == {"w", "unused"}
    assert normal.graph.initializers["w"].const_value is w.const_value
    assert op_types(model) == ["Add", "Identity", "MatMul"]
    assert model.graph.opset_imports[""] == 21


def test_dropout_stays_and_a_batch_norm_is_not_fused():
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 2])
    stats = [weight(tape, name, np.ones(2, np.float32)) for name in ("scale", "shift", "mean", "var")]
    y = tape.op("BatchNormalization", [x, *stats], {"momentum": 0.75})
    y = tape.op("Dropout", [y, tape.op("Constant", [], {"value": ir.tensor(np.float32(0.25))})])

    normal = normalize(model_of(tape, [x], [y]))

    assert op_types(normal) == ["BatchNormalization", "Dropout"]
    assert normal.graph[1].inputs[1].const_value.numpy() == np.float32(0.25)


def test_a_dropout_with_its_ratio_in_an_attribute_gets_it_as_an_input():
    proto = onnx.parser.parse_model(
        '<ir_version: 3, opset_import: ["" : 7]> g (float[N, 2] x) => (float[N, 2] y) { y = Dropout<ratio = 0.25>(x) }'
    )
    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Dropout"]
    assert normal.graph[0].inputs[1].const_value.numpy() == np.float32(0.25)


def test_initializers_listed_as_inputs_are_no_inputs():
    proto = onnx.parser.parse_model(
        """<ir_version: 3, opset_import: ["" : 9]>
        g (float[N, 2] x, float[2, 2] w) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"""
    )
    normal = normalize(ir.from_proto(proto))

    assert [value.name for value in normal.graph.inputs] == ["x"]
    assert roles(normal) == {"w": "parameter"}


def test_functions_are_inlined():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[N] x) => (float[N] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["" : 21]> twice (a) => (b) { b = Add(a, a) }"""
    )
    assert op_types(normalize(ir.from_proto(proto))) == ["Add"]


def test_a_chain_of_shape_arithmetic_becomes_a_constant_target():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[batch, seq, 12] x) => (float[a, b, c, d] y) {
            shape = Shape(x)
            head = Constant<value_ints = [0]>()
            two = Constant<value_ints = [2]>()
            heads = Constant<value_ints = [3, 4]>()
            step = Slice(shape, head, two)
            target = Concat<axis = 0>(step, heads)
            y = Reshape(x, target)
        }"""
    )
    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Reshape"]
    assert normal.graph[0].inputs[1].const_value.numpy().tolist() == [0, 0, 3, 4]
    assert str(normal.graph.outputs[0].shape) == "[batch,seq,3,4]"
    x = np.random.default_rng(0).standard_normal((2, 5, 12), np.float32)
    np.testing.assert_array_equal(evaluate(normal, x)[0], x.reshape(2, 5, 3, 4))


def test_a_large_fill_stays_a_computation():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[M] y) {
            size = Constant<value_ints = [100000000]>()
            zeros = ConstantOfShape(size)
            y = Concat<axis = 0>(x, zeros)
        }"""
    )
    assert op_types(normalize(ir.from_proto(proto))) == ["ConstantOfShape", "Concat"]


def test_outputs_keep_their_names_where_identities_go():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] a, float[N] b, float[N] c) {
            y = Relu(x)
            a = Identity(y)
            b = Identity(y)
            c = Identity(x)
        }"""
    )
    normal = normalize(ir.from_proto(proto))

    assert [value.name for value in normal.graph.outputs] == ["a", "b", "c"]
    assert op_types(normal) == ["Relu", "Identity", "Identity"]
    x = np.array([-1, 2], np.float32)
    np.testing.assert_array_equal(evaluate(normal, x), [[0, 2], [0, 2], x])


def test_what_changes_nothing_is_gone():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N, 3] x) => (float[N, 3] y) {
            zero = Constant<value_ints = [0]>()
            far = Constant<value_ints = [9223372036854775807]>()
            back = Constant<value_ints = [-1]>()
            low = Constant<value_ints = [-9223372036854775807]>()
            shape = Shape(x)
            a = Slice(x, zero, far, zero)
            b = Reshape(a, shape)
            c = Expand(b, shape)
            d = Transpose<perm = [0, 1]>(c)
            e = Cast<to = 1>(d)
            f = Concat<axis = 0>(e)
            g = Slice(f, back, low, zero, back)
            y = Relu(g)
        }"""
    )
    assert op_types(normalize(ir.from_proto(proto))) == ["Slice", "Relu"]


def test_an_operator_that_broadcasts_needs_no_expand():
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        f (float[b, 3, 1] x, float[b, 3, 4] y) => (float[b, 3, 4] z, float[b, 3, 4] w) {
            s = Shape (y)  e = Expand (x, s)  z = Mul (y, e)  w = Add (e, e)
        }"""
    )
    normal = normalize(model)
    assert op_types(normal).count("Expand") == 1
    mul = next(node for node in normal.graph if node.op_type == "Mul")
    assert [value.name for value in mul.inputs] == ["y", "x"]
    x, y = np.random.default_rng(0).standard_normal((2, 3, 1)), np.ones((2, 3, 4))
    for mine, theirs in zip(
        evaluate(normal, x.astype("float32"), y.astype("float32")), (x * y, 2 * x * y), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_what_says_only_a_dtype_a_shape_or_a_zero_is_simplified():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[batch, 3, 8, 8] x) => (float[batch, 256] y)
        <float[4, 3, 1, 1] w, float zero = {0}, int64[1] four = {4}> {
            like = CastLike(zero, w)
            bias = Expand(like, four)
            c = Conv(x, w, bias)
            s = Shape<start = 0, end = 1>(x)
            rest = Constant<value_ints = [256]>()
            target = Concat<axis = 0>(s, rest)
            y = Reshape<allowzero = 1>(c, target)
        }"""
    )
    values = onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    proto.graph.initializer.append(values)

    normal = normalize(ir.from_proto(proto))

    assert op_types(normal) == ["Conv", "Reshape"]
    assert [value.name for value in normal.graph[0].inputs] == ["x", "w"]
    assert normal.graph[1].inputs[1].const_value.numpy().tolist() == [0, 256]
    assert "allowzero" not in normal.graph[1].attributes


def test_a_bias_of_zeros_that_is_trained_stays():
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 3, 8, 8])
    w, b = weight(tape, "w", np.ones((4, 3, 1, 1), np.float32)), weight(tape, "b", np.zeros(4, np.float32))

    assert len(normalize(model_of(tape, [x], [tape.op("Conv", [x, w, b])])).graph[0].inputs) == 3


def test_constants_in_subgraphs_are_lifted_and_the_branches_still_run():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 11]> g (bool c, float[N] x) => (float[N] y) {
            y = If (c) <
                then_branch = a () => (float[N] r) { k = Constant<value_float = 2.0>() r = Mul(x, k) },
                else_branch = b () => (float[N] r) { k = Constant<value_float = 3.0>() r = Mul(x, k) }
            >
        }"""
    )
    normal = normalize(ir.from_proto(proto))

    x = np.array([1, 2], np.float32)
    np.testing.assert_array_equal(evaluate(normal, np.array(True), x)[0], 2 * x)
    np.testing.assert_array_equal(evaluate(normal, np.array(False), x)[0], 3 * x)


def test_an_operator_without_a_way_up_is_named():
    proto = onnx.parser.parse_model(
        """<ir_version: 3, opset_import: ["" : 7]>
        g (float[1, 3, 2] x, float[3] a, float[3] b, float[3] m, float[3] v) => (float[1, 3, 2] y, float[3] kept) {
            y, mean, var, kept, saved_var = BatchNormalization(x, a, b, m, v)
        }"""
    )
    with pytest.raises(UnsupportedOpError, match=r"BatchNormalization \(node 'y'\) of opset 7 .* saved mean"):
        normalize(ir.from_proto(proto))
