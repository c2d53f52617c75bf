"""Inferred shapes hold for every size of the dimensions."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from modelport.graph.shapes.expr import Expr, symbol
from modelport.graph.shapes.infer import infer


def parsed(text: str, dims: str = "batch, 6, h, w") -> ir.Model:
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[{dims}] x) => (float y) {{ {text} }}'
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return ir.from_proto(proto)


def sizes_of(dims, sizes):
    return tuple(dim.evaluate(sizes) if isinstance(dim, Expr) else dim for dim in dims)


CHAINS = [
    "y = Flatten<axis = 2>(x)",
    "y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)",
    "y = MaxPool<kernel_shape = [3, 2], strides = [2, 2], ceil_mode = 1>(x)",
    'y = AveragePool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER">(x)',
    "y = SpaceToDepth<blocksize = 1>(x)",
    "y = DepthToSpace<blocksize = 1>(x)",
    "s = Constant<value_ints = [0, -1, 2]>() y = Reshape(x, s)",
    "s = Constant<value_ints = [0, 2, 3, -1]>() y = Reshape(x, s)",
    "s = Constant<value_ints = [1]>() e = Constant<value_ints = [-1]>() a = Constant<value_ints = [2]>() "
    "y = Slice(x, s, e, a)",
    "s = Constant<value_ints = [-1]>() e = Constant<value_ints = [-1000]>() a = Constant<value_ints = [3]>() "
    "y = Slice(x, s, e, a, s)",
    "s = Constant<value_ints = [0]>() e = Constant<value_ints = [3]>() a = Constant<value_ints = [2]>() "
    "t = Constant<value_ints = [2]>() y = Slice(x, s, e, a, t)",
    "y = Concat<axis = 2>(x, x, x)",
    "p = Constant<value_ints = [0, 0, 1, 2, 0, 0, 3, 4]>() y = Pad(x, p)",
    "r = Constant<value_ints = [2, 1, 3, 1]>() y = Tile(x, r)",
    "k = Constant<value_floats = [1.0, 1.0, 2.0, 0.5]>() y = Resize(x, , k)",
    'y = Einsum<equation = "bchw->whb">(x)',
    "t = Transpose<perm = [0, 1, 3, 2]>(x) y = MatMul(x, t)",
    "a, b, y = Split<axis = 1, num_outputs = 3>(x)",
    # The size of one axis, computed on and used as a target.
    "s = Shape(x) i = Constant<value_int = 2>() h = Gather(s, i) two = Constant<value_int = 2>() m = Mul(h, two) "
    "z = Constant<value_ints = [0]>() v = Unsqueeze(m, z) n = Constant<value_ints = [-1]>() "
    "t = Concat<axis = 0>(v, n) y = Reshape(x, t)",
    "s = Shape(x) p = ReduceProd<keepdims = 0>(s) six = Constant<value_int = 6>() q = Div(p, six) "
    "z = Constant<value_ints = [0]>() v = Unsqueeze(q, z) c = Constant<value_ints = [6]>() "
    "t = Concat<axis = 0>(v, c) y = Reshape(x, t)",
    "s = Shape<start = 2>(x) o = ConstantOfShape<value = float[1] {1.0}>(s) y = Mul(x, o)",
    "s = Shape<start = 3>(x) z = Constant<value_ints = [0]>() q = Squeeze(s, z) b = Constant<value_int = 0>() "
    "d = Constant<value_int = 1>() r = Range(b, q, d) c = Cast<to = 1>(r) y = Add(x, c)",
    "s = Shape(x) m = Constant<value_ints = [-1, -1, -1, -1]>() e = Equal(s, m) "
    "o = ConstantOfShape<value = int64[1] {1}>(s) r = Shape(o) t = Where(e, m, r) y = Expand(x, t)",
    "s = Shape<start = 0, end = 2>(x) f = Cast<to = 1>(s) k = Constant<value_floats = [1.0, 0.5]>() g = Mul(f, k) "
    "l = Floor(g) t = Cast<to = 7>(l) n = Constant<value_ints = [-1]>() u = Concat<axis = 0>(t, n) y = Reshape(x, u)",
    "y = ReduceMean<keepdims = 0>(x)",
    "b = Size(x) z = Constant<value_ints = [0]>() v = Unsqueeze(b, z) y = Reshape(x, v)",
]


@settings(max_examples=6, deadline=None)
@given(batch=st.integers(1, 5), h=st.integers(4, 9), w=st.integers(4, 9))
@pytest.mark.parametrize("text", CHAINS)
def test_inferred_dims_are_the_dims_of_what_is_computed(text, batch, h, w):
    model = parsed(text)
    sizes = {"batch": batch, "h": h, "w": w}
    info = infer(model)
    dims = info.dims(model.graph.outputs[0])

    y = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": np.zeros((batch, 6, h, w), np.float32)})[0]

    assert all(info.is_bound(dim) for dim in dims)
    assert sizes_of(dims, sizes) == y.shape


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    transposed=st.booleans(),
)
def test_a_convolution_of_any_window_has_its_dims(size, kernel, stride, dilation, pads, transposed):
    if not transposed and size + sum(pads) < dilation * (kernel - 1) + 1:
        return
    if transposed and (size - 1) * stride + dilation * (kernel - 1) + 1 - sum(pads) < 1:
        return
    op = "ConvTranspose" if transposed else "Conv"
    attributes = f"strides = [{stride}], dilations = [{dilation}], pads = [{pads[0]}, {pads[1]}]"
    model = parsed(f"s = Constant<value_ints = [3, 3, {kernel}]>() w = ConstantOfShape(s) y = {op}<{attributes}>(x, w)",
                   "batch, 3, length")  # fmt: skip
    named = infer(model).dims(model.graph.outputs[0])
    model.graph.inputs[0].shape = ir.Shape([2, 3, size])

    known = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True).graph.output[0]

    want = [dim.dim_value for dim in known.type.tensor_type.shape.dim]
    assert list(sizes_of(named, {"batch": 2, "length": size})) == want


def test_elements_of_shape_arithmetic_are_expressions():
    model = parsed("s = Shape(x) two = Constant<value_int = 2>() m = Mul(s, two) y = Cast<to = 1>(m)")
    info = infer(model)

    doubled = model.graph[2].outputs[0]
    assert info.elements(doubled) == (2 * symbol("batch"), 12, 2 * symbol("h"), 2 * symbol("w"))


def test_a_size_that_only_the_run_tells_has_a_symbol_and_a_source():
    model = parsed("n = NonZero(x) y = Cast<to = 1>(n)")
    info = infer(model)

    rows, count = info.dims(model.graph.outputs[0])
    assert rows == 4
    (name,) = count.symbols()
    assert (info.sources[name].value, info.sources[name].axis, info.sources[name].is_input) == ("n", 1, False)
    assert not info.is_bound(count)
    assert info.is_bound(symbol("batch") * 2)


def test_an_input_without_dim_names_gets_names_of_its_own():
    model = parsed("y = Relu(x)", "N, 3")
    model.graph.inputs[0].shape = ir.Shape([None, 3])
    info = infer(model)

    assert info.dims(model.graph.outputs[0]) == (symbol("x_dim0"), 3)
    assert info.sources["x_dim0"].value == "x"


def test_what_the_exporter_states_fills_what_cannot_be_inferred():
    model = parsed("y = foreign.Mystery(x)")
    model.graph[0].outputs[0].shape = ir.Shape(["batch", "2*h", 4])
    info = infer(model)

    assert info.dims(model.graph.outputs[0]) == (symbol("batch"), 2 * symbol("h"), 4)


def test_a_loop_that_grows_a_tensor_has_no_known_size():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N, 2] x, int64 n) => (float[M, 2] y, float[K, A, 2] z) {
            go = Constant<value = bool {1}>()
            y, z = Loop (n, go, x) <body = b (int64 i, bool c, float[R, 2] s) => 
            (bool d, float[S, 2] t, float[N, 2] u) {
                d = Identity(c)
                t = Concat<axis = 0>(s, x)
                u = Relu(x)
            }>
        }"""
    )
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    model = ir.from_proto(proto)
    info = infer(model)

    grown, stacked = (info.dims(value) for value in model.graph.outputs)
    assert grown[1] == 2
    assert not info.is_bound(grown[0])
    assert stacked[1:] == (symbol("N"), 2)


def test_branches_agree_on_what_they_have_in_common():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (bool c, float[N, 2] x) => (float y) {
            y = If (c) <
                then_branch = a () => (float r) { r = Relu(x) },
                else_branch = b () => (float q) { q = Concat<axis = 0>(x, x) }
            >
        }"""
    )
    for graph in (proto.graph, *(attribute.g for attribute in proto.graph.node[0].attribute)):
        graph.output[0].type.tensor_type.ClearField("shape")
    model = ir.from_proto(proto)
    info = infer(model)

    rows, columns = info.dims(model.graph.outputs[0])
    assert columns == 2
    assert not info.is_bound(rows)


def test_strings_of_which_none_is_left_out_stay_as_many():
    def normalized(stopwords: str) -> object:
        model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["" : 21]>
        g (string[batch] words) => (string[n] y) {{
          y = StringNormalizer <case_change_action = "LOWER"{stopwords}> (words)
        }}""")
        model.graph.outputs[0].shape = None
        return infer(model).dims(model.graph.outputs[0])

    assert normalized("") == (symbol("batch"),)
    assert normalized(', stopwords = ["a"]') != (symbol("batch"),)
