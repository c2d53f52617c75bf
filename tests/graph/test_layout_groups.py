"""Which axes a Reshape joins and splits, and which moves of axes are free."""

from __future__ import annotations

import pytest

from modelport.graph.layout.axis_groups import axis_groups, joined_order
from modelport.graph.layout.relayout import Dims, inverse, movable, steps


@pytest.mark.parametrize(
    ("source", "target", "groups"),
    [
        (("n", 8, 4, 4), ("n", 8, 16), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        (("n", 8, 4), ("n", 2, 4, 4), [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]),
        (("n", 8, 1, 1), ("n", 8), [((0,), (0,)), ((1,), (1,))]),
        (("n", 8, "h", "w"), ("n", 8, None), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        ((None, 8, 4), (None, 4), [((0, 1), (0,)), ((2,), (1,))]),
        ((6, 4), (4, 6), [((0, 1), (0, 1))]),
        (("n", "m"), ("m", "n"), [((0, 1), (0, 1))]),
    ],
)
def test_a_reshape_is_taken_apart_into_the_finest_groups(source: Dims, target: Dims, groups: list[object]) -> None:
    assert [(g.source, g.target) for g in axis_groups(source, target) or ()] == groups


def test_nothing_is_said_of_empty_tensors() -> None:
    assert axis_groups((0, 4), (4, 0)) is None


def test_axes_of_a_group_are_brought_together_where_the_first_of_them_is() -> None:
    groups = axis_groups((2, 3, 4, 5), (2, 60))
    assert groups is not None
    assert joined_order((0, 2, 3, 1), groups) == (0, 1, 2, 3)
    spatial = axis_groups((2, 3, 4, 5), (2, 3, 20))
    assert spatial is not None
    assert joined_order((0, 2, 3, 1), spatial) == (0, 2, 3, 1)


def test_moving_axes_of_size_one_is_free() -> None:
    assert movable((2, 3, 1, 1), (0, 1, 2, 3), (0, 2, 3, 1)) == (2, 3)
    assert movable((2, 1, 4, 5), (0, 1, 2, 3), (0, 2, 3, 1)) == (1,)
    assert movable((2, 3, 4, 5), (0, 1, 2, 3), (0, 2, 3, 1)) is None
    assert movable((2, 3, 4, 5), (0, 2, 3, 1), (0, 2, 3, 1)) == ()


def test_steps_lead_from_one_stored_order_to_another() -> None:
    assert steps((0, 1, 2, 3), (0, 2, 3, 1)) == (0, 2, 3, 1)
    assert steps((0, 2, 3, 1), (0, 1, 2, 3)) == (0, 3, 1, 2)
    assert inverse((0, 2, 3, 1)) == (0, 3, 1, 2)
