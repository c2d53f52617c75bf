"""What leaves a graph takes with it all that depends on it, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from modelport.compression.prune import prune
from modelport.compression.prune.importance import Importance
from modelport.compression.prune.structured import Plan, plan
from modelport.core.errors import DataError, StepError
from modelport.core.steps import Prune
from modelport.graph.splice import insert, ints
from modelport.graph.weights import roles
from modelport.verbs.subject import exported, subject
from tests.compression.prune_nets import NETS, example, net
from tests.graph.running import model_of, run, tensor, weight


def graph_of(kind: str) -> ir.Model:
    return exported(subject(net(kind), example=example(kind))).graph


def feed(graph: ir.Model, kind: str, batch: int = 3) -> dict[str, np.ndarray]:
    return {graph.graph.inputs[0].name: example(kind, batch).numpy()}


def silenced(planned: Plan) -> ir.Model:
    """The whole graph with zeros in place of what goes, and layer norms that do not see it."""
    model = planned.trace.model
    for node in [node for node in model.graph if node.op_type == "LayerNormalization"]:
        last = len(node.inputs[0].shape) - 1
        masks = planned.masks(node.inputs[0])
        if last in masks:
            norm_of_the_rest(model, node, masks[last])
    for place, node in enumerate(model.graph):
        node.name = f"node_{place}"
    for value in model.graph.initializers.values():
        array = value.const_value.numpy()
        for axis, mask in planned.masks(value).items():
            shape = [-1 if place == axis else 1 for place in range(array.ndim)]
            array = array * mask.reshape(shape).astype(array.dtype)
        value.const_value = ir.tensor(array, name=value.name)
    return model


def norm_of_the_rest(model: ir.Model, node: ir.Node, mask: np.ndarray) -> None:
    """Let a layer norm take the channels that stay, and put zeros where the others were."""
    chosen = ints(model, "chosen", np.flatnonzero(mask).tolist())
    back = ints(model, "back", np.where(mask, np.cumsum(mask) - 1, mask.sum()).tolist())
    users = list(node.outputs[0].uses())
    for index in range(3):
        axis = -1 if index == 0 else 0
        node.replace_input_with(index, insert(node, "Gather", [node.inputs[index], chosen], {"axis": axis}))
    after = users[0].node
    zero = insert(after, "Sub", [node.outputs[0], node.outputs[0]])
    one = insert(after, "Gather", [zero, ints(model, "first", [0])], {"axis": -1})
    whole = insert(after, "Concat", [node.outputs[0], one], {"axis": -1})
    spread = insert(after, "Gather", [whole, back], {"axis": -1})
    for user, index in users:
        user.replace_input_with(index, spread)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("kind", NETS)
def test_what_is_left_computes_as_if_what_went_had_been_silent(kind: str, scope: str) -> None:
    graph, step = graph_of(kind), Prune(0.4, structured=True, scope=scope)
    pruned = prune(graph, step)
    expected = run(silenced(plan(graph, step, Importance(step, None))), feed(graph, kind))
    assert sum(row.before - row.after for row in pruned.layers) > 0
    for mine, theirs in zip(run(pruned.graph, feed(graph, kind)), expected, strict=True):
        assert theirs.std() > 1e-3
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def shapes(graph: ir.Model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in graph.graph.initializers.items()}


def channels(graph: ir.Model, step: Prune) -> dict[str, tuple[int, int]]:
    return {row.layer: (row.before, row.after) for row in prune(graph, step).layers}


def test_the_graph_that_comes_in_stays_as_it_is() -> None:
    graph = graph_of("resnet")
    before = ir.to_proto(graph).SerializeToString()
    prune(graph, Prune(0.5, structured=True))
    assert ir.to_proto(graph).SerializeToString() == before


def test_weights_keep_their_names_and_inputs_and_outputs_their_shapes() -> None:
    graph = graph_of("unet")
    pruned = prune(graph, Prune(0.5, structured=True, scope="layer")).graph
    assert roles(graph) == roles(pruned)
    assert shapes(pruned)["one.weight"] == (4, 3, 3, 3)
    assert shapes(pruned)["out.weight"] == (2, 5, 1, 1)
    for mine, theirs in zip(graph.graph.outputs, pruned.graph.outputs, strict=True):
        assert (mine.name, mine.shape[1]) == (theirs.name, theirs.shape[1])


def test_residual_layers_lose_the_same_channels() -> None:
    taken = channels(graph_of("resnet"), Prune(0.5, structured=True, scope="layer"))
    assert taken["blocks.0.weight"] == taken["blocks.1.conv3.weight"] == (16, 8)
    assert taken["blocks.2.conv3.weight"] == taken["blocks.2.down.weight"] == (24, 16)


def test_heads_go_whole_from_every_projection() -> None:
    """24 channels are 6 heads of 4; two heads of queries share one of keys and values."""
    taken = channels(graph_of("grouped_queries"), Prune(0.4, structured=True, scope="layer"))
    assert taken["attention.q.weight"] == (24, 16)
    assert taken["attention.k.weight"] == taken["attention.v.weight"] == (12, 8)
    fused = channels(graph_of("fused"), Prune(0.5, structured=True, scope="layer"))
    assert fused["attention.qkv.weight"] == (72, 36)


def test_depthwise_and_grouped_convolutions_say_their_groups() -> None:
    groups = {
        kind: [
            n.attributes.get_int("group")
            for n in prune(graph_of(kind), Prune(0.5, structured=True, scope="layer")).graph.graph
            if n.op_type == "Conv"
        ]
        for kind in ("mobilenet", "resnext")
    }
    assert groups == {"mobilenet": [1, 1, 16, 1, 1, 16, 1], "resnext": [1, 1, 2, 1]}


def test_wide_layers_keep_what_fills_registers_and_something_always_stays() -> None:
    tape = ir.tape.Tape()
    x, rng = tensor("x", ["batch", 4]), np.random.default_rng(0)
    wide = tape.op("MatMul", [x, weight(tape, "wide.weight", rng.standard_normal((4, 100)).astype("float32"))])
    narrow = tape.op("MatMul", [wide, weight(tape, "narrow.weight", rng.standard_normal((100, 5)).astype("float32"))])
    out = tape.op("MatMul", [narrow, weight(tape, "out.weight", rng.standard_normal((5, 2)).astype("float32"))])
    graph = model_of(tape, [x], [out])
    assert channels(graph, Prune(0.3, structured=True, scope="layer")) == {
        "wide.weight": (100, 64),
        "narrow.weight": (5, 4),
    }
    assert channels(graph, Prune(0.99, structured=True)) == {"wide.weight": (100, 16), "narrow.weight": (5, 1)}


def two_layers(first: np.ndarray, second: np.ndarray) -> ir.Model:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", first.shape[0]])
    hidden = tape.op("Relu", [tape.op("MatMul", [x, weight(tape, "first.weight", first.astype("float32"))])])
    out = tape.op("MatMul", [hidden, weight(tape, "second.weight", second.astype("float32"))])
    return model_of(tape, [x], [out])


def test_what_matters_least_goes_by_the_sum_over_all_its_slices() -> None:
    """Column 1 of the first weight is the smallest, but with row 1 of the second the channel is not."""
    graph = two_layers(np.array([[1.0, 0.5, 1.0, 1.0]] * 2), np.array([[1.0], [9.0], [0.5], [1.0]]))
    pruned = prune(graph, Prune(0.25, structured=True, importance="l1")).graph
    np.testing.assert_array_equal(pruned.graph.initializers["second.weight"].const_value.numpy(), [[1], [9], [1]])


def test_taylor_asks_what_the_loss_loses() -> None:
    graph = two_layers(np.ones((2, 4)), np.arange(1.0, 5)[:, None])
    gradients = {
        "first.weight": np.zeros((2, 4), "float32"),
        "second.weight": np.array([[9.0], [1], [0.1], [1]], "float32"),
    }
    step = Prune(0.25, structured=True, importance="taylor", data=())
    pruned = prune(graph, step, gradients).graph
    np.testing.assert_array_equal(pruned.graph.initializers["second.weight"].const_value.numpy(), [[1], [2], [4]])
    with pytest.raises(StepError, match="gradients"):
        prune(graph, step)
    with pytest.raises(DataError, match=r"second\.weight.*\(4,\)"):
        prune(graph, step, {**gradients, "second.weight": np.ones(4, "float32")})
    with pytest.raises(DataError, match="not finite"):
        prune(graph, step, {**gradients, "second.weight": np.full((4, 1), np.nan, "float32")})
    with pytest.raises(StepError, match="none of the gradients"):
        prune(graph, step, {"other": np.ones(4, "float32")})


def test_a_global_ratio_takes_from_the_layers_that_have_the_most_to_spare() -> None:
    rng = np.random.default_rng(0)
    tape = ir.tape.Tape()
    x, value = tensor("x", ["batch", 4]), None
    value = x
    for name, spare in (("a", 8), ("b", 0)):
        made = rng.uniform(1, 1.1, (value.shape[1] if value is x else 16, 16))
        made[:, :spare] *= 1e-3
        value = tape.op("Relu", [tape.op("MatMul", [value, weight(tape, f"{name}.weight", made.astype("float32"))])])
    out = tape.op("MatMul", [value, weight(tape, "c.weight", np.ones((16, 2), "float32"))])
    graph = model_of(tape, [x], [out])
    taken = channels(graph, Prune(0.25, structured=True))
    assert taken["a.weight"][1] < 10
    assert taken.get("b.weight", (16, 16))[1] > taken["a.weight"][1]


def test_excluded_layers_keep_their_shapes() -> None:
    graph = graph_of("resnet")
    pruned = prune(graph, Prune(0.5, structured=True, exclude=("blocks.1",)))
    before, after = shapes(graph), shapes(pruned.graph)
    assert {name for name in before if before[name] != after[name]} >= {"blocks.2.conv1.weight", "head.weight"}
    assert all(before[name] == after[name] for name in before if name.startswith("blocks.1."))
    assert "excluded" in {row.layer: row.reason for row in pruned.left}["blocks.1.conv1.weight"]
    with pytest.raises(StepError, match="'nothing'"):
        prune(graph, Prune(0.5, structured=True, exclude=("nothing",)))


def test_what_cannot_be_followed_stays_and_is_listed_with_the_node() -> None:
    tape, rng = ir.tape.Tape(), np.random.default_rng(0)
    x = tensor("x", ["batch", 4])
    first = tape.op("MatMul", [x, weight(tape, "first.weight", rng.standard_normal((4, 8)).astype("float32"))])
    summed = tape.op("CumSum", [first, tape.initializer(ir.tensor(np.array(1), name="axis"))], name="running")
    second = tape.op("MatMul", [summed, weight(tape, "second.weight", rng.standard_normal((8, 6)).astype("float32"))])
    third = tape.op("MatMul", [second, weight(tape, "third.weight", rng.standard_normal((6, 2)).astype("float32"))])
    pruned = prune(model_of(tape, [x], [third]), Prune(0.5, structured=True))
    assert [row.layer for row in pruned.layers] == ["second.weight"]
    reasons = {row.layer: row.reason for row in pruned.left}
    assert "CumSum" in reasons["first.weight"]
    assert "running" in reasons["first.weight"]
    assert "output" in reasons["third.weight"]


def test_a_graph_without_a_channel_to_spare_is_refused() -> None:
    tape = ir.tape.Tape()
    x = tensor("x", ["batch", 4])
    out = tape.op("MatMul", [x, weight(tape, "only.weight", np.ones((4, 3), "float32"))])
    with pytest.raises(StepError, match=r"only\.weight: .*output"):
        prune(model_of(tape, [x], [out]), Prune(0.5, structured=True))


@pytest.mark.parametrize("kind", ["resnet", "densenet", "fused", "bidirectional", "flat"])
def test_the_result_is_a_plain_torch_module_with_the_names_it_had(kind: str) -> None:
    from modelport.core import registry

    original = net(kind)
    pruned = prune(graph_of(kind), Prune(0.4, structured=True)).graph
    native = registry.backend("torch").build(pruned).native.eval()
    names = {name for name in original.state_dict() if "num_batches" not in name}
    assert {name for name in native.state_dict() if "num_batches" not in name} == names
    assert sum(p.numel() for p in native.parameters()) < sum(p.numel() for p in original.parameters())
    x = example(kind, 3)
    [expected] = run(pruned, {pruned.graph.inputs[0].name: x.numpy()})
    found = native(x)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    found.square().sum().backward()
    assert all(p.grad is not None for p in native.parameters() if p.requires_grad)
