"""The operators of the normal form: what the standard's own test data does not reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.keras.building import draw, expected, portable

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from modelport.backends.keras.build import build  # noqa: E402
from modelport.backends.keras.ops.tensors import plus  # noqa: E402
from modelport.backends.keras.support import support  # noqa: E402


def check(text: str, folder: Path, *inputs: np.ndarray, native: bool = True) -> None:
    """The built model, saved and loaded, computes what ONNX Runtime does."""
    graph = portable(text)
    built = build(graph)
    assert native is not any(note.kind in ("fallback", "custom") for note in built.notes)
    built.native.save(folder / "m.keras")
    model = keras.saving.load_model(folder / "m.keras")
    names = [str(value.name) for value in graph.graph.inputs]
    found = model(list(inputs) if len(inputs) > 1 else inputs[0])
    wanted = expected(text, dict(zip(names, inputs, strict=True)))
    for mine, theirs in zip(found if isinstance(found, (list, tuple)) else [found], wanted, strict=True):
        mine = np.asarray(mine)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "heads are split": (
        """f (float[b, t, 6] x) => (float[b, t, 2, 3] y) {
            s = Shape <end = 2> (x)  h = Constant <value_ints = [2, 3]> ()
            n = Concat <axis = 0> (s, h)  y = Reshape (x, n)
        }""",
        (4, 5, 6),
    ),
    "a joined batch is split again": (
        """f (float[b, t, 6] x) => (float[b, t, 6] y) {
            s = Shape (x)  flat = Constant <value_ints = [-1, 6]> ()
            a = Reshape (x, flat)  r = Relu (a)  y = Reshape (r, s)
        }""",
        (4, 5, 6),
    ),
    "a token is repeated for the batch": (
        """f (float[b, 3, 2] x) => (float[b, 4, 2] y) {
            n = Shape <end = 1> (x)  tail = Constant <value_ints = [1, 2]> ()
            s = Concat <axis = 0> (n, tail)
            token = Constant <value = float[1, 1, 2] {1.5, -2.0}> ()
            e = Expand (token, s)  y = Concat <axis = 1> (e, x)
        }""",
        (3, 3, 2),
    ),
    "positions are counted": (
        """f (float[b, t] x) => (int64[t] y) {
            n = Shape <start = 1, end = 2> (x)  a = Squeeze (n)
            zero = Constant <value = int64 {0}> ()  one = Constant <value = int64 {1}> ()
            y = Range (zero, a, one)
        }""",
        (2, 5),
    ),
    "a table is cut to the length": (
        """f (float[b, t] x) => (float[b, t] y) {
            table = Constant <value = float[7] {0., 1., 2., 3., 4., 5., 6.}> ()
            zero = Constant <value_ints = [0]> ()  n = Shape <start = 1> (x)
            p = Slice (table, zero, n)  y = Add (x, p)
        }""",
        (2, 5),
    ),
    "a tensor is filled": (
        """f (float[b, t] x) => (float[t, b] y) {
            n = Shape (x)  one = Constant <value_ints = [1]> ()  zero = Constant <value_ints = [0]> ()
            a = Gather (n, one)  c = Gather (n, zero)  s = Concat <axis = 0> (a, c)
            y = ConstantOfShape <value = float[1] {2.5}> (s)
        }""",
        (2, 5),
    ),
    "a size is a result": (
        "f (float[b, t, 3] x) => (int64[3] s, int64 n) { s = Shape (x)  n = Size (x) }",
        (2, 5, 3),
    ),
    "sizes are computed with": (
        """f (float[b, t] x) => (float[b, t] y) {
            n = Shape <start = 1> (x)  f = Cast <to = 1> (n)  r = Sqrt (f)  y = Div (x, r)
        }""",
        (2, 5),
    ),
    "the last step is cut off": (
        """f (float[b, t, 2] x) => (float[b, u, 2] y) {
            n = Shape <start = 1, end = 2> (x)  one = Constant <value_ints = [1]> ()
            e = Sub (n, one)  zero = Constant <value_ints = [0]> ()
            y = Slice (x, zero, e, one)
        }""",
        (2, 5, 2),
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_sizes_that_are_not_static_need_no_custom_layer(case: str, tmp_path: Path) -> None:
    text, shape = SHAPES[case]
    check(text, tmp_path, draw(*shape))


NODES: dict[str, tuple[str, list[Any]]] = {
    "integers are divided towards zero": (
        "f (int64[n] a, int64[n] b) => (int64[n] y) { y = Div (a, b) }",
        [np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])],
    ),
    "bytes wrap around": (
        "f (uint8[n] a, uint8[n] b) => (uint8[n] y) { y = Add (a, b) }",
        [np.array([200, 3], np.uint8), np.array([100, 4], np.uint8)],
    ),
    "the remainder has the sign of the dividend": (
        "f (int32[n] a, int32[n] b) => (int32[n] y) { y = Mod <fmod = 1> (a, b) }",
        [np.array([-7, 7], np.int32), np.array([3, -3], np.int32)],
    ),
    "slices run backwards": (
        """f (float[n, 6] x) => (float[n, m] y) {
            s = Constant <value_ints = [-1]> ()  e = Constant <value_ints = [-9223372036854775807]> ()
            a = Constant <value_ints = [1]> ()  t = Constant <value_ints = [-2]> ()
            y = Slice (x, s, e, a, t)
        }""",
        [draw(2, 6)],
    ),
    "blocks are overlaid in any number of images": (
        """f (float[n, 12, 10] x) => (float[n, 3, 5, 6] y) {
            image = Constant <value_ints = [5, 6]> ()  block = Constant <value_ints = [2, 2]> ()
            y = Col2Im <strides = [2, 1], pads = [0, 0, 0, 0]> (x, image, block)
        }""",
        [draw(2, 12, 10)],
    ),
    "an equation has capital letters": (
        """f (float[n, 2, 3] a, float[n, 4, 3] b) => (float[n, 2, 4] y) {
            y = Einsum <equation = "B I D, B J D -> B I J"> (a, b)
        }""",
        [draw(5, 2, 3), draw(5, 4, 3, seed=1)],
    ),
    "negative indices count from the end": (
        "f (float[n, 4] x, int64[m] i) => (float[n, m] y) { y = Gather <axis = 1> (x, i) }",
        [draw(3, 4), np.array([-1, 0, -4])],
    ),
    "updates are added where they go": (
        'f (float[5] x, int64[3] i, float[3] u) => (float[5] y) { y = ScatterElements <reduction = "add"> (x, i, u) }',
        [draw(5), np.array([1, 1, -1]), draw(3, seed=1)],
    ),
    "pools round up": (
        """f (float[n, 2, 7, 7] x) => (float[n, 2, h, w] y) {
            y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 0], ceil_mode = 1> (x)
        }""",
        [draw(2, 2, 7, 7)],
    ),
    "pools skip": (
        "f (float[n, 2, 9] x) => (float[n, 2, h] y) { y = MaxPool <kernel_shape = [3], dilations = [2]> (x) }",
        [draw(2, 2, 9)],
    ),
    "corners are aligned": (
        """f (float[n, 2, 4, 5] x) => (float[n, 2, 8, 10] y) {
            e = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
            y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , e)
        }""",
        [draw(2, 2, 4, 5)],
    ),
    "cubic interpolation is that of the standard": (
        """f (float[n, 2, 4, 5] x) => (float[n, 2, 6, 8] y) {
            e = Constant <value_floats = [1.0, 1.0, 1.5, 1.6]> ()
            y = Resize <mode = "cubic"> (x, , e)
        }""",
        [draw(2, 2, 4, 5)],
    ),
    "edges are repeated": (
        """f (float[n, 3] x) => (float[n, 7] y) {
            p = Constant <value_ints = [0, 2, 0, 2]> ()  y = Pad <mode = "edge"> (x, p)
        }""",
        [draw(2, 3)],
    ),
    "the smallest are found": (
        """f (int64[n, 5] x) => (int64[n, 2] v, int64[n, 2] i) {
            k = Constant <value_ints = [2]> ()  v, i = TopK <largest = 0> (x, k)
        }""",
        [np.array([[4, -3, 9, -3, 0]])],
    ),
    "reductions of nothing are neutral": (
        """f (float[n, 0, 2] x) => (float[n, 2] y) {
            a = Constant <value_ints = [1]> ()  y = ReduceSum <keepdims = 0> (x, a)
        }""",
        [np.zeros((2, 0, 2), "float32")],
    ),
    "floats are cut to integers": (
        "f (float[n] x) => (int32[n] y) { y = Cast <to = 6> (x) }",
        [np.array([1.9, -1.9, 0.5], "float32")],
    ),
}


@pytest.mark.parametrize("case", NODES)
def test_an_operator_is_what_the_standard_says(case: str, tmp_path: Path) -> None:
    text, inputs = NODES[case]
    check(text, tmp_path, *inputs)


@pytest.mark.parametrize(
    "shapes",
    [
        ((7, 7), (7, 1)),
        ((3, 4, 4), (1, 4, 1)),
        ((2, 4, 5, 4), (4, 1, 1)),
        ((4,), (1, 4, 1)),
        ((4, 4), (1, 1, 4)),
        ((4, 1), (4,)),
    ],
)
def test_sums_are_broadcast_as_numpy_does(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = draw(*shapes[0]), draw(*shapes[1], seed=1)
    np.testing.assert_allclose(plus(tf.constant(a), tf.constant(b)), a + b, rtol=1e-6)


def test_a_sum_is_right_where_the_batch_is_as_long_as_the_features() -> None:
    text = "f (float[b, 7] x, float[b, 1] m) => (float[b, 7] y) { y = Add (x, m) }"
    model = build(portable(text)).native
    x, m = draw(7, 7), draw(7, 1, seed=1)
    np.testing.assert_allclose(model([x, m]), x + m, rtol=1e-6)


def test_what_depends_on_values_runs_in_a_layer_of_its_own(tmp_path: Path) -> None:
    check(
        "f (float[n, 3] x) => (int64[2, m] y) { y = NonZero (x) }", tmp_path, np.eye(3, dtype="float32"), native=False
    )


def test_support_tells_native_from_fallback_and_unsupported() -> None:
    assert support("Add") == "native"
    assert support("NonZero") == "custom"
    assert support("Loop") == "custom"
    assert support("ImageDecoder") == "fallback"
    assert support("Add", "somewhere.else") == "unsupported"


REGIONS = {
    "a mean": "sampling_ratio = 2, output_height = 2, output_width = 3, spatial_scale = 0.5",
    "the old corners": """coordinate_transformation_mode = "output_half_pixel", sampling_ratio = 3,
        output_height = 2, output_width = 2""",
}


@pytest.mark.parametrize("attributes", REGIONS.values(), ids=REGIONS)
def test_regions_are_sampled_between_the_pixels(attributes: str, tmp_path: Path) -> None:
    text = f"""f (float[n, 2, 6, 7] x, float[r, 4] rois, int64[r] which) => (float[r, 2, a, b] y) {{
        y = RoiAlign <{attributes}> (x, rois, which)
    }}"""
    rois = np.array([[1, 2, 9, 8], [-3, 0, 4, 20], [0, 0, 1, 1]], np.float32)
    check(text, tmp_path, draw(2, 2, 6, 7), rois, np.array([0, 1, 1]))


@pytest.mark.parametrize("mask", [False, True])
def test_the_points_of_a_kernel_are_moved(mask: bool, tmp_path: Path) -> None:
    inputs = ", float[n, 8, 5, 3] m" if mask else ""
    text = f"""f (float[n, 4, 6, 6] x, float[6, 2, 2, 2] w, float[n, 16, 5, 3] o, float[6] b{inputs})
    => (float[n, 6, 5, 3] y) {{
        y = DeformConv <group = 2, offset_group = 2, pads = [0, 1, 0, 0], strides = [1, 2]> (x, w, o, b{", m" * mask})
    }}"""
    given = [draw(2, 4, 6, 6), draw(6, 2, 2, 2), 2 * draw(2, 16, 5, 3), draw(6)]
    check(text, tmp_path, *given, *([draw(2, 8, 5, 3)] if mask else []))


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ((9,), "strides = [2]"),
        ((9, 8), "strides = [2, 2], pads = [1, 0, 1, 2]"),
        ((9, 8), "dilations = [2, 3]"),
        ((9, 8), "strides = [2, 1]"),
        ((9, 8, 7), "strides = [1, 2, 2], pads = [1, 1, 1, 1, 1, 1]"),
        ((9, 8, 7), "strides = [2, 1, 1], dilations = [2, 2, 2]"),
        ((9, 8, 7), "strides = [2, 1, 2]"),
    ],
)
def test_every_channel_is_convolved_by_itself(sizes: tuple[int, ...], settings: str, tmp_path: Path) -> None:
    dims, kernel = (", ".join(map(str, each)) for each in (sizes, [3] * len(sizes)))
    result = ", ".join("abc"[: len(sizes)])
    text = f"""f (float[n, 4, {dims}] x, float[8, 1, {kernel}] w) => (float[n, 8, {result}] y) {{
        y = Conv <group = 4, {settings}> (x, w)
    }}"""
    check(text, tmp_path, draw(2, 4, *sizes), draw(8, 1, *[3] * len(sizes)))


NARROW = {
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
    "FLOAT4E2M1": "float4_e2m1fn",
}


@pytest.mark.parametrize("kind", NARROW)
def test_numbers_are_rounded_to_a_narrow_type_as_by_ml_dtypes(kind: str) -> None:
    import ml_dtypes
    import onnx_ir as ir

    from modelport.backends.keras.ops.narrow import MINIFLOATS, rounded_to

    target = np.dtype(getattr(ml_dtypes, NARROW[kind]))
    most = float(ml_dtypes.finfo(target).max)
    codes = np.arange(16 if most == 6 else 256, dtype=np.uint8)
    exact = np.unique(codes.view(target).astype("float32"))
    exact = exact[np.isfinite(exact)]
    # Every number of the type, what lies half way between two of them, and close to that.
    middle = (exact[1:] + exact[:-1]) / 2
    x = np.concatenate([exact, middle, np.nextafter(middle, 0), np.nextafter(middle, most, dtype="float32")])
    found = np.asarray(rounded_to(tf.constant(x), MINIFLOATS[ir.DataType[kind]], saturate=True))
    np.testing.assert_array_equal(found, x.astype(target).astype("float32"))
