"""Sizes as expressions agree with the integers they stand for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.graph.shapes.expr import (
    Expr,
    ceil,
    exact_div,
    floordiv,
    is_at_least,
    lower_bound,
    maximum,
    minimum,
    parse,
    symbol,
)

SIZES = {"a": 3, "b": 5, "c": 8}


def value(size):
    return size.evaluate(SIZES) if isinstance(size, Expr) else size


def combine(children):
    pairs = st.tuples(children, children)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        pairs.map(lambda p: minimum(*p)),
        pairs.map(lambda p: maximum(*p)),
        st.tuples(children, st.integers(1, 6)).map(lambda p: p[0] // p[1]),
        st.tuples(children, st.sampled_from("abc")).map(lambda p: p[0] // symbol(p[1])),
        st.tuples(children, st.integers(1, 6)).map(lambda p: p[0] % p[1]),
    )


sizes = st.recursive(st.one_of(st.integers(-4, 9), st.sampled_from("abc").map(symbol)), combine, max_leaves=6)


@settings(max_examples=150, deadline=None)
@given(sizes, sizes)
def test_arithmetic_commutes_with_evaluation(x, y):
    assert value(x + y) == value(x) + value(y)
    assert value(x - y) == value(x) - value(y)
    assert value(x * y) == value(x) * value(y)
    assert value(minimum(x, y)) == min(value(x), value(y))
    assert value(maximum(x, y)) == max(value(x), value(y))
    if value(y):
        assert value(floordiv(x, y)) == value(x) // value(y)
    assert value(ceil(x)) == math.ceil(value(x))


@settings(max_examples=100, deadline=None)
@given(sizes)
def test_what_is_printed_is_parsed_back(x):
    assert parse(str(x)) == x


@settings(max_examples=100, deadline=None)
@given(sizes, sizes)
def test_a_product_divides_exactly_by_its_factors(x, y):
    if y != 0:
        assert exact_div(x * y, y) == x


@settings(max_examples=100, deadline=None)
@given(sizes, sizes)
def test_a_bound_holds(x, y):
    low = lower_bound(x)
    assert low is None or low <= value(x)
    order = is_at_least(x, y)
    assert order is None or order == (value(x) >= value(y))


def test_what_is_left_of_a_constant_is_seen_not_to_fall_below_zero():
    h = symbol("h")
    assert is_at_least(64 - minimum(64, h), 0)
    assert is_at_least(128, 64 + minimum(64, h))
    assert is_at_least(64 - maximum(64, h), 0) is None


def test_equal_sizes_have_one_form():
    h = symbol("h")
    assert (h - 1) // 2 + 1 == (h + 1) // 2
    assert (3 * h) // 2 == h + h // 2
    assert (h * h - 1) // (h - 1) == h + 1
    assert hash(h + 1) == hash(1 + h)
    assert str((h - 1) // 2 + 1) == "((h + 1)//2)"
    assert h - h == 0
    assert maximum(h, 1) is h


@pytest.mark.parametrize("text", ["import os", "f(x)", "x.y", "2 ** 99", "x / 0", "a b", ""])
def test_what_is_no_size_is_not_parsed(text):
    assert parse(text) is None
