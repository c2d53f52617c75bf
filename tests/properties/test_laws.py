"""What holds for every graph, whatever it computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from modelport.core.errors import UnsupportedOpError
from modelport.core.registry import backend as registered
from modelport.graph.normal import normalize
from modelport.graph.shapes.expr import Expr
from modelport.graph.shapes.infer import infer
from modelport.graph.signature import read_signature
from modelport.graph.weights import roles
from tests.properties.agreement import is_refused, values_of
from tests.properties.graphs import Example, disagreement, graphs

FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def _agree(example: Example, world: int, found: dict[str, Any]) -> None:
    for name, wanted in example.expected[world].items():
        told = disagreement(wanted, found[name], example.tolerances[name])
        assert not told, f"{name}: {told}\n{onnx.printer.to_text(example.model)}"


@FEW
@given(graphs())
def test_normalising_keeps_results_weights_and_the_original(example: Example) -> None:
    model = ir.from_proto(example.model)
    before = str(model)

    normal = normalize(model)

    assert str(model) == before
    assert roles(normal) == roles(model)
    assert [value.name for value in normal.graph.outputs] == list(example.expected[0])
    same = replace(example, model=ir.to_proto(normal))
    for world, feeds in enumerate(example.feeds):
        _agree(example, world, values_of(same, feeds))


@FEW
@given(graphs())
def test_normalising_twice_is_normalising_once(example: Example) -> None:
    once = normalize(ir.from_proto(example.model))
    assert str(normalize(once)) == str(once)


@FEW
@given(graphs())
def test_the_sizes_that_are_inferred_hold(example: Example) -> None:
    model = ir.from_proto(example.model)
    info = infer(model)
    for value in model.graph.outputs:
        dims = info.dims(value)
        for feeds, expected in zip(example.feeds, example.expected, strict=True):
            sizes = read_signature(model).sizes(feeds)
            array = expected[str(value.name)]
            assert dims is None or len(dims) == array.ndim
            for dim, size in zip(dims or (), array.shape, strict=dims is not None):
                if info.is_bound(dim):
                    assert (dim.evaluate(sizes) if isinstance(dim, Expr) else dim) == size


@settings(FEW, max_examples=25)
@given(graphs(longest=6))
def test_the_order_of_inputs_does_not_matter(example: Example) -> None:
    backend = registered("torch")
    turned = onnx.ModelProto.FromString(example.model.SerializeToString())
    inputs = list(turned.graph.input)[::-1]
    del turned.graph.input[:]
    turned.graph.input.extend(inputs)
    graph = ir.from_proto(turned)
    built = backend.build(graph)
    found = backend.run(built.native, example.feeds[0], built.signature or read_signature(graph))
    _agree(example, 0, found)


PLAIN = frozenset({
    "arithmetic", "batch_norm", "clip", "concat", "conv", "conv_transpose", "divide", "dropout", "expand", "flatten",
    "function", "function_with_settings", "gelu", "gemm", "global_pool", "layer_norm", "matmul",
    "normalised_exponential", "pad", "pool", "prelu", "reduce", "reshape", "reshape_by_sizes", "slice_", "split",
    "squeeze", "tile", "transpose", "unsqueeze", "where",
})  # fmt: skip
"""What nets are made of; a graph of it comes home as it was."""


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_what_is_built_comes_home(name: str) -> None:
    backend = registered(name)

    @settings(FEW, max_examples=12)
    @given(graphs(longest=5, functions=PLAIN, opsets=(21,)))
    def comes_home(example: Example) -> None:
        graph = ir.from_proto(example.model)
        try:
            built = backend.build(graph)
        except UnsupportedOpError as error:
            if is_refused(backend, error):
                return
            raise
        signature = built.signature or read_signature(graph)
        home = backend.export(built.native, example.feeds[0], signature).graph
        again = backend.build(home)
        for world, feeds in enumerate(example.feeds):
            _agree(example, world, backend.run(again.native, feeds, again.signature or read_signature(home)))

    comes_home()


def test_a_difference_is_told() -> None:
    wanted = np.array([1, 2], np.float32)
    assert not disagreement(wanted, np.array([1, 2.0001], np.float32), 1e-4)
    assert "off by" in disagreement(wanted, np.array([1, 2.001], np.float32), 1e-4)
    assert "dtype" in disagreement(wanted, wanted.astype(np.float64), 1e-4)
    assert "shape" in disagreement(wanted, wanted[None], 1e-4)
    assert "1 of 2" in disagreement(np.array([1, 2]), np.array([1, 3]), 1e-4)
