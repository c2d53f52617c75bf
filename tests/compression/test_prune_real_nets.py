"""Real architectures at half their multiplications: right shapes everywhere, plain torch modules of smaller layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import modelport as mp
from modelport.compression.prune import prune
from modelport.core.steps import Prune
from modelport.verbs.subject import exported, subject
from tests.nets.vision import torchvision_models

RATIOS = {"mobilenet_v2": 0.32, "resnet50": 0.32, "densenet121": 0.36, "convnext_tiny": 0.32, "vit_b_16": 0.32}
"""By net, the share of channels that goes; the square of what stays is about half."""


def multiplications(graph: ir.Model) -> int:
    """The multiply-accumulates of convolutions and matrix products, for one image."""
    total = 0
    for node in graph.graph:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            sizes = [size if isinstance(size, int) else 1 for size in node.outputs[0].shape]
            inner = node.inputs[1].shape[1:] if node.op_type == "Conv" else node.inputs[0].shape[-1:]
            total += int(np.prod(sizes)) * int(np.prod([int(size) for size in inner]))
    return total


@pytest.mark.parametrize(
    "name", [name if name == "mobilenet_v2" else pytest.param(name, marks=pytest.mark.zoo) for name in RATIOS]
)
def test_a_net_at_half_its_multiplications_is_a_plain_smaller_net(name: str) -> None:
    net = getattr(torchvision_models(), name)(weights=None).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype("float32")
    graph = exported(subject(net, example=x)).graph
    pruned = prune(graph, Prune(RATIOS[name], structured=True, scope="layer"))
    whole = multiplications(prune(graph, Prune(1e-3)).graph)
    assert 0.3 < multiplications(pruned.graph) / whole < 0.52
    assert [row.layer for row in pruned.left] == [list(net.state_dict())[-2]]
    moved = mp.transfer(ir.to_proto(pruned.graph), to="torch", example=x)
    before, after = net.state_dict(), moved.native.state_dict()
    counted = {key for key in before if not key.endswith("num_batches_tracked")}
    assert {key for key in after if not key.endswith("num_batches_tracked")} == counted
    assert moved(x).shape == (2, 1000)
    assert sum(after[key].numel() for key in counted) < 0.62 * sum(before[key].numel() for key in counted)
