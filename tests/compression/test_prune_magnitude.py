"""Unstructured pruning: exactly the asked share of the weights becomes zero, the smallest ones."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from modelport.compression.prune import prune
from modelport.core.errors import StepError
from modelport.core.steps import Prune
from modelport.graph.weights import set_aliases
from modelport.verbs.subject import exported, subject
from tests.compression.prune_nets import example, net
from tests.graph.running import model_of, run, tensor, weight


def graph_of(kind: str) -> ir.Model:
    return exported(subject(net(kind), example=example(kind))).graph


def arrays(graph: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in graph.graph.initializers.items()}


def test_a_global_ratio_zeroes_that_share_of_all_weights_and_the_smallest() -> None:
    graph = graph_of("resnet")
    pruned = prune(graph, Prune(0.5))
    before, after = arrays(graph), arrays(pruned.graph)
    layers = [row.layer for row in pruned.layers]
    assert "blocks.1.conv2.weight" in layers
    assert "head.weight" in layers
    kept = np.concatenate([after[name].ravel() for name in layers])
    whole = np.concatenate([before[name].ravel() for name in layers])
    assert (kept == 0).sum() == round(0.5 * kept.size)
    assert np.abs(whole[kept == 0]).max() <= np.abs(whole[kept != 0]).min()
    np.testing.assert_array_equal(kept[kept != 0], whole[kept != 0])
    for name in set(before) - set(layers):
        np.testing.assert_array_equal(after[name], before[name])
    assert not any(name.endswith(".bias") or ".bn" in name for name in layers)


def test_a_ratio_per_layer_zeroes_it_in_each() -> None:
    for row in prune(graph_of("unet"), Prune(0.3, scope="layer")).layers:
        assert row.before - row.after == round(0.3 * row.before)


def test_recurrent_weights_are_pruned_and_embeddings_are_not() -> None:
    layers = {row.layer for row in prune(graph_of("bidirectional"), Prune(0.5)).layers}
    assert {"cell.weight_ih_l0", "cell.weight_hh_l1_reverse", "out.weight"} <= layers
    assert "embed.weight" not in layers
    assert not any("bias" in layer for layer in layers)


def test_equal_weights_go_in_order() -> None:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 3])
    out = tape.op("MatMul", [x, weight(tape, "w", np.array([[2, 1, 1], [1, 1, 3]], "float32").T.copy())])
    [found] = arrays(prune(model_of(tape, [x], [out]), Prune(1 / 3)).graph).values()
    np.testing.assert_array_equal(found, [[2, 0], [0, 1], [1, 3]])


@pytest.mark.parametrize("kind", ["convnext", "unet", "gru"])
def test_a_pattern_zeroes_n_of_every_m_weights_along_the_inputs(kind: str) -> None:
    graph = graph_of(kind)
    pruned = prune(graph, Prune(n_m=(2, 4)))
    before, after = arrays(graph), arrays(pruned.graph)
    assert pruned.layers
    for row in pruned.layers:
        axis = 0 if row.layer == "up.weight" else 1
        groups = np.moveaxis(after[row.layer], axis, -1).reshape(-1, 4)
        whole = np.moveaxis(before[row.layer], axis, -1).reshape(-1, 4)
        assert ((groups == 0).sum(1) == 2).all()
        largest = np.sort(np.abs(whole), axis=1)[:, 2:].sum(1)
        np.testing.assert_allclose(np.abs(groups).sum(1), largest, rtol=1e-6)


def test_a_layer_whose_inputs_are_no_multiple_is_left_and_said() -> None:
    reasons = {row.layer: row.reason for row in prune(graph_of("unet"), Prune(n_m=(2, 4))).left}
    assert "3 inputs" in reasons["one.weight"]


def test_what_is_excluded_is_left_and_said() -> None:
    graph = graph_of("resnet")
    pruned = prune(graph, Prune(0.5, exclude=("blocks.1", "head.weight")))
    assert not any(row.layer.startswith(("blocks.1.", "head")) for row in pruned.layers)
    assert {row.layer for row in pruned.left} >= {"blocks.1.conv1.weight", "head.weight"}


def test_a_tied_weight_is_excluded_by_any_of_its_names() -> None:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 2])
    one = tape.op("MatMul", [x, weight(tape, "one.weight", np.ones((2, 2), "float32"))])
    graph = model_of(tape, [x], [tape.op("MatMul", [one, weight(tape, "two.weight", np.ones((2, 2), "float32"))])])
    set_aliases(graph, {"other.weight": "one.weight"})
    assert [row.layer for row in prune(graph, Prune(0.5, exclude=("other",))).layers] == ["two.weight"]


def test_taylor_takes_the_gradients_into_account() -> None:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 2])
    out = tape.op("MatMul", [x, weight(tape, "w", np.array([[1, 2], [3, 4]], "float32"))])
    step = Prune(0.5, importance="taylor", data=())
    gradients = {"w": np.array([[9, 1], [1, 0.1]], "float32")}
    [found] = arrays(prune(model_of(tape, [x], [out]), step, gradients).graph).values()
    np.testing.assert_array_equal(found, [[1, 0], [3, 0]])


def test_the_graph_that_comes_in_stays_as_it_is_and_the_result_runs() -> None:
    graph = graph_of("mobilenet")
    before = ir.to_proto(graph).SerializeToString()
    pruned = prune(graph, Prune(0.5)).graph
    assert ir.to_proto(graph).SerializeToString() == before
    feed = {graph.graph.inputs[0].name: example("mobilenet").numpy()}
    [mine], [theirs] = run(pruned, feed), run(graph, feed)
    assert mine.shape == theirs.shape
    assert not np.array_equal(mine, theirs)


def test_a_graph_without_weights_is_refused() -> None:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 2])
    with pytest.raises(StepError, match="no weight"):
        prune(model_of(tape, [x], [tape.op("Relu", [x])]), Prune(0.5))
