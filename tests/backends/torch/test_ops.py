"""Operators whose shapes, axes and settings are constants of the graph, as exporters write them, on symbolic sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelport.backends.torch.build import build
from modelport.backends.torch.ops import OPS, support
from tests.graph.running import run

RNG = np.random.default_rng(3)
F4 = ("batch", 4, 6, 8)

Case = tuple[str, dict[str, Any], list[np.ndarray | None], tuple[Any, ...]]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


CASES: dict[str, Case] = {
    "slice_backwards": ("Slice", {}, [ints(5, -1), ints(0, -99), ints(2, 3), ints(-2, -1)], F4),
    "slice_to_the_end": ("Slice", {}, [ints(1), ints(2**31 - 1), ints(-1)], F4),
    "slice_of_the_batch": ("Slice", {}, [ints(-1), ints(-(2**63)), ints(0), ints(-1)], F4),
    "pad_reflect": ("Pad", {"mode": "reflect"}, [ints(0, 0, 2, 1, 0, 0, 1, 3)], F4),
    "pad_edge": ("Pad", {"mode": "edge"}, [ints(0, 1, 0, 0, 0, 2, 0, 1)], F4),
    "pad_wrap": ("Pad", {"mode": "wrap"}, [ints(0, 0, 2, 0, 0, 0, 1, 0)], F4),
    "pad_constant": ("Pad", {}, [ints(0, 0, 1, 0, 0, 0, 2, 0), floats(7.0).reshape(())], F4),
    "reshape_zero_and_rest": ("Reshape", {}, [ints(0, -1, 8)], F4),
    "flatten_late": ("Flatten", {"axis": 3}, [], F4),
    "flatten_all": ("Flatten", {"axis": 0}, [], F4),
    "expand_both_ways": ("Expand", {}, [ints(3, 1, 1, 6, 1)], ("batch", 4, 6, 1)),
    "tile": ("Tile", {}, [ints(1, 2, 1, 3)], F4),
    "gather_negative": ("Gather", {"axis": 2}, [ints(-1, 0)], F4),
    "gather_scalar": ("Gather", {"axis": 0}, [np.array(-1)], F4),
    "gather_elements": ("GatherElements", {"axis": 3}, [np.full((1, 4, 6, 2), -3)], (1, 4, 6, 8)),
    "split_uneven": ("Split", {"axis": 3, "num_outputs": 3}, [], F4),
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, [], F4),
    "trilu": ("Trilu", {"upper": 0}, [np.array(-1)], F4),
    "cumsum_reverse": ("CumSum", {"exclusive": 1, "reverse": 1}, [np.array(2)], F4),
    "depth_to_space": ("DepthToSpace", {"blocksize": 2}, [], F4),
    "space_to_depth": ("SpaceToDepth", {"blocksize": 2}, [], F4),
    "resize_nearest": ("Resize", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
                       [None, floats(1, 1, 2, 2)], F4),
    "resize_nearest_half_pixel": ("Resize", {}, [None, floats(1, 1, 3, 2)], F4),
    "resize_linear": ("Resize", {"mode": "linear"}, [None, floats(1, 1, 1.7, 0.6)], F4),
    "resize_linear_corners": ("Resize", {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
                              [None, None, ints(2, 4, 9, 5)], (2, 4, 6, 8)),
    "resize_cubic": ("Resize", {"mode": "cubic"}, [None, floats(1, 1, 2, 1.5)], F4),
    "resize_cubic_other": ("Resize", {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
                           [None, floats(1, 1, 2, 1.5)], F4),
    "resize_channels": ("Resize", {"mode": "linear"}, [None, floats(1, 2, 1, 1)], F4),
    "max_pool_uneven": ("MaxPool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "strides": [2, 2]}, [], F4),
    "max_pool_same": ("MaxPool", {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, [], F4),
    "average_pool_uneven": ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1]}, [], F4),
    "average_pool_count": ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "count_include_pad": 1},
                           [], F4),
    "reduce_max": ("ReduceMax", {"keepdims": 0}, [ints(1, -1)], F4),
    "reduce_prod": ("ReduceProd", {"keepdims": 0}, [ints(1, 3)], F4),
    "reduce_log_sum_exp": ("ReduceLogSumExp", {}, [ints(-1)], F4),
    "arg_max_last": ("ArgMax", {"axis": 2, "select_last_index": 1}, [], F4),
    "clip_low": ("Clip", {}, [floats(0.1).reshape(())], F4),
    "subtract_from_a_number": ("Sub", {}, [floats(2.5).reshape(())], F4),
    "mod": ("Mod", {"fmod": 1}, [floats(-0.3)], F4),
    # The reference evaluator normalises as many channels as the batch has rows.
    "lrn": ("LRN", {"size": 4, "alpha": 0.1}, [], (4, 4, 6, 8)),
    "instance_norm": ("InstanceNormalization", {}, [floats(1, 2, 3, 4), floats(4, 3, 2, 1)], F4),
    "layer_norm": ("LayerNormalization", {"axis": -2}, [np.ones((6, 8), np.float32) * 3], F4),
    "conv_same_strided": ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
                          [RNG.standard_normal((5, 4, 3, 3)).astype(np.float32)], F4),
    "conv_transpose_uneven": ("ConvTranspose", {"pads": [0, 1, 1, 0], "strides": [2, 2], "output_padding": [1, 0]},
                              [RNG.standard_normal((4, 5, 3, 3)).astype(np.float32)], F4),
}  # fmt: skip


def model(case: Case) -> onnx.ModelProto:
    op_type, attributes, settings, shape = case
    names = ["" if value is None else f"c{place}" for place, value in enumerate(settings)]
    outputs = [f"y{place}" for place in range(attributes.get("num_outputs", 1))]
    node = helper.make_node(op_type, ["x", *names], outputs, **attributes)
    initializers = [
        numpy_helper.from_array(value, name) for value, name in zip(settings, names, strict=True) if value is not None
    ]
    kind = onnx.TensorProto.INT64 if op_type.startswith("Arg") else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("name", CASES)
def test_an_operator_with_constant_settings_computes_what_the_standard_says(name: str) -> None:
    proto = model(CASES[name])
    module = build(ir.from_proto(proto)).native
    for batch in (1, 3):
        shape = [batch if size == "batch" else size for size in CASES[name][3]]
        x = RNG.standard_normal(shape).astype(np.float32)
        expected = ReferenceEvaluator(proto).run(None, {"x": x})
        with torch.no_grad():
            found = module(torch.from_numpy(x))
        found = found if isinstance(found, tuple) else (found,)
        for value, reference in zip(found, expected, strict=True):
            assert str(value.dtype) == f"torch.{reference.dtype}"
            np.testing.assert_allclose(value.numpy(), reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[3][0] == "batch"])
def test_the_call_leaves_only_torch_in_the_graph(name: str) -> None:
    module = build(ir.from_proto(model(CASES[name]))).native
    targets = [node.target for node in module.graph.nodes if node.op == "call_function"]
    owners = {getattr(target, "__module__", None) or "torch" for target in targets}
    assert all(owner.split(".")[0] in ("torch", "_operator", "builtins", "math") for owner in owners)


def test_shape_arithmetic_leaves_no_tensors() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Mul", ["n", "length"], ["rows"]),
        helper.make_node("Concat", ["rows", "four"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    tensors = {"zero": ints(0), "one": ints(1), "four": ints(4)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("n", "length", 4))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    module = build(ir.from_proto(proto)).native
    assert not list(module.buffers())
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.randn(2, 3, 4),), dynamic_shapes=({0: dynamic, 1: dynamic},))
    assert program.module()(torch.randn(5, 7, 4)).shape == (35, 4)


def test_support_is_what_the_table_holds_and_what_the_host_can_do() -> None:
    assert support("Clip") == "native"
    assert support("Shape") == "native"
    assert support("LSTM", "modelport") == "native"
    assert {support(name) for name in ("If", "Loop", "Scan")} == {"custom"}
    assert support("StringNormalizer") == "fallback"
    assert support("ZipMap", "ai.onnx.ml") == "unsupported"
    assert support("Tokenizer", "com.example") == "unsupported"
    assert len({name for domain, name in OPS if not domain}) > 150


def test_equal_values_come_in_the_order_of_their_indices_and_go_home_so() -> None:
    import onnx_ir as ir

    import modelport as mp

    graph = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    top (float[batch, 6] x) => (float[batch, 4] values, int64[batch, 4] indices) {
      k = Constant <value_ints: ints = [4]> ()
      values, indices = TopK <axis = -1> (x, k)
    }""")
    x = np.array([[1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0]], "float32")
    there = mp.transfer(ir.to_proto(graph), to="torch")
    home = mp.transfer(there, to="onnx", example=x)
    for model in (there, home):
        np.testing.assert_array_equal(model(x)[1], [[4, 5, 0, 1], [0, 1, 2, 3]])


TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a sum of numbers": ("g () => (int64 y) <int64 c = {-3}> { y = Add(c, c) }", ()),
    "a sum of one-element vectors": ("g () => (int64[1] y) <int64[1] c = {-3}, int64 d = {2}> { y = Mul(c, d) }", ()),
    "a choice of two numbers": (
        "g (bool x) => (float16 y) <float16 a = {15872}, float16 b = {16640}> { y = Where(x, a, b) }",
        ("bool",),
    ),
    "a mean of integers": (
        "g (int64[3, 2] x) => (int64[1, 2] y) <int64[1] axes = {0}> { y = ReduceMean(x, axes) }",
        ("int64",),
    ),
    "truths of a known size": (
        "g () => (bool[3] y) <int64[1] n = {3}> { y = ConstantOfShape<value = bool[1] {1}>(n) }",
        (),
    ),
    "sizes that are split": (
        "g (float[a, b] x) => (int64[1] y, int64[1] z) { s = Shape(x) y, z = Split<num_outputs = 2>(s) }",
        ("float32",),
    ),
    "a dropout that says its mode alone": (
        "g (float[3, 2] x) => (float[3, 2] y, bool[3, 2] kept) <bool go = {0}> { y, kept = Dropout(x, , go) }",
        ("float32",),
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_known_has_its_dtype_and_rank(name: str) -> None:
    text, dtypes = TEXTS[name]
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    shapes = [[d.dim_value or 2 for d in value.type.tensor_type.shape.dim] for value in proto.graph.input]
    inputs = [(RNG.standard_normal(shape) * 9).astype(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    names = [value.name for value in proto.graph.input]
    expected = ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True)))
    with torch.no_grad():
        found = build(ir.from_proto(proto)).native(*(torch.from_numpy(np.asarray(x)) for x in inputs))
    for value, reference in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        assert str(value.dtype) == f"torch.{reference.dtype}"
        np.testing.assert_array_equal(value.numpy(), reference, strict=True)


def test_the_largest_values_of_regions_are_those_of_onnx_runtime() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 2, 7, 9] x, float[r, 5] rois) => (float[r, 2, 2, 3] y) {
      y = MaxRoiPool <pooled_shape = [2, 3], spatial_scale = 0.5> (x, rois)
    }""")
    x = np.random.default_rng(2).standard_normal((2, 2, 7, 9)).astype("float32")
    rois = np.array([[0, 0, 0, 17, 13], [1, 3, 1, 9, 11], [0, 4, 4, 5, 5], [1, 12, 8, 30, 30]], "float32")
    inputs = {"x": x, "rois": rois}
    found = build(model).native(torch.from_numpy(x), torch.from_numpy(rois))
    np.testing.assert_allclose(found.numpy(), run(model, inputs)[0], rtol=1e-6)
