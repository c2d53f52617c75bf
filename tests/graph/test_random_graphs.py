"""Laws of the normal form on random graphs."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelport.graph.expr import Expr
from modelport.graph.normal import normalize
from modelport.graph.shapes import infer
from modelport.graph.weights import roles
from tests.graph import random_graphs

RUNNABLE_OPSET = 26
"""The newest that ONNX Runtime runs; from 21 on no operator changed what it computes."""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(1, 25), st.booleans())
def test_normalising_keeps_results_weights_and_the_original(seed: int, length: int, symbolic: bool) -> None:
    model = random_graphs.draw(seed, length, symbolic)
    before = str(model)
    expected = random_graphs.outputs(model)

    normal = normalize(model)

    assert str(model) == before
    assert roles(normal) == roles(model)
    normal.graph.opset_imports[""] = RUNNABLE_OPSET
    normal.ir_version = 10
    got = random_graphs.outputs(normal)
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(1, 25))
def test_shapes_of_a_random_graph_with_a_named_batch_hold(seed: int, length: int) -> None:
    model = random_graphs.draw(seed, length, symbolic_batch=True)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    info = infer(model)

    for value, array in zip(model.graph.outputs, random_graphs.outputs(model).values(), strict=True):
        dims = info.dims(value)
        assert dims is not None
        assert len(dims) == array.ndim
        for dim, size in zip(dims, array.shape, strict=True):
            if info.is_bound(dim):
                assert (dim.evaluate({"batch": 2}) if isinstance(dim, Expr) else dim) == size
