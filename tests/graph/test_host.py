"""A single node is computed on the host by onnx's own evaluator."""

from __future__ import annotations

import pickle

import numpy as np
import onnx_ir as ir
import pytest

from modelport.core.errors import UnsupportedOpError
from modelport.graph.host import host_computes, host_node
from modelport.graph.normal import normalize
from modelport.graph.subgraphs import captured, subgraphs


def _first(body: str, opsets: str = '"" : 21') -> tuple[ir.Node, dict[str, int]]:
    model = ir.from_onnx_text(f"<ir_version: 10, opset_import: [{opsets}]>\n{body}")
    return model.graph[0], dict(model.graph.opset_imports)


def test_a_node_keeps_its_attributes_and_survives_pickling() -> None:
    node, opsets = _first(
        'g (string[N] x) => (string[N] y) { y = StringNormalizer <case_change_action = "UPPER"> (x) }'
    )
    host, values = host_node(node, opsets)
    assert [value.name for value in values] == ["x"]
    (found,) = pickle.loads(pickle.dumps(host))(np.array(["ab", "c"], object))
    assert found.dtype == object
    assert found.tolist() == ["AB", "C"]


def test_an_empty_string_is_no_stopword() -> None:
    node, opsets = _first(
        "g (string[N] x) => (string[M] y) "
        '{ y = StringNormalizer <case_change_action = "LOWER", stopwords = ["the"]> (x) }'
    )
    host, _ = host_node(node, opsets)
    (found,) = host(np.array(["", "The", "A b"], object))
    assert found.tolist() == ["", "a b"]


def test_what_a_subgraph_takes_from_around_it_is_an_input() -> None:
    node, opsets = _first("""g (float[N] x, bool c, float[2] w) => (float[N] out) {
      out = If (c) <then_branch = t () => (float[N] y) { y = Mul (x, w) },
                    else_branch = e () => (float[N] z) { z = Neg (x) }>
    }""")
    assert [value.name for value in captured(*subgraphs(node))] == ["x", "w"]
    host, values = host_node(node, opsets)
    given = {"c": np.array(False), "x": np.ones(2, "float32"), "w": np.full(2, 3, "float32")}
    (found,) = host(*(given[str(value.name)] for value in values))
    np.testing.assert_array_equal(found, [-1, -1])


def test_constants_go_inside_and_weights_do_not() -> None:
    node, opsets = _first(
        "g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float[2] b = {3, 4}> { y = Sum (x, a, b) }"
    )
    host, values = host_node(node, opsets, weights=("b",))
    assert [value.name for value in values] == ["x", "b"]
    (found,) = host(np.zeros(2, "float32"), np.ones(2, "float32"))
    np.testing.assert_array_equal(found, [2, 3])


def test_sequences_are_lists_and_an_output_that_nothing_names_is_none() -> None:
    node, opsets = _first("g (string[2] x) => (int64[2] n) { _, n = StringSplit (x) }")
    node.outputs[0].name = ""
    host, _ = host_node(node, opsets)
    parts, lengths = host(np.array(["a b", "c"], object))
    assert parts is None
    assert lengths.tolist() == [2, 1]


def test_a_node_that_cannot_be_computed_names_its_operator() -> None:
    node, opsets = _first("g (float[2, 2] x, float[3] y) => (float[2, 2] z) { z = MatMul (x, y) }")
    host, _ = host_node(node, opsets)
    with pytest.raises(UnsupportedOpError, match=r"MatMul \(z\) runs on the host"):
        host(np.ones((2, 2), "float32"), np.ones(3, "float32"))


def test_what_the_evaluator_has_not_is_known_before_it_runs() -> None:
    text = "g (float[N] x) => (float[N] y) { y = %s (x) }"
    opsets = '"" : 21, "ai.onnx.preview.training" : 1, "somewhere" : 1'
    found = [host_computes(*_first(text % name, opsets)) for name in ("Gelu", "somewhere.Thing")]
    assert found == [True, False]
    gradient = 'ai.onnx.preview.training.Gradient <xs = ["x"], y = "x">'
    assert not host_computes(*_first(text % gradient, opsets))


def test_the_host_leaves_alone_what_the_evaluator_gets_wrong() -> None:
    text = """g () => (float[1, 1, 2] y) {
        x = Constant<value = float[1, 1, 3] {1.0, 3.0, 2.0}>()
        p = MaxPool<auto_pad = "SAME_LOWER", kernel_shape = [2], strides = [2]>(x)
        y = Neg(p)
    }"""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    (pool,) = (node for node in model.graph if node.op_type == "MaxPool")
    assert not host_computes(pool, model.graph.opset_imports)
    assert [node.op_type for node in normalize(model).graph] == ["MaxPool", "Neg"]
