"""What only the run tells, in TensorFlow: eagerly, inside `tf.function`, with gradients, and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from tests.backends.keras.building import draw

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from modelport.backends.keras import BACKEND  # noqa: E402
from modelport.backends.keras.build import build  # noqa: E402
from modelport.backends.keras.files import write_savedmodel  # noqa: E402
from modelport.graph.signature import read_signature  # noqa: E402


def model_of(text: str, opset: int = 21) -> onnx.ModelProto:
    domains = '"ai.onnx.ml" : 5, "ai.onnx.preview.training" : 1'
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, {domains}]> {text}')


def reference(model: onnx.ModelProto, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, dict(zip([v.name for v in model.graph.input], map(np.asarray, inputs), strict=True))))


def notes_of(built: Any) -> list[str]:
    return [note.kind for note in built.notes]


def ints(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


X = draw(4, 5, 6)

CASES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a shape with a rest": (
        "f (float[a,b,c] x, int64[2] s) => (float[p,q] y) { y = Reshape (x, s) }",
        (X, ints(0, -1)),
    ),
    "axes that go": (
        "f (float[a,b,c] x, int64[1] s) => (float[p,q] y) { y = Squeeze (x, s) }",
        (X[:, :1], ints(-2)),
    ),
    "axes that come": (
        "f (float[a,b] x, int64[2] s) => (float[p,q,r,t] y) { y = Unsqueeze (x, s) }",
        (X[0], ints(0, -1)),
    ),
    "a broadcast": (
        "f (float[a,1] x, int64[3] s) => (float[p,q,r] y) { y = Expand (x, s) }",
        (X[0, :, :1], ints(2, 1, 3)),
    ),
    "a slice from behind": (
        """f (float[a,b,c] x, int64[2] s, int64[2] e, int64[2] i, int64[2] d) => (float[p,q,r] y) {
            y = Slice (x, s, e, i, d)
        }""",
        (X, ints(9, 0), ints(-99, -1), ints(0, 2), ints(-1, 2)),
    ),
    "parts of given sizes": (
        "f (float[a,b,c] x, int64[2] s) => (float[p,q,r] y, float[t,u,v] z) { y, z = Split <axis = 1> (x, s) }",
        (X, ints(2, 3)),
    ),
    "repeats": ("f (float[a,b] x, int64[2] s) => (float[p,q] y) { y = Tile (x, s) }", (X[0], ints(2, 3))),
    "numbers from to": (
        "f (float a, float b, float c) => (float[n] y) { y = Range (a, b, c) }",
        (np.float32(5), np.float32(-2), np.float32(-1.5)),
    ),
    "an upper triangle": (
        "f (float[a,b] x, int64 k) => (float[a,b] y) { y = Trilu (x, k) }",
        (X[0], np.int64(1)),
    ),
    "a reflection": (
        'f (float[a,b,c] x, int64[6] s) => (float[p,q,r] y) { y = Pad <mode = "reflect"> (x, s) }',
        (X, ints(0, 2, 1, 0, 1, 3)),
    ),
    "an edge and a crop": (
        "f (float[a,b,c] x, int64[6] s, float v) => (float[p,q,r] y) { y = Pad (x, s, v) }",
        (X, ints(0, 2, -1, 0, -1, 3), np.float32(7)),
    ),
    "a centre": (
        "f (float[a,b,c] x, int64[2] s) => (float[p,q,r] y) { y = CenterCropPad <axes = [0, 2]> (x, s) }",
        (X, ints(2, 9)),
    ),
    "a running sum": (
        "f (float[a,b] x, int64 s) => (float[a,b] y) { y = CumSum <exclusive = 1, reverse = 1> (x, s) }",
        (X[0], np.int64(-1)),
    ),
    "a mean": (
        "f (float[a,b,c] x, int64[2] s) => (float[p] y) { y = ReduceMean <keepdims = 0> (x, s) }",
        (X, ints(0, -1)),
    ),
    "a norm": ("f (float[a,b,c] x, int64[1] s) => (float[p,q,r] y) { y = ReduceL2 (x, s) }", (X, ints(1))),
    "a log of sums of exponents": (
        "f (float[a,b,c] x, int64[1] s) => (float[p,q,r] y) { y = ReduceLogSumExp (x, s) }",
        (X, ints(1)),
    ),
    "the largest": (
        "f (float[a,b] x, int64[1] k) => (float[p,b] y, int64[q,b] z) { y, z = TopK <axis = 0> (x, k) }",
        (X[0], ints(2)),
    ),
    "the smallest": (
        "f (int32[a,b] x, int64[1] k) => (int32[p,q] y, int64[r,t] z) { y, z = TopK <largest = 0> (x, k) }",
        ((X[0] * 9).astype(np.int32), ints(2)),
    ),
    "one of many": (
        "f (int64[a] x, int64 d, float[2] v) => (float[a,q] y) { y = OneHot (x, d, v) }",
        (ints(0, -1, 2), np.int64(4), np.array([0.5, 2], np.float32)),
    ),
    "places of what is not zero": (
        "f (float[a,b] x) => (int64[2,n] y) { y = NonZero (x) }",
        (np.eye(3, 4, dtype="f"),),
    ),
    "different rows": (
        "f (float[a,b] x) => (float[p,b] y, int64[q] i, int64[r] j, int64[t] n) { y, i, j, n = Unique <axis = 0> (x) }",
        (np.array([[2, 1], [0, 3], [2, 1], [0, 1]], np.float32),),
    ),
    "an image in a new size": (
        """f (float[n,2,a,b] x, int64[4] s) => (float[p,2,q,r] y) {
            none = Constant <value = float[0] {}> ()
            y = Resize <mode = "cubic", coordinate_transformation_mode = "align_corners"> (x, none, none, s)
        }""",
        (draw(1, 2, 4, 5), ints(1, 2, 7, 3)),
    ),
    "an image on a new scale": (
        """f (float[n,2,a,b] x, float[4] s) => (float[p,2,q,r] y) {
            none = Constant <value = float[0] {}> ()
            y = Resize <mode = "linear", antialias = 1> (x, none, s)
        }""",
        (draw(1, 2, 8, 9), np.array([1, 1, 0.5, 0.7], np.float32)),
    ),
    "regions with as many samples as they have pixels": (
        """f (float[n,2,6,7] x, float[r,4] rois, int64[r] which) => (float[r,2,a,b] y) {
            y = RoiAlign <output_height = 2, output_width = 3> (x, rois, which)
        }""",
        (draw(2, 2, 6, 7), np.array([[0, 0, 6, 5], [1, 1, 2, 9], [-3, 2, 20, 3]], np.float32), ints(0, 1, 1)),
    ),
    "a transform of a length": (
        "f (float[a,b,2] x, int64 n) => (float[a,p,2] y) { y = DFT (x, n) }",
        (draw(2, 6, 2), np.int64(8)),
    ),
    "short transforms": (
        "f (float[a,b,1] x, int64 s, float[w] u) => (float[a,p,q,2] y) { y = STFT (x, s, u) }",
        (draw(2, 20, 1), np.int64(3), np.hanning(8).astype("f")),
    ),
    "a window": ("f (int64 n) => (float[p] y) { y = HannWindow (n) }", (np.int64(9),)),
    "elements that are looked up and put": (
        """f (float[a,b] x, int64[2] s, int64[c,d] i, int64 one) => (float[p,q] y, float[p,q] z) {
            yes = Constant <value = bool {1}> ()
            r = Reshape (x, s)  k = Loop (one, yes, r) <body =
            g (int64 n, bool go, float[e,f] h) => (bool on, float[e,f] t) {
                on = Identity (go)  u = GatherElements <axis = 1> (h, i)
                t = ScatterElements <axis = 1, reduction = "mul"> (h, i, u)
            }>
            y = Neg (k)  z = Exp (k)
        }""",
        (X[0], ints(6, 5), ints([0, -1], [3, 1]), np.array(2)),
    ),
    "a branch": (
        """f (float[a,b] x, bool c) => (float[a,b] y) {
            y = If (c) <
                then_branch = g () => (float[a,b] t) { t = Exp (x) },
                else_branch = h () => (float[a,b] e) { e = Neg (x) }>
        }""",
        (X[0], np.array(True)),
    ),
    "rounds of a loop": (
        """f (float[a,b] x, int64 n) => (float[a,b] y, float[n,a,b] all) {
            yes = Constant <value = bool {1}> ()
            y, all = Loop (n, yes, x) <body =
            g (int64 i, bool go, float[a,b] s) => (bool on, float[a,b] t, float[a,b] z) {
                on = Identity (go)  f = Cast <to = 1> (i)  u = Add (s, f)  t = Tanh (u)  z = Mul (t, x)
            }>
        }""",
        (X[0], np.int64(3)),
    ),
    "a loop until": (
        """f (float[a] x, float most) => (float[a] y) {
            yes = Constant <value = bool {1}> ()
            y = Loop (, yes, x) <body = g (int64 i, bool go, float[a] s) => (bool on, float[a] t) {
                two = Constant <value = float {2.0}> ()
                t = Mul (s, two)  m = ReduceMax <keepdims = 0> (t)  on = Less (m, most)
            }>
        }""",
        (np.array([1, 3], np.float32), np.float32(50)),
    ),
    "a sequence that grows in a loop": (
        """f (float[a,3] x, int64 n) => (float[m,3] y, int64 k) {
            yes = Constant <value = bool {1}> ()  none = SequenceEmpty ()  first = Constant <value = int64 {0}> ()
            s = Loop (n, yes, none) <body =
            g (int64 i, bool go, seq(float[p,3]) s0) => (bool on, seq(float[p,3]) s1) {
                on = Identity (go)  zero = Constant <value_ints = [0]> ()  one = Constant <value_ints = [1]> ()
                end = Add (i, one)  part = Slice (x, zero, end, zero)  s1 = SequenceInsert (s0, part, first)
            }>
            t = SequenceErase (s, first)  y = ConcatFromSequence <axis = 0> (t)  k = SequenceLength (t)
        }""",
        (X[0, :, :3], np.array(4)),
    ),
    "a scan from behind": (
        """f (float[b] s, float[n,b] x) => (float[b] y, float[b,n] all) {
            y, all = Scan <num_scan_inputs = 1, scan_input_directions = [1], scan_output_axes = [1],
                scan_output_directions = [1], body = g (float[b] h, float[b] p) => (float[b] k, float[b] q) {
                    k = Add (h, p)  q = Tanh (k)
                }> (s, x)
        }""",
        (X[0, 0], X[0]),
    ),
    "the largest of each window and where it is": (
        """f (float[a,2,b,c] x) => (float[a,2,d,e] y, int64[a,2,d,e] i, float[a,2,g,h] z, int64[a,2,g,h] j) {
            y, i = MaxPool <kernel_shape = [3, 2], pads = [1, 0, 1, 1], strides = [2, 1], ceil_mode = 1> (x)
            z, j = MaxPool <kernel_shape = [2, 2], dilations = [2, 1], storage_order = 1> (x)
        }""",
        (draw(3, 2, 6, 5),),
    ),
    "windows that are laid out from the size": (
        """f (float[a,2,b,c] x) => (float[a,2,d,e] y, float[a,2,g,h] z, float[a,2,i,j] w, float[a,2,k,l] v) {
            y = MaxPool <kernel_shape = [3, 2], auto_pad = "SAME_LOWER", strides = [2, 3]> (x)
            z = AveragePool <kernel_shape = [3, 2], auto_pad = "SAME_UPPER", strides = [2, 3]> (x)
            w = AveragePool <kernel_shape = [2, 3], pads = [1, 1, 0, 1], strides = [2, 2], ceil_mode = 1,
                count_include_pad = 1> (x)
            v = LpPool <kernel_shape = [2, 3], p = 3, strides = [2, 2], ceil_mode = 1> (x)
        }""",
        (draw(3, 2, 6, 5),),
    ),
    "the largest integer of each window": (
        """f (int8[a,1,b] x) => (int8[a,1,d] y) {
            y = MaxPool <kernel_shape = [3], pads = [1, 1], strides = [2], ceil_mode = 1> (x)
        }""",
        (np.arange(-6, 6).reshape(2, 1, 6).astype(np.int8),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_layer_of_ours_computes_what_the_standard_says_in_both_modes(case: str, tmp_path: Path) -> None:
    text, inputs = CASES[case]
    model = model_of(text)
    wanted = reference(model, inputs)
    built = build(ir.from_proto(model))
    assert set(notes_of(built)) - {"layout"} == {"custom"}
    signature = read_signature(ir.from_proto(model))
    eager = BACKEND.run(built.native, dict(zip([s.name for s in signature.inputs], inputs, strict=True)), signature)
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    traced = tf.function(built.native)(tf.nest.map_structure(tf.constant, given))
    results = traced if isinstance(traced, (list, tuple)) else [traced]
    for spec, found, want in zip(signature.outputs, results, wanted, strict=True):
        want = np.asarray(want)
        for mine in (eager[spec.name], found.numpy()):
            assert (mine.dtype, mine.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(mine, want, rtol=2e-4, atol=2e-5)


DIFFERENTIABLE = (
    "a shape with a rest", "a slice from behind", "a reflection", "a mean", "a norm", "the largest",
    "an image in a new size", "regions with as many samples as they have pixels", "a branch", "rounds of a loop",
    "a sequence that grows in a loop", "a scan from behind", "windows that are laid out from the size",
)  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_gradients_pass_eagerly_and_in_a_graph(case: str) -> None:
    text, inputs = CASES[case]
    native = build(ir.from_proto(model_of(text))).native
    place = next(i for i, x in enumerate(inputs) if x.dtype == np.float32 and x.ndim > 1)
    tensors = [tf.constant(x) for x in inputs]

    def loss(*given: Any) -> Any:
        found = native(list(given) if len(given) > 1 else given[0])
        return tf.reduce_sum(tf.sin((found if isinstance(found, (list, tuple)) else [found])[0]))

    gradients = []
    for function in (loss, tf.function(loss)):
        with tf.GradientTape() as tape:
            tape.watch(tensors[place])
            value = function(*tensors)
        gradients.append(tf.convert_to_tensor(tape.gradient(value, tensors[place])).numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)
    step = 1e-3 * np.random.default_rng(0).standard_normal(inputs[place].shape).astype("float32")
    moved = [tensor + step if i == place else tensor for i, tensor in enumerate(tensors)]
    back = [tensor - step if i == place else tensor for i, tensor in enumerate(tensors)]
    slope = (float(loss(*moved)) - float(loss(*back))) / 2
    assert slope == pytest.approx(float((gradients[0] * step).sum()), rel=0.05, abs=2e-5)


def test_a_model_with_a_loop_is_saved_in_both_formats_and_computes_the_same(tmp_path: Path) -> None:
    text, inputs = CASES["rounds of a loop"]
    native = build(ir.from_proto(model_of(text))).native
    wanted = native(list(inputs))
    native.save(tmp_path / "m.keras")
    write_savedmodel(native, tmp_path / "m", None, None)
    again = keras.saving.load_model(tmp_path / "m.keras")(list(inputs))
    served = tf.saved_model.load(str(tmp_path / "m")).serve([tf.constant(x) for x in inputs])
    for found in (again, served):
        for mine, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine, want, rtol=1e-6)


def test_the_weight_inside_a_loop_is_the_models_own_and_trains() -> None:
    text = """f (float[b,3] x, int64 n) => (float[b,3] y) <float[3,3] weight> {
        yes = Constant <value = bool {1}> ()
        y = Loop (n, yes, x) <body = g (int64 i, bool go, float[b,3] s) => (bool on, float[b,3] t) {
            on = Identity (go)  u = MatMul (s, weight)  t = Tanh (u)
        }>
    }"""
    model = model_of(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(draw(3, 3, seed=1), "weight"))
    del model.graph.value_info[:]
    native = build(ir.from_proto(model)).native
    assert [variable.shape for variable in native.trainable_variables] == [(1, 3, 3)]
    x = draw(2, 3)
    expected = x
    for _ in range(4):
        expected = np.tanh(expected @ draw(3, 3, seed=1))
    np.testing.assert_allclose(native([x, np.int64(4)]), expected, rtol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(native([x, np.int64(4)]))
    assert np.abs(tape.gradient(loss, native.trainable_variables)[0]).max() > 0


def run(text: str, *inputs: Any) -> tuple[list[str], list[Any]]:
    """The kinds of the notes, and the outputs."""
    graph = ir.from_proto(model_of(text))
    built = build(graph)
    signature = read_signature(graph)
    given = dict(zip([spec.name for spec in signature.inputs], inputs, strict=True))
    found = BACKEND.run(built.native, given, signature)
    return notes_of(built), [found[spec.name] for spec in signature.outputs]


def test_a_graph_without_inputs_gives_its_constant() -> None:
    kinds, (y,) = run("f () => (float[2] y) { y = Constant <value_floats = [1.0, 2.0]> () }")
    assert kinds == ["custom"]
    np.testing.assert_array_equal(y, np.array([1, 2], np.float32))


def test_strings_go_in_and_come_out() -> None:
    text = "f (string[n] x, string[n] z) => (string[n] y) { y = StringConcat (x, z) }"
    kinds, (y,) = run(text, np.array(["a", "ä"], object), np.array(["b", "ö"], object))
    assert (kinds, y.tolist(), y.dtype) == (["custom"], ["ab", "äö"], object)


def test_a_sequence_goes_in_and_another_comes_out() -> None:
    text = "f (seq(float[n]) s, float[n] x) => (seq(float[n]) y) { y = SequenceInsert (s, x) }"
    kinds, (y,) = run(text, [np.ones(2, "f")], np.zeros(3, "f"))
    assert kinds == ["custom"]
    assert [item.tolist() for item in y] == [[1, 1], [0, 0, 0]]


def test_what_nobody_else_has_runs_on_the_host_and_says_so() -> None:
    text = """f (float[n,2] x) => (int64[n] y, float[n,3] z) {
        y, z = ai.onnx.ml.SVMClassifier <classlabels_ints = [0, 1, 2]> (x)
    }"""
    built = build(ir.from_proto(model_of(text)))
    assert [(note.kind, "SVMClassifier" in note.message) for note in built.notes] == [("fallback", True)]


def test_only_what_a_sequence_passes_through_is_a_layer_of_ours() -> None:
    text = """f (float[n,3] x, int64[k] sizes, int64 which) => (float[m,2] y, float[n,3] z) <float[3,2] w, float[2] b> {
        r = Relu (x)  s = SplitToSequence (r, sizes)  e = SequenceAt (s, which)  t = SequenceAt (s, which)
        u = Neg (t)  p = Identity (u)  y = Gemm (e, w, b)  z = Exp (r)
    }"""
    model = model_of(text)
    del model.graph.value_info[:]
    weights = {"w": draw(3, 2, seed=1), "b": draw(2, seed=2)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    built = build(ir.from_proto(model))
    assert sorted(notes_of(built)) == ["changed", "changed", "custom"]
    assert [type(layer).__name__ for layer in built.native.layers if layer.weights] == ["Dense"]
    x = draw(5, 3)
    y, z = built.native([x, ints(2, 3), np.array(1)])
    np.testing.assert_allclose(y, np.maximum(x, 0)[2:] @ weights["w"] + weights["b"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(z, np.exp(np.maximum(x, 0)), rtol=1e-5)


def test_what_lies_between_two_parts_of_a_group_goes_into_it() -> None:
    text = """f (float[n] x, int64 k) => (float[m] y) {
        s = SequenceConstruct (x, x)  n = SequenceLength (s)  i = Sub (n, k)
        t = SequenceInsert (s, x, i)  y = ConcatFromSequence <axis = 0> (t)
    }"""
    kinds, (y,) = run(text, np.ones(2, "f"), np.array(1))
    assert (kinds, y.tolist()) == (["custom"], [1] * 6)


def test_a_model_of_ours_is_saved_and_has_its_weights_by_name(tmp_path: Path) -> None:
    text = """f (seq(float[n]) s) => (float[m] y) <float[3] w> {
        x = ConcatFromSequence <axis = 0> (s)  y = Mul (x, w)
    }"""
    model = model_of(text)
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(draw(3), "w"))
    graph = ir.from_proto(model)
    native = build(graph).native
    assert {name: array.tolist() for name, array in BACKEND.parameters(native).items()} == {"w": draw(3).tolist()}
    native.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    parts = [np.ones(1, "f"), np.ones(2, "f")]
    for each in (native, again):
        found = BACKEND.run(each, {"s": parts}, read_signature(graph))
        np.testing.assert_array_equal(found["y"], draw(3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(again([tf.constant(part) for part in parts]))
    np.testing.assert_array_equal(tape.gradient(loss, again.trainable_variables)[0], np.ones((1, 3), "f"))


def test_a_model_with_a_branch_and_a_loop_is_fitted_and_predicts() -> None:
    text = """f (float[b,3] x) => (float[b,1] y) <float[3,1] w> {
        two = Constant <value = int64 {2}> ()  n = Shape <start = 0, end = 1> (x)  k = Mod (n, two)  r = Squeeze (k)
        yes = Constant <value = bool {1}> ()  zero = Constant <value = float {0.0}> ()
        s = ReduceSum <keepdims = 0> (x)  c = Greater (s, zero)
        h = Loop (r, yes, x) <body = g (int64 i, bool go, float[b,3] p) => (bool on, float[b,3] q) {
            on = Identity (go)  q = Tanh (p)
        }>
        t = If (c) <then_branch = g () => (float[b,3] t1) { t1 = Neg (h) },
                    else_branch = e () => (float[b,3] t2) { t2 = Exp (h) }>
        y = MatMul (t, w)
    }"""
    model = model_of(text)
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(draw(3, 1), "w"))
    native = build(ir.from_proto(model)).native
    x, y = draw(9, 3), draw(9, 1, seed=3)
    native.compile(keras.optimizers.SGD(0.05), "mse")
    losses = native.fit(x, y, batch_size=9, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert losses[2] < losses[1] < losses[0]
    np.testing.assert_allclose(native.predict(x, batch_size=9, verbose=0), native(x), rtol=1e-5, atol=1e-6)


def test_a_long_loop_runs_as_a_graph_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelport.backends.keras.dynamic import control

    model = model_of("""f (float[b,3] x, int64 n) => (float[b,3] y, float[r,b,3] all) {
        y, all = Loop (n, , x) <body = g (int64 i, bool go, float[b,3] s) => (bool on, float[b,3] t, float[b,3] each) {
            j = Cast <to = 1> (i)  t = Add (s, j)  each = Sin (t)  on = Identity (go)
        }>
    }""")
    built, inputs = build(ir.serde.deserialize_model(model)), (draw(2, 3), np.int64(50))
    rounds: list[Any] = []
    evaluate = control.evaluate
    monkeypatch.setattr(control, "evaluate", lambda *given: rounds.append(given) or evaluate(*given))
    found = built.native([tf.constant(x) for x in inputs])
    for mine, theirs in zip(found, reference(model, inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert len(rounds) < 10


def test_a_long_loop_whose_state_grows_stays_right() -> None:
    model = model_of("""f (float[a] x, int64 n) => (float[c] y) {
        zero = Constant <value_ints = [0]> ()
        y = Loop (n, , x) <body = g (int64 i, bool go, float[d] s) => (bool on, float[e] t) {
            j = Cast <to = 1> (i)  k = Unsqueeze (j, zero)  t = Concat <axis = 0> (s, k)  on = Identity (go)
        }>
    }""")
    built, inputs = build(ir.serde.deserialize_model(model)), (draw(2), np.int64(20))
    np.testing.assert_allclose(built.native([tf.constant(x) for x in inputs]), reference(model, inputs)[0], rtol=1e-6)
