"""Operators over axes of which only the run tells the size, without a custom layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.keras.building import draw

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from tests.backends.keras.test_ops import check

CASES: dict[str, tuple[str, list[Any]]] = {
    "a mask is looked up by row and position": (
        "f (bool[b, t] x, int64[b, t, 2] i) => (bool[b, t] y) { y = GatherND (x, i) }",
        [np.array([[True, False, True], [False, False, True]]), np.array([[[0, 0], [0, 1], [1, 2]]] * 2)],
    ),
    "rows are gathered in each element of the batch": (
        "f (float[b, t, 3] x, int64[b, m, 1] i) => (float[b, m, 3] y) { y = GatherND <batch_dims = 1> (x, i) }",
        [draw(2, 4, 3), np.array([[[3], [0]], [[1], [-1]]])],
    ),
    "a table is repeated for every row": (
        """f (float[2, 3] x, float[b, t] z) => (float[u, 3] y) {
            n = Shape <end = 1> (z)  one = Constant <value_ints = [1]> ()
            r = Concat <axis = 0> (n, one)  y = Tile (x, r)
        }""",
        [draw(2, 3), draw(4, 5)],
    ),
    "one row becomes as many as there are steps": (
        """f (float[1, b, 3] x, float[b, t] z) => (float[t, b, 6] y) {
            n = Shape <start = 1> (z)  tail = Constant <value_ints = [1, 2]> ()
            r = Concat <axis = 0> (n, tail)  y = Tile (x, r)
        }""",
        [draw(1, 4, 3), draw(4, 5)],
    ),
    "the middle of a table is cut out, as wide as the input but no wider than it is": (
        """f (float[b, t] z) => (float[u] y) {
            table = Constant <value = float[12] {0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.}> ()
            n = Shape <start = 1> (z)  six = Constant <value_ints = [6]> ()
            w = Min (n, six)  s = Sub (six, w)  e = Add (six, w)  y = Slice (table, s, e)
        }""",
        [draw(2, 4)],
    ),
    "the upper triangle of what is not square": (
        """f (float[b, t, u] x) => (float[b, t, u] y) {
            k = Constant <value = int64 {1}> ()  y = Trilu <upper = 1> (x, k)
        }""",
        [draw(2, 4, 3)],
    ),
    "the lower triangle below one length": (
        "f (float[b, t, 5] x) => (float[b, t, 5] y) { y = Trilu <upper = 0> (x) }",
        [draw(2, 4, 5)],
    ),
    "what pairs leave over is filled up": (
        """f (float[b, t, 3] x) => (float[b, t, 3] y) {
            n = Shape <start = 1, end = 2> (x)  two = Constant <value_ints = [2]> ()
            h = Div (n, two)  e = Mul (h, two)  zero = Constant <value_ints = [0]> ()
            a = Constant <value_ints = [1]> ()  c = Slice (x, zero, e, a)
            r = Sub (n, e)  p = Concat <axis = 0> (zero, r)
            v = Constant <value = float {1.5}> ()  y = Pad (c, p, v, a)
        }""",
        [draw(2, 5, 3)],
    ),
    "frequencies of an axis of any length": (
        "f (float[b, t, 1] x) => (float[b, t, 2] y) { a = Constant <value = int64 {1}> ()  y = DFT (x, , a) }",
        [draw(2, 7, 1) / 10],
    ),
    "what has frequencies of an axis of any length": (
        """f (float[b, t, 3, 2] x) => (float[b, t, 3, 2] y) {
            a = Constant <value = int64 {1}> ()  y = DFT <inverse = 1> (x, , a)
        }""",
        [draw(2, 7, 3, 2) / 10],
    ),
    "a row for every frame of a sound": (
        """f (float[1, 3] x, float[b, 1, t] z) => (float[u, 3] y) {
            w = Constant <value = float[1, 1, 2] {1.0, 2.0}> ()
            c = Conv <kernel_shape = [2], strides = [3]> (z, w)
            n = Shape <start = 2> (c)  three = Constant <value_ints = [3]> ()
            s = Concat <axis = 0> (n, three)  y = Expand (x, s)
        }""",
        [draw(1, 3), draw(2, 1, 8)],
    ),
    "a row for every step but the first three, if there are more": (
        """f (float[1, 3] x, float[b, t] z) => (float[u, 3] y) {
            n = Shape <start = 1> (z)  three = Constant <value_ints = [3]> ()  d = Sub (n, three)
            zero = Constant <value_ints = [0]> ()  m = Max (d, zero)
            s = Concat <axis = 0> (m, three)  y = Expand (x, s)
        }""",
        [draw(1, 3), draw(2, 5)],
    ),
    "as much is put before as there is": (
        """f (float[b, t] x) => (float[b, u] y) {
            n = Shape <start = 1> (x)  zeros = Constant <value_ints = [0, 0]> ()
            tail = Constant <value_ints = [0]> ()  head = Constant <value_ints = [0]> ()
            p = Concat <axis = 0> (head, n, zeros)  y = Pad <mode = "edge"> (x, p)
        }""",
        [draw(2, 5)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_length_that_is_not_static_needs_no_custom_layer(case: str, tmp_path: Path) -> None:
    text, inputs = CASES[case]
    check(text, tmp_path, *inputs)


def test_a_table_is_not_cut_wider_than_it_is(tmp_path: Path) -> None:
    text, _ = CASES["the middle of a table is cut out, as wide as the input but no wider than it is"]
    check(text, tmp_path, draw(2, 9))
