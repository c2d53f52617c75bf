"""The layout pass: few transposes, the same results, the same names."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import ShapeInferencePass

from modelport.graph.layout.channels_last import (
    CHANNELS_LAST,
    DOMAIN,
    cancel_transposes,
    count_transposes,
    to_channels_last,
)
from tests.graph import random_graphs
from tests.graph.lowering import lowered
from tests.graph.running import model_of, run, tensor, weight

FIRST, LAST = [0, 3, 1, 2], [0, 2, 3, 1]
"""The perms that bring an image's channels to the front and to the back."""


class Net:
    """A small graph under construction."""

    def __init__(self, *shape: int | str) -> None:
        self.tape, self.rng = ir.tape.Tape(), np.random.default_rng(0)
        self.x = tensor("x", shape)

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: object) -> ir.Value:
        return self.tape.op(op_type, inputs, attributes, domain=domain)

    def weight(self, name: str, *shape: int) -> ir.Value:
        return weight(self.tape, name, self.rng.standard_normal(shape).astype(np.float32))

    def ints(self, name: str, *numbers: int) -> ir.Value:
        return weight(self.tape, name, np.asarray(numbers, np.int64))

    def conv(self, x: ir.Value, name: str, out: int, channels: int, size: int = 3) -> ir.Value:
        kernel, bias = self.weight(f"{name}.weight", out, channels, size, size), self.weight(f"{name}.bias", out)
        pads = [size // 2] * 4
        return self.op("Conv", x, kernel, bias, kernel_shape=[size, size], pads=pads)

    def model(self, *outputs: ir.Value) -> ir.Model:
        return ShapeInferencePass()(model_of(self.tape, [self.x], outputs)).model


def same_results(before: ir.Model, after: ir.Model, *shape: int) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for expected, found in zip(run(before, {"x": x}), run(after, {"x": x}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1, np.abs(expected).max()))


def transposes(model: ir.Model) -> list[list[str]]:
    """What feeds and what reads each Transpose of the graph."""
    found = [node for node in model.graph if node.op_type == "Transpose"]
    return [[node.inputs[0].name, *(user.op_type for user, _ in node.outputs[0].uses())] for node in found]


def test_a_residual_net_keeps_one_transpose_at_the_input() -> None:
    net = Net("batch", 3, 8, 8)
    stem = net.op("Relu", net.conv(net.x, "stem", 4, 3))
    y = net.conv(stem, "block", 4, 4)
    stats = [net.weight(f"norm.{name}", 4) for name in ("weight", "bias", "running_mean")]
    y = net.op("BatchNormalization", y, *stats, weight(net.tape, "norm.running_var", np.ones(4, np.float32)))
    y = net.op("Add", net.op("Clip", y), stem)
    pooled = net.op("Flatten", net.op("GlobalAveragePool", y))
    model = net.model(net.op("Gemm", pooled, net.weight("fc.weight", 5, 4), net.weight("fc.bias", 5), transB=1))
    after, residual = to_channels_last(model)
    assert (residual, transposes(after)) == (1, [["x", "Conv"]])
    assert {node.op_type for node in after.graph if node.domain == DOMAIN} == {
        "Conv",
        "BatchNormalization",
        "GlobalAveragePool",
    }
    assert count_transposes(model.graph) == 0, "the source is left as it was"
    same_results(model, lowered(after), 3, 3, 8, 8)


def test_inputs_outputs_weights_and_nodes_keep_their_names_and_shapes() -> None:
    net = Net("batch", 3, 8, 8)
    model = net.model(net.op("Sigmoid", net.conv(net.x, "stem", 4, 3)))
    names = [node.name for node in model.graph]
    after, _ = to_channels_last(model)
    for before, found in zip(model.graph.outputs, after.graph.outputs, strict=True):
        assert (before.name, before.shape, before.dtype) == (found.name, found.shape, found.dtype)
    assert [value.name for value in after.graph.inputs] == ["x"]
    assert after.graph.initializers["stem.weight"].shape == ir.Shape([4, 3, 3, 3])
    assert [node.name for node in after.graph if node.op_type != "Transpose"] == names


def test_an_image_to_image_net_keeps_one_transpose_at_either_end() -> None:
    net = Net("batch", 3, 8, 8)
    high = net.op("Relu", net.conv(net.x, "down", 4, 3))
    low = net.conv(net.op("MaxPool", high, kernel_shape=[2, 2], strides=[2, 2]), "low", 6, 4)
    up = net.op("ConvTranspose", low, net.weight("up.weight", 6, 4, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    model = net.model(net.conv(net.op("Concat", up, high, axis=1), "head", 2, 8))
    after, residual = to_channels_last(model)
    assert residual == 2
    assert [feed for feed, *_ in transposes(after)] == ["x", "output_0_stored"]
    same_results(model, lowered(after), 2, 3, 8, 8)


def test_squeeze_and_excitation_needs_no_transpose() -> None:
    net = Net("batch", 4, 8, 8)
    y = net.conv(net.x, "stem", 4, 4)
    gate = net.op("ReduceMean", y, net.ints("axes", 2, 3), keepdims=1)
    gate = net.op("Sigmoid", net.conv(net.op("Relu", net.conv(gate, "down", 2, 4, 1)), "up", 4, 2, 1))
    y = net.op("Mul", gate, y)
    model = net.model(net.op("ReduceMean", y, net.ints("axes_2", -1, -2), keepdims=0))
    after, residual = to_channels_last(model)
    assert residual == 1
    same_results(model, lowered(after), 2, 4, 8, 8)


def test_the_permutes_of_a_convnext_block_cancel() -> None:
    net = Net("batch", 4, 8, 8)
    stem = net.conv(net.x, "stem", 4, 4)
    y = net.op("Transpose", net.conv(stem, "depthwise", 4, 4), perm=LAST)
    y = net.op("LayerNormalization", y, net.weight("norm.weight", 4), net.weight("norm.bias", 4), axis=-1)
    y = net.op("Gelu", net.op("MatMul", y, net.weight("fc1.weight", 4, 8)))
    y = net.op("Add", net.op("MatMul", y, net.weight("fc2.weight", 8, 4)), net.weight("fc2.bias", 4))
    y = net.op("Mul", net.op("Transpose", y, perm=FIRST), net.weight("scale", 4, 1, 1))
    model = net.model(net.op("GlobalAveragePool", net.op("Add", y, stem)))
    after, residual = to_channels_last(model)
    assert residual == 0, "fewer than the source's own"
    assert transposes(after) == [["x", "Conv"]]
    same_results(model, lowered(after), 2, 4, 8, 8)


def test_flattening_channels_and_space_keeps_one_transpose_before_the_linear() -> None:
    net = Net("batch", 3, 4, 4)
    y = net.op("Flatten", net.op("Relu", net.conv(net.x, "stem", 4, 3)))
    model = net.model(net.op("Gemm", y, net.weight("fc.weight", 5, 64), net.weight("fc.bias", 5), transB=1))
    after, residual = to_channels_last(model)
    assert residual == 2
    same_results(model, lowered(after), 2, 3, 4, 4)


def test_the_patches_of_a_vision_transformer_cancel_their_permute() -> None:
    net = Net("batch", 3, 8, 8)
    y = net.op("Conv", net.x, net.weight("patch.weight", 6, 3, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Transpose", net.op("Reshape", y, net.ints("shape", 0, 6, -1)), perm=[0, 2, 1])
    model = net.model(net.op("Softmax", y, axis=-1))
    after, residual = to_channels_last(model)
    assert residual == 0
    assert transposes(after) == [["x", "Conv"]]
    same_results(model, lowered(after), 2, 3, 8, 8)


def test_a_weight_that_broadcasts_is_reshaped_on_its_own_side() -> None:
    net = Net("batch", 3, 8, 8)
    y = net.op("Mul", net.conv(net.x, "stem", 4, 3), net.weight("scale", 4, 1, 1))
    y = net.op("Add", y, net.weight("position", 4, 8, 8))
    model = net.model(net.op("GlobalAveragePool", y))
    after, residual = to_channels_last(model)
    assert residual == 1
    assert {"scale", "position"} <= set(after.graph.initializers)
    same_results(model, lowered(after), 2, 3, 8, 8)


def test_a_prelu_per_channel_gets_its_parameter() -> None:
    net = Net("batch", 3, 8, 8)
    slope = net.op("Reshape", net.weight("act.weight", 4), net.ints("shape", 4, 1, 1))
    y = net.op("PRelu", net.conv(net.x, "stem", 4, 3), slope)
    model = net.model(net.op("GlobalMaxPool", y))
    after, residual = to_channels_last(model)
    (prelu,) = [node for node in after.graph if node.op_type == "PRelu"]
    assert (residual, prelu.domain, prelu.inputs[1].name) == (1, DOMAIN, "act.weight")
    same_results(model, lowered(after), 2, 3, 8, 8)


def test_a_max_pool_whose_indices_are_used_stays_as_it_is() -> None:
    net = Net("batch", 3, 8, 8)
    values, indices = net.tape.op_multi_out("MaxPool", [net.x], {"kernel_shape": [2, 2]}, num_outputs=2)
    model = net.model(values, indices)
    after, residual = to_channels_last(model)
    assert residual == 0
    assert [(node.op_type, node.domain) for node in after.graph] == [("MaxPool", "")]
    same_results(model, after, 2, 3, 8, 8)


def test_a_graph_without_layout_is_returned_as_it_is() -> None:
    net = Net("batch", 4)
    model = net.model(net.op("Relu", net.x))
    assert to_channels_last(model) == (model, 0)


def test_a_value_that_a_branch_reads_keeps_its_order() -> None:
    net = Net(2, 3, 8, 8)
    y = net.conv(net.x, "stem", 4, 3)
    inner = ir.node("Relu", [y])
    inner.outputs[0].name = "inner"
    other = ir.node("Neg", [y])
    other.outputs[0].name = "other"
    branches = [ir.Graph([], node.outputs, nodes=[node], name=f"branch_{node.op_type}") for node in (inner, other)]
    for branch in branches:
        branch.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    condition = weight(net.tape, "condition", np.asarray(True))
    chosen = net.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    chosen.type = ir.TensorType(ir.DataType.FLOAT)
    model = net.model(chosen)
    after, _ = to_channels_last(model)
    same_results(model, lowered(after), 2, 3, 8, 8)


def _as_keras_exports(net: Net, x: ir.Value, name: str, out: int, channels: int) -> ir.Value:
    """A convolution between Transposes, its bias and activation channels-last."""
    kernel = net.weight(f"{name}.kernel", out, channels, 3, 3)
    y = net.op("Transpose", x, perm=FIRST)
    y = net.op("Conv", y, kernel, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    y = net.op("Transpose", y, perm=LAST)
    return net.op("Relu", net.op("Add", y, net.weight(f"{name}.bias", out)))


def test_a_keras_net_becomes_channels_first_inside() -> None:
    net = Net("batch", 8, 8, 3)
    stem = _as_keras_exports(net, net.x, "stem", 4, 3)
    y = net.op("Pad", stem, net.ints("pads", 0, 1, 1, 0, 0, 1, 1, 0))
    y = net.op("Slice", y, net.ints("starts", 1, 1), net.ints("ends", 9, 9), net.ints("axes", 1, 2))
    y = net.op("Add", _as_keras_exports(net, y, "block", 4, 4), stem)
    y = net.op("Concat", y, stem, axis=-1)
    y = _as_keras_exports(net, y, "last", 4, 8)
    model = net.model(net.op("ReduceMean", y, net.ints("space", 1, 2), keepdims=0))
    expected = model.clone()
    assert count_transposes(model.graph) == 6
    assert cancel_transposes(model) == 1
    assert transposes(model) == [["x", "Conv"]]
    same_results(expected, model, 3, 8, 8, 3)


def test_a_transposed_weight_is_not_counted() -> None:
    net = Net("batch", 4)
    y = net.op("MatMul", net.x, net.op("Transpose", net.weight("w", 3, 4), perm=[1, 0]))
    model = net.model(y)
    expected = model.clone()
    assert count_transposes(model.graph) == 0
    assert cancel_transposes(model) == 0
    same_results(expected, model, 2, 4)


def test_an_output_that_is_the_input_transposed_twice_is_still_an_output() -> None:
    net = Net(2, 3, 4, 5)
    twice = net.op("Transpose", net.op("Transpose", net.x, perm=LAST), perm=FIRST)
    model = net.model(twice)
    expected = model.clone()
    assert cancel_transposes(model) == 0
    assert [value.name for value in model.graph.outputs] == ["output_0"]
    same_results(expected, model, 2, 3, 4, 5)


def test_two_outputs_that_share_one_stored_tensor_keep_both_names() -> None:
    net = Net(2, 3, 4, 5)
    y = net.op("Relu", net.op("Transpose", net.x, perm=LAST))
    model = net.model(y, net.op("Transpose", y, perm=FIRST))
    expected = model.clone()
    cancel_transposes(model)
    assert [value.name for value in model.graph.outputs] == ["output_0", "output_1"]
    same_results(expected, model, 2, 3, 4, 5)


def test_a_thousand_nodes_take_less_than_two_seconds() -> None:
    net = Net("batch", 4, 4, 4)
    y = net.x
    for index in range(250):
        y = net.op("Add", net.op("Relu", net.op("Transpose", net.conv(y, f"c{index}", 4, 4, 1), perm=[0, 1, 3, 2])), y)
    model = net.model(y)
    start = time.process_time()
    to_channels_last(model)
    cancel_transposes(model)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("op_type", sorted(CHANNELS_LAST))
def test_every_layout_sensitive_operator_is_known_to_onnx(op_type: str) -> None:
    import onnx

    assert onnx.defs.has(op_type)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(2, 16), st.booleans())
def test_random_graphs_compute_the_same_with_their_transposes_cancelled(seed: int, length: int, symbolic: bool) -> None:
    model = random_graphs.draw(seed, length, symbolic)
    expected, before = random_graphs.outputs(model), count_transposes(model.graph)
    assert cancel_transposes(model) == count_transposes(model.graph) <= before
    _all_close(random_graphs.outputs(model), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(2, 16), st.booleans())
def test_random_graphs_compute_the_same_channels_last(seed: int, length: int, symbolic: bool) -> None:
    model = random_graphs.draw(seed, length, symbolic)
    after, _ = to_channels_last(model)
    _all_close(random_graphs.outputs(lowered(after)), random_graphs.outputs(model))


def _all_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        scale = max(1.0, np.abs(array).max(initial=0))
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * scale, err_msg=name)
