"""What random graphs have shown to be wrong once, as small as it gets."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from modelport.core.registry import backend as registered
from tests.properties.agreement import trouble, values_of
from tests.properties.graphs import Example


@dataclass(frozen=True)
class Found:
    """A graph in ONNX's textual form.

    Attributes:
        text: the graph.
        opset: of the graph.
        sizes: of its symbolic dimensions, for two runs.
        most: integers among the inputs are drawn from 1 to it.
        weights: initializers by name, drawn in these shapes.
        on: the backends.
    """

    text: str
    opset: int = 21
    sizes: tuple[dict[str, int], ...] = ({"n": 2, "t": 3}, {"n": 3, "t": 5})
    most: int = 3
    weights: tuple[tuple[str, tuple[int, ...]], ...] = ()
    on: tuple[str, ...] = ("torch", "keras", "onnx")

    def example(self) -> Example:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {self.opset}]> {self.text}')
        rng = np.random.default_rng(5)
        for name, shape in self.weights:
            array = rng.uniform(-1, 1, shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        feeds = tuple({v.name: self._drawn(v, sizes, rng) for v in model.graph.input} for sizes in self.sizes)
        names = [value.name for value in model.graph.output]
        bare = Example(model, feeds, ({},) * len(feeds), dict.fromkeys(names, 1e-4))
        known = [values_of(bare, feed) for feed in feeds]
        return Example(model, feeds, tuple({name: values[name] for name in names} for values in known), bare.tolerances)

    def _drawn(self, value: onnx.ValueInfoProto, sizes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in kind.shape.dim]
        if dtype.kind in "iu":
            return np.asarray(rng.integers(1, self.most, shape, endpoint=True), dtype)
        return np.asarray(rng.uniform(-2, 2, shape), dtype)


RNN = (("w", (1, 2, 3)), ("r", (1, 2, 2)))

FINDINGS = {
    "a recurrent layer goes backwards over sequences of different lengths": Found(
        """g (float[4, n, 3] x, int32[n] lengths) => (float[a, b, c, d] y, float[a, b, c] last) {
            y, last = RNN<direction = "reverse", hidden_size = 2, activations = ["Relu"]>(x, w, r, , lengths)
        }""",
        weights=RNN,
        most=4,
    ),
    "a recurrent layer goes both ways over sequences of different lengths": Found(
        """g (float[4, n, 3] x, int32[n] lengths) => (float[a, b, c, d] y, float[a, b, c] last) {
            y, last = GRU<direction = "bidirectional", hidden_size = 2, clip = 0.5>(x, w, r, , lengths)
        }""",
        weights=(("w", (2, 6, 3)), ("r", (2, 6, 2))),
        most=4,
    ),
    "an LSTM clips what goes into its gates": Found(
        """g (float[4, n, 3] x) => (float[a, b, c, d] y, float[a, b, c] last) {
            y, last = LSTM<clip = 0.3, hidden_size = 2>(x, w, r)
        }""",
        weights=(("w", (1, 8, 3)), ("r", (1, 8, 2))),
    ),
    "an LSTM couples its input and forget gates": Found(
        """g (float[4, n, 3] x) => (float[a, b, c, d] y, float[a, b, c] last) {
            y, last = LSTM<input_forget = 1, hidden_size = 2>(x, w, r)
        }""",
        weights=(("w", (1, 8, 3)), ("r", (1, 8, 2))),
    ),
    "an LSTM has peepholes": Found(
        """g (float[4, n, 3] x, int32[n] lengths) => (float[a, b, c, d] y, float[a, b, c] last) {
            y, last = LSTM<clip = 0.8, direction = "reverse", hidden_size = 2>(x, w, r, , lengths, , , p)
        }""",
        weights=(("w", (1, 8, 3)), ("r", (1, 8, 2)), ("p", (1, 6))),
        most=4,
    ),
    "the norm of one integer is an integer": Found(
        "g (int32 x) => (int32 y, int32 z, int32 w) { y = ReduceL2(x) z = ReduceMean(x) w = ReduceSum(x) }"
    ),
    "corners are aligned where the scale leads": Found(
        """g (float[n, 2, 3, 5] x) => (float[a, b, c, d] y) <float[4] scales = {1.0, 1.0, 1.5, 1.5}> {
            y = Resize<coordinate_transformation_mode = "align_corners", mode = "linear">(x, , scales)
        }""",
        on=("torch", "keras"),
    ),
    "equal parts whose sizes are left out by name": Found(
        "g (float[6] x) => (float[a] y, float[b] z) { p, q = Split(x, ) y = Relu(p) z = Neg(q) }", opset=16
    ),
    "a branch hangs on a size that is returned too": Found(
        """g (float[4] x, float[n] z) => (bool test, float[a] y) <int64 four = {3}> {
            size = Size(x) test = Greater(size, four)
            known = Size(z) flag = Greater(known, four)
            y = If(test) <then_branch = t () => (float[b] p) { p = Relu(z) q = If(flag) <
                then_branch = u () => (float[b] r) { r = Neg(z) }, else_branch = v () => (float[b] s) { s = Abs(z) }> },
                else_branch = e () => (float[b] q) { q = Neg(z) }>
        }"""
    ),
    "a range of nothing is quantised": Found(
        """g (float[n] x) => (uint8[a] y, float scale, uint8 zero, float[b] back) <float none = {0.0}> {
            nothing = Mul(x, none)
            y, scale, zero = DynamicQuantizeLinear(nothing)
            back = DequantizeLinear(y, scale, zero)
        }""",
        on=("torch", "keras"),
    ),
    "an axis of any size is split into equal parts": Found(
        """g (float[4, t] x) => (float[a, b] y, float[c, d] z, float[e, f] w) {
            long = Concat<axis = 1>(x, x)
            y, z = Split<axis = 1, num_outputs = 2>(long) w = Split<axis = 1, num_outputs = 1>(x)
        }"""
    ),
    "corners of any size are aligned": Found(
        """g (float[2, 2, n, t] x) => (float[a, b, c, d] y) <float[2] scales = {1.5, 2.0}> {
            y = Resize<axes = [2, 3], coordinate_transformation_mode = "align_corners", mode = "linear">(x, , scales)
        }""",
        on=("torch",),
    ),
    "a loop uses two sizes from around it": Found(
        """g (float[n, t] x, int64 trips, int64[2] start) => (int64[a] y, int64[b, c] all) {
            s = Shape(x)
            y, all = Loop(trips, , start) <
                body = b (int64 i, bool c, int64[2] state) => (bool go, int64[2] next, int64[2] item) {
                go = Identity(c) next = Add(state, s) item = Identity(s)
            }>
        }"""
    ),
    "a convolution of one channel has unequal strides": Found(
        """g (float[n, 1, 5, 4] x) => (float[a, b, c, d] y) { y = Conv<auto_pad = "VALID", strides = [1, 2]>(x, w) }""",
        weights=(("w", (1, 1, 3, 3)),),
    ),
    "a convolution of each channel has unequal strides": Found(
        """g (float[n, 2, 5, 4] x) => (float[a, b, c, d] y) { y = Conv<group = 2, strides = [1, 2]>(x, w) }""",
        weights=(("w", (4, 1, 3, 3)),),
    ),
    "a convolution of one channel is transposed with unequal strides": Found(
        """g (float[n, 1, 5, 4] x) => (float[a, b, c, d] y) { y = ConvTranspose<strides = [1, 2]>(x, w) }""",
        weights=(("w", (1, 1, 3, 3)),),
    ),
    "unsigned numbers come round": Found("g () => (uint8 y) <uint8 a = {0}, uint8 b = {2}> { y = Sub(a, b) }"),
    "a causal convolution without its state has a type": Found(
        """g (float[n, 2, 4] x) => (float[a, b, c] y) <int64 axis = {2}> {
            z = CausalConvWithState(x, w) y = CumProd(z, axis)
        }""",
        opset=28,
        weights=(("w", (2, 1, 2)),),
        on=("torch", "keras"),
    ),
    "a number below zero is divided by a size": Found(
        """g (float[n, t] x) => (int64[2] y, int64[2] z) <int64[1] one = {-1}, int64[1] two = {-2}> {
            s = Shape(x) y = Div(one, s) z = Div(s, two)
        }"""
    ),
    "an empty sequence is filled in a loop": Found(
        """g (float[4, n] x, int64[4, 2] places) => (int64[a] y, float[b, c, d] z) <int64 first = {0}> {
            parts = SplitToSequence(x)
            mapped = SequenceMap(parts) <
                body = b (float[e, f] i) => (float[g, h] o) { o = Transpose<perm = [1, 0]>(i) }
            >
            part = SequenceAt(mapped, first) y = Shape(part) z = Gather<axis = 0>(part, places)
        }""",
        most=1,
    ),
    "a state of a loop grows, and what follows from it": Found(
        """g (float[n] x, float[n, t] y, int64 trips) => (float[a] p, float[b, c] q, int64[2, 2] shapes) {
            p, q, shapes = Loop(trips, , x, y) <body = b (int64 i, bool c, float[d] u, float[e, f] v) =>
                (bool go, float[g] wide, float[h, j] tall, int64[2] shape) {
                go = Identity(c) wide = Concat<axis = 0>(u, u) shape = Shape(v) tall = Concat<axis = 0>(v, v)
            }>
        }""",
    ),
    "one element is gathered by its whole place": Found(
        """g (float[t] x) => (float[a] y) <int64[1] place = {-2}> {
            one = GatherND(x, place) most = ReduceMax<keepdims = 0>(one) y = Add(x, most)
        }"""
    ),
    "what comes before each of no elements is summed": Found(
        """g (float[3, n] x, float[2, t] z) => (float[a, b] y, float[c, d] last, float[e, f] first) <
            int64[1] one = {1}, int64[1] three = {3}, int64 axis = {1}
        > {
            part = Slice(x, one, three, one) y = CumSum<exclusive = 1, reverse = 1>(part, axis)
            last = CumSum<exclusive = 1>(z, axis) first = CumSum<exclusive = 1, reverse = 1>(z, axis)
        }""",
        sizes=({"n": 1, "t": 3}, {"n": 4, "t": 1}),
        on=("torch", "keras"),
    ),
    "nothing has a largest element": Found(
        """g (float[3, n, 2] x, float[2, t] z) => (float[a, b, c] y, float[d, e] hot, float[f, h] none) <
            int64[1] one = {1}, int64[1] three = {3}, float[2, 0] nothing = {}
        > {
            part = Slice(x, one, three, one) y = Hardmax<axis = 1>(part)
            hot = Hardmax(z) none = Hardmax(nothing)
        }""",
        sizes=({"n": 1, "t": 3}, {"n": 4, "t": 1}),
        on=("torch", "keras"),
    ),
    "numbers up to a size that lies before the first": Found(
        """g (float[n, t] x, float[0] nothing) => (int64[a] y, int64[b] down, int64[c] none) <
            int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 back = {-1}
        > {
            s = Shape(x) n = Gather(s, zero) t = Gather(s, one)
            y = Range(two, n, one) down = Range(n, t, back)
            e = Shape(nothing) empty = Gather(e, zero) none = Range(one, empty, two)
        }""",
        sizes=({"n": 1, "t": 3}, {"n": 4, "t": 1}),
    ),
    "frames of odd length have their frequencies": Found(
        """g (float[n, 10, 1] x) => (float[a, b, c, d] y, float[e, f, h, i] z) <int64 step = {1}, int64 size = {3}> {
            y = STFT(x, step, , size) z = DepthToSpace<blocksize = 2>(y)
        }""",
    ),
    "parts whose lengths are left out by name drop their axis": Found(
        """g (float[3, n] x, int64[n] lengths) => (int64[a] y) <int64 first = {0}> {
            parts = SplitToSequence<axis = 0, keepdims = 0>(x, )
            whole = ConcatFromSequence<axis = 0, new_axis = 1>(parts) y = Shape(whole)
        }""",
    ),
    "a filter is as wide as the smaller of two scales makes it": Found(
        """g (float[n, 5, 6, 5] x) => (float[a, b, c, d] y) <int64[2] sizes = {2, 1}> {
            y = Resize<antialias = 1, axes = [2, 3], mode = "cubic", cubic_coeff_a = -0.5,
                keep_aspect_ratio_policy = "not_smaller">(x, , , sizes)
        }""",
        on=("torch", "keras"),
    ),
    "one size is reduced": Found(
        """g (float[n, t] x) => (int64 y, int64 z, int64[1] w) <int64 first = {0}, int64[1] axis = {0}> {
            s = Shape(x) n = Gather(s, first)
            y = ReduceProd<keepdims = 1>(n) z = ReduceSum<keepdims = 1>(n) w = ReduceSum(s, axis)
        }"""
    ),
    "the norm of large integers is exact": Found(
        "g (int64 x) => (int64[1] y) <int64[1] large = {2147483647}> { y = ReduceL2(large) }", on=("torch", "keras")
    ),
    "half precision is clipped on one side": Found(
        "g (float16[n, t] x) => (float16[a, b] y, float16[c, d] z) { y = Clip<max = 1.5>(x) z = Clip<min = 0.5>(x) }",
        opset=10,
        on=("torch", "keras"),
    ),
    "a number that is known is stacked": Found(
        """g (float[n] x) => (double y, double[a] z) <double one = {1.5}, double two = {2.5}, int64[1] axis = {0}> {
            y = Add(one, two) wide = Unsqueeze(y, axis) z = Concat<axis = 0>(wide, wide)
        }"""
    ),
    "keys of any number are kept beside those that were": Found(
        """g (float[2, 1, n, 4] q, float[2, 1, t, 4] k, float[2, 1, t, 4] v, float[2, 1, n, 4] was)
            => (float[a, b, c, d] z, float[e, f, h, i] keys) <
            int64[1] one = {1}, int64[1] axis = {2}, int64[1] end = {2}
        > {
            y, kept, values = Attention(q, k, v, , was, was) tall = Selu(kept) keys = Slice(tall, one, end, axis)
            z = Relu(y)
        }""",
        opset=24,
        on=("torch", "keras"),
    ),
    "one scale is kept for sizes that are rounded": Found(
        """g (float[n, 1, 6, 4] x) => (float[a, b, c, d] y) <int64[2] sizes = {7, 3}> {
            y = Resize<axes = [2, 3], mode = "linear", keep_aspect_ratio_policy = "not_smaller">(x, , , sizes)
        }""",
        on=("torch", "keras"),
    ),
    "numbers up to one that lies before the first": Found(
        "g (int64 x) => (int64[n] y) <int64 first = {5}, int64 step = {1}> { y = Range(first, x, step) }"
    ),
    "one number of half precision": Found(
        """g (bfloat16 x) => (bfloat16 y, bfloat16 z) <int64[0] shape = {}, bfloat16[1] one = {16256}> {
            z = Reshape(one, shape) y = Neg(x)
        }""",
        on=("torch", "keras"),
    ),
    "attention in the body of a loop": Found(
        """g (float[2, 3, n, 4] x, int64 trips) => (float[a, b, c, d] y) {
            y = Loop(trips, , x) <body = b (int64 i, bool c, float[2, 3, e, 4] s) => (bool go, float[f, g, h, j] next) {
                go = Identity(c) next = Attention(s, s, s)
            }>
        }""",
        opset=24,
    ),
    "what Keras takes for uint32": Found(
        """g (uint64[n, 2] x, float[n] z) => (uint64[a] y, uint64[b, c] wide, uint64[d, e] half) <
            uint64[2] large = {1099511627776, 5}, uint64[2] one = {1, 2}
        > { y = Add(large, one) wide = Concat<axis = 0>(x, x) half = Trilu(x) }""",
        on=("torch", "keras"),
    ),
    "a known number is dropped": Found("g (float[n] x) => (float y) <float one = {1.5}> { y = Dropout(one) }", opset=8),
    "a product of integers comes round": Found(
        """g (float[n] x) => (int32 y, int32 z) <int32[3] w = {65536, 65536, 3}> {
            y = ReduceProd<keepdims = 0>(w) z = Neg(y)
        }""",
        on=("torch", "keras"),
    ),
    "a kernel is a weight elsewhere": Found(
        """g (float[n, 2, 4, 4] x) => (float[a, b, c, d] y, float[e, f, h, i] z) <
            int64[4] shape = {2, 3, 2, 2}, float[1] one = {1.0}
        > { kernel = Expand(one, shape) y = ConvTranspose(x, kernel, b) z = Conv(x, w, c3) }""",
        weights=(("b", (3,)), ("w", (3, 2, 2, 2)), ("c3", (3,))),
    ),
    "neighbours at a whole scale that do not come in equal numbers": Found(
        """g (float[2, 2, n, t] x) => (float[a, b, c, d] y, float[e, f, h, i] z) <
            float[4] scales = {1.0, 1.0, 2.0, 3.0}
        > {
            y = Resize<coordinate_transformation_mode = "asymmetric", nearest_mode = "round_prefer_ceil">(x, , scales)
            z = Resize<nearest_mode = "ceil">(x, , scales)
        }"""
    ),
    "elements of nothing are gathered": Found(
        """g (float[0, n, t] x, int32[0, n, 2] places) => (float[a, b, c] y) {
            y = GatherElements<axis = 2>(x, places)
        }""",
        on=("torch", "keras"),
    ),
    "a branch returns what is around it": Found(
        """g (bool test, float[n, t] x, float[1, 4, 5, 5] image) => (float[a, b] y, float[c, d, e, f] z) {
            p = Neg(x) z = DepthToSpace<blocksize = 2>(image)
            y = If(test) <then_branch = t () => (float[g, h] q) { q = Transpose<perm = [0, 1]>(p) },
                else_branch = u () => (float[i, j] r) { r = Abs(p) }>
        }"""
    ),
    "places of maxima in a batch of any size": Found(
        """g (float[n, 2, 3, 4] x) => (float[a, b, c, d] y, int64[e, f, h, i] places) {
            y, places = MaxPool<kernel_shape = [2, 3], pads = [1, 1, 1, 1], strides = [1, 2]>(x)
        }"""
    ),
    "channels of which only the run tells whether there are any are normalised": Found(
        """g (float[4, t, 6, 3] x) => (float[a, b, c, d] y) <
            int64[1] one = {1}, int64[1] two = {2}, float[1] mean = {-2.0}, float[1] variance = {0.5}
        > { part = Slice(x, one, two, one, one) y = BatchNormalization(part, w, b, mean, variance) }""",
        weights=(("w", (1,)), ("b", (1,))),
    ),
    "small integers of two sizes that only the run tells": Found(
        "g (int8[n, 3, t] x) => (int8[a, b, c] y) <int64[3] sizes = {0, -1, 3}> { y = Reshape(x, sizes) }"
    ),
    "only the first result of attention of any length is used": Found(
        """g (float[1, n, 4] x) => (float[a, b, c] y) {
            y, "", "" = Attention<is_causal = 1, kv_num_heads = 2, q_num_heads = 2>(x, x, x)
        }""",
        opset=24,
    ),
    "the least of each of no rows": Found(
        """g (float[n, 1, 0] x, int64[1, 0] z) => (float[a, b] y, int64[c, d] w) <int64[1] first = {0}> {
            y = ReduceMax<keepdims = 0>(x, first) w = ReduceMin<keepdims = 1>(z, first)
        }""",
    ),
    "integers beyond single precision are multiplied": Found(
        """g (int64[n, 2] x) => (int64[a, b] y, int64[c] z) <int64[2, 2] w = {16777217, 3, 5, 16777219}> {
            y = MatMul(x, w) z = Einsum<equation = "ij,jk->i">(y, w)
        }""",
    ),
    "each of a sequence that a map has made is mapped": Found(
        """g (float[n, 2] x) => (float[a, b] y) <int64 first = {0}> {
            s = SequenceConstruct(x, x)
            t = SequenceMap(s) <body = b (float[c, d] i) => (float[e, f] o) { o = Neg(i) }>
            part = SequenceAt(t, first) u = SequenceConstruct(part, x)
            w = SequenceMap(u) <body = h (float[k, l] i) => (float[p, q] o) { o = Abs(i) }>
            y = SequenceAt(w, first)
        }""",
    ),
    "a recurrent layer of as many steps as only the run tells": Found(
        """g (float[t, n, 3] x) => (float[a, b, c, d] y, float[e, f, h] last, float[i, j, k, l] z) {
            y, last = RNN<direction = "reverse", hidden_size = 2>(x, w, r) z = GRU<hidden_size = 2>(x, w3, r3)
        }""",
        weights=(*RNN, ("w3", (1, 6, 3)), ("r3", (1, 6, 2))),
        on=("keras", "onnx"),
    ),
    "two results of an old operator have no names": Found(
        """g (float[t, n, 3] x) => (float[a, b, c] y) { "", "", y = LSTM<clip = 0.5, hidden_size = 2>(x, w, r) }""",
        opset=7,
        weights=(("w", (1, 8, 3)), ("r", (1, 8, 2))),
        on=("keras", "onnx"),
    ),
    "a convolution is laid out from sizes that only the run tells": Found(
        """g (float[2, 2, n, t] x, float[3, 2, 2, 2] w) => (float[a, b, c, d] y, float[e, f, h, i] z) {
            y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)
            v = Transpose<perm = [1, 0, 2, 3]>(w) z = ConvTranspose<strides = [2, 3]>(x, v)
        }"""
    ),
    "one axis of three that are known or not is spread": Found(
        """g (float[n, 2, 4, t] x, float[2, 3, 2, 2] w) => (float[a, b, c, d] y) {
            y = ConvTranspose<strides = [2, 1]>(x, w)
        }"""
    ),
    "the two zeros are equal": Found(
        """g (float[3, 4] x) => (float[3, 4] y) <float nothing = {0}> {
            zeros = Mul(x, nothing) y = Hardmax(zeros)
        }"""
    ),
    "nothing is scattered": Found(
        """g (float[3, n] x, int64[2, 1] places) => (float[a, b] y) <
            int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}
        > {
            part = Slice(x, one, three, one) rows = Slice(part, zero, two, zero)
            y = ScatterND<reduction = "max">(part, places, rows)
        }""",
        sizes=({"n": 1}, {"n": 4}),
        most=2,
    ),
    "packed heads of any number of steps": Found(
        """g (float[n, t, 4] x) => (float[a, b, c] y) {
            y = Attention<is_causal = 1, kv_num_heads = 2, q_num_heads = 2>(x, x, x)
        }""",
        opset=24,
    ),
    "a convolution of as many channels as only the run tells": Found(
        """g (float[n, t, 5] x, float[n, t, 5] z) => (float[a, b, c] y, float[d, e, f] v) {
            y = ConvTranspose(x, w) v = Conv(z, w2)
        }""",
        sizes=({"n": 2, "t": 2}, {"n": 3, "t": 2}),
        weights=(("w", (2, 3, 2)), ("w2", (3, 2, 2))),
    ),
    "nothing is reflected": Found(
        """g (float[n, t, 0] x) => (float[a, b, c] y) <int64[6] pads = {0, 1, 0, 0, 1, 0}> {
            y = Pad<mode = "reflect">(x, pads)
        }""",
        sizes=({"n": 2, "t": 2}, {"n": 3, "t": 4}),
        on=("torch", "keras"),
    ),
    "rows of nothing are normalised": Found(
        """g (float[n, 0, 3] x) => (float[a, b, c] y) <float[0, 3] scale = {}, float[0, 3] bias = {}> {
            y = LayerNormalization<axis = -2>(x, scale, bias)
        }""",
        on=("keras",),
    ),
    "bits of tensors of different shapes": Found(
        """g (int64 x, int64[n, 1] z) => (int64[a] y, int64[b, c] w, int64[d, e] v) <
            int64[3] bits = {2, 5, 6}, uint8[1, 3] small = {1, 2, 3}
        > {
            y = BitwiseAnd(x, bits) w = BitwiseXor(bits, z)
            s = Cast<to = 2>(z) t = BitShift<direction = "LEFT">(s, small) v = Cast<to = 7>(t)
        }""",
        on=("torch", "keras"),
    ),
    "a constant is convolved with what is given": Found(
        "g (float[3, 2, 2] x) => (float[a, b, c] y) { y = Conv<strides = [2]>(w, x) }",
        weights=(("w", (1, 2, 5)),),
    ),
    "shares along one of six axes": Found(
        """g (float[1, n, t, 1, n, 3] x) => (float[a, b, c, d, e, f] y, float[h, i, j, k, l, m] z) {
            y = Softmax(x) z = LogSoftmax<axis = 1>(x)
        }"""
    ),
    "a bias is a constant and its kernel a weight": Found(
        """g (float[n, 1, 4] x, float[2, n, 3] z) => (float[a, b, c] y, float[d, e, f] v) {
            v, y = Scan<num_scan_inputs = 1, body = g (float[h, i, j] s, float[k, l] part) =>
                (float[o, p, q] next, float[r, t] row) <float[2] bias = {0.5, -1.0}> {
                made = Conv(s, w, bias) low = ReduceMin<keepdims = 1>(made) next = Add(s, low) row = Identity(part)
            }>(x, z)
        }""",
        weights=(("w", (2, 1, 3)),),
    ),
    "constants are pooled as the standard says": Found(
        """g (float[n] x) => (float[n] y) <float[1, 1, 2, 3] c = {1.0, -2.0, 0.5, 3.0, -1.5, 2.5}> {
            lp = LpPool<kernel_shape = [2, 3], p = 3, pads = [0, 1, 0, 0], ceil_mode = 1, strides = [1, 2]>(c)
            most = MaxPool<kernel_shape = [2, 2], pads = [0, 1, 0, 0]>(c)
            a = ReduceSum<keepdims = 0>(lp) b = ReduceSum<keepdims = 0>(most) both = Add(a, b) y = Add(x, both)
        }"""
    ),
    "text is inserted behind the last": Found(
        """g (float[n] x) => (int64[a] y) <string[1] a = {"a"}, string[1] b = {"b"}, int64 end = {1}> {
            items = SequenceConstruct(a) more = SequenceInsert(items, b, end) all = ConcatFromSequence<axis = 0>(more)
            same = Equal(all, a) flags = Cast<to = 7>(same) n = Shape(x) y = Mul(flags, n)
        }"""
    ),
    "channels that have been moved are resized": Found(
        """g (float[1, 4, 1, 2] x) => (float[a, b, c, d] y) <float[4] scales = {1.0, 1.0, 0.5, 2.0}> {
            moved = Transpose<perm = [0, 2, 3, 1]>(x) y = Resize<mode = "linear">(moved, , scales)
        }"""
    ),
    "a part of int8 numbers is dequantized": Found(
        """g (int8[n, 4] x) => (float[a, b] y)
        <float scale = {0.5}, int8 zero = {3}, int64[1] start = {0}, int64[1] end = {1}> {
            all = DequantizeLinear(x, scale, zero) y = Slice(all, start, end)
        }"""
    ),
    "an old Slice leaves nothing": Found(
        """g (int64[2] x, float[n] z) => (int64[a] y, float[b] w) <int64[0] none = {}> {
            p = Slice<starts = [1], ends = [-1]>(x) y = Div(p, none) w = Identity(z)
        }""",
        opset=7,
    ),
    "a part of a matrix whose places only the run tells": Found(
        """g (float[n, t] x, int64[1] last) => (float[a, b] y) <int64[1] first = {0}> {
            p = Slice(x, first, last) q = Transpose(p) y = MatMul(p, q)
        }""",
        most=1,
    ),
    "no elements are taken from nothing": Found(
        "g (int32[n, 1, 1, 0] x, float[n, 1, 0, 0] z) => (float[a, b, c, d] y) { y = GatherElements<axis = 1>(z, x) }",
        on=("torch", "keras"),
    ),
    "an LSTM reads a size that only its weights tell": Found(
        """g (float[n, 1, t] x) => (float[a, b, c, d] y, float[e, f, h] last) {
            y, last = LSTM<direction = "reverse", hidden_size = 2>(x, w, r)
        }""",
        weights=(("w", (1, 8, 3)), ("r", (1, 8, 2))),
        sizes=({"n": 2, "t": 3}, {"n": 3, "t": 3}),
        on=("keras", "onnx"),
    ),
    "as many channels as only the run tells are normalised by their neighbours": Found(
        "g (float[2, n, t, 3] x) => (float[a, b, c, d] y) { y = LRN<size = 3>(x) }"
    ),
}


@pytest.mark.parametrize("backend", ["torch", "keras", "onnx"])
@pytest.mark.parametrize("name", FINDINGS)
def test_what_was_found_is_right_now(name: str, backend: str) -> None:
    found = FINDINGS[name]
    if backend in found.on:
        told = trouble(registered(backend), found.example())
        assert not told, re.sub(r"\s+", " ", told)
