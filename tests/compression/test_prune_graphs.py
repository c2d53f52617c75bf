"""The law of what is silent, on graphs that PyTorch does not write: ONNX's own operators, old opsets, Keras."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from modelport.compression.prune import prune
from modelport.compression.prune.importance import Importance
from modelport.compression.prune.structured import plan
from modelport.core.steps import Prune
from modelport.verbs.subject import exported, subject
from tests.compression.test_prune_structured import silenced
from tests.graph.running import model_of, run, tensor, weight


def assert_lawful(graph: ir.Model, feed: dict[str, np.ndarray], ratio: float = 0.5) -> dict[str, tuple[int, int]]:
    """What is cut computes as if what went had been silent; returns what went by layer."""
    step = Prune(ratio, structured=True, scope="layer")
    pruned = prune(graph, step)
    expected = run(silenced(plan(graph, step, Importance(step, None))), feed)
    for mine, theirs in zip(run(pruned.graph, feed), expected, strict=True):
        assert mine.shape == theirs.shape
        assert theirs.std() > 1e-4
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    return {row.layer: (row.before, row.after) for row in pruned.layers}


class Drawn:
    """A tape with weights drawn from one seed."""

    def __init__(self) -> None:
        self.tape = ir.tape.Tape()
        self.rng = np.random.default_rng(0)

    def array(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype("float32")

    def weight(self, name: str, *shape: int) -> ir.Value:
        return weight(self.tape, name, self.array(*shape))

    def ints(self, name: str, *values: int) -> ir.Value:
        return self.tape.initializer(ir.tensor(np.array(values), name=name))

    def linear(self, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
        return self.tape.op("MatMul", [x, self.weight(f"{name}.weight", inputs, outputs)])


@pytest.mark.parametrize("few", [2, 4])
@pytest.mark.parametrize("flat", [True, False])
def test_the_attention_operator_loses_whole_heads(flat: bool, few: int) -> None:
    draw = Drawn()
    x = tensor("x", [2, 5, 12])
    q, k, v = (draw.linear(x, name, 12, 3 * heads) for name, heads in (("q", 4), ("k", few), ("v", few)))
    if flat:
        y = draw.tape.op("Attention", [q, k, v], {"q_num_heads": 4, "kv_num_heads": few})
    else:
        split = [
            draw.tape.op(
                "Transpose",
                [draw.tape.op("Reshape", [each, draw.ints(f"s{i}", 2, 5, heads, 3)])],
                {"perm": [0, 2, 1, 3]},
            )
            for i, (each, heads) in enumerate(((q, 4), (k, few), (v, few)))
        ]
        y = draw.tape.op("Transpose", [draw.tape.op("Attention", split)], {"perm": [0, 2, 1, 3]})
        y = draw.tape.op("Reshape", [y, draw.ints("joined", 2, 5, 12)])
    graph = model_of(draw.tape, [x], [draw.linear(y, "out", 12, 7)], opset=23)
    taken = assert_lawful(graph, {"x": draw.array(2, 5, 12)})
    assert taken == {"q.weight": (12, 6), "k.weight": (3 * few, 3 * few // 2), "v.weight": (3 * few, 3 * few // 2)}


def test_operators_of_an_old_opset_say_their_settings_in_attributes() -> None:
    draw = Drawn()
    x = tensor("x", ["batch", 3, 8, 8])
    y = draw.tape.op("Conv", [x, draw.weight("stem.weight", 12, 3, 3, 3)], {"kernel_shape": [3, 3]})
    one, two = draw.tape.op_multi_out("Split", [y], {"axis": 1, "split": [4, 8]}, num_outputs=2)
    two = draw.tape.op("Conv", [two, draw.weight("side.weight", 8, 8, 1, 1)], {"kernel_shape": [1, 1]})
    two = draw.tape.op("Slice", [two], {"axes": [1], "starts": [2], "ends": [6]})
    y = draw.tape.op("Concat", [one, two], {"axis": 1})
    y = draw.tape.op("ReduceMean", [y], {"axes": [2, 3], "keepdims": 0})
    graph = model_of(draw.tape, [x], [draw.linear(y, "out", 8, 5)], opset=9)
    taken = assert_lawful(graph, {"x": draw.array(2, 3, 8, 8)})
    assert set(taken) == {"stem.weight", "side.weight"}


def test_an_einsum_is_followed_by_its_letters() -> None:
    draw = Drawn()
    x = tensor("x", ["batch", 5, 6])
    y = draw.tape.op("Einsum", [x, draw.weight("up.weight", 6, 2, 8)], {"equation": "bsi,iho->bsho"})
    y = draw.tape.op("Einsum", [y, draw.weight("down.weight", 2, 8, 4)], {"equation": "bsho,hoc->bsc"})
    assert assert_lawful(model_of(draw.tape, [x], [y]), {"x": draw.array(3, 5, 6)})


def test_states_of_any_size_shrink_with_the_hidden_units() -> None:
    draw = Drawn()
    x = tensor("x", [5, "batch", 4])
    state = draw.tape.op(
        "Expand",
        [
            draw.tape.initializer(ir.tensor(np.full((1, 1, 1), 0.0, "float32"), name="zero")),
            draw.ints("sizes", 1, 1, 6),
        ],
    )
    weights = [draw.weight("w", 1, 18, 4), draw.weight("r", 1, 18, 6), draw.weight("b", 1, 36)]
    y, _ = draw.tape.op_multi_out(
        "GRU", [x, *weights, None, state], {"hidden_size": 6, "linear_before_reset": 1}, num_outputs=2
    )
    y = draw.tape.op("Squeeze", [y, draw.ints("axes", 1)])
    graph = model_of(draw.tape, [x], [draw.linear(y, "out", 6, 3)])
    assert assert_lawful(graph, {"x": draw.array(5, 1, 4)}) == {"w": (6, 3)}


def test_a_keras_net_is_cut_like_any_other() -> None:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    y = keras.layers.ReLU()(
        keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, padding="same", name="stem")(image))
    )
    y = keras.layers.DepthwiseConv2D(3, name="depthwise")(y)
    y = keras.layers.Reshape((36, 8))(y)
    y = keras.layers.Add()([y, keras.layers.MultiHeadAttention(4, 2, name="heads")(y, y)])
    y = keras.layers.LSTM(6, name="cell")(y)
    graph = exported(subject(keras.Model(image, keras.layers.Dense(3)(y)))).graph
    feed = {graph.graph.inputs[0].name: np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")}
    taken = assert_lawful(graph, feed)
    assert taken["stem.weight"] == (8, 4)
    assert taken["heads.query.weight"] == (8, 4)
    assert taken["cell.weight_ih_l0"] == (6, 3)
