"""What computes is named after the place in the source that made it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import torch

import modelport as mp
from modelport.graph.names import scoped
from modelport.graph.normal import normalize
from modelport.graph.scopes import CALL, Call, name_calls, name_values
from tests.graph.running import model_of, tensor


def chain(*calls: Call | None) -> ir.Graph:
    """Relus, one after the other, with their calls."""
    tape = ir.tape.Tape()
    x = value = tensor("x", ["n"])
    for call in calls:
        value = tape.op("Relu", [value])
        if call is not None:
            value.producer().meta[CALL] = call
    return model_of(tape, [x], [value]).graph


def named(*calls: Call | None) -> list[str]:
    graph = chain(*calls)
    name_calls(graph)
    return [node.name for node in graph]


def test_a_module_that_runs_one_operator_gives_it_its_name() -> None:
    calls = (Call("conv1", "conv2d", 1), Call("layer1.0.relu", "relu", 2), Call("layer1.0.relu", "relu", 3))
    assert named(*calls) == ["conv1", "layer1.0.relu", "layer1.0.relu_1"]


def test_a_module_that_runs_several_has_the_operator_behind_its_name() -> None:
    calls = (Call("block", "add", 1), Call("block", "mul", 2), Call("block", "add", 3), Call("", "view", 4))
    assert named(*calls) == ["block.add", "block.mul", "block.add_1", "view"]


def test_a_module_with_modules_inside_says_what_it_runs_itself() -> None:
    assert named(Call("block.conv", "conv2d", 1), Call("block", "add", 2)) == ["block.conv", "block.add"]


def test_the_last_node_of_a_call_has_its_name() -> None:
    linear = Call("embed", "linear", 1)
    assert named(linear, linear, linear) == ["embed.relu", "embed.relu_1", "embed"]


def test_a_node_without_a_call_keeps_its_name() -> None:
    graph = chain(Call("conv1", "conv2d", 1), None)
    graph[1].name = "conv1"
    name_calls(graph)
    assert [node.name for node in graph] == ["conv1", "conv1_1"]


def test_values_are_called_as_their_nodes_and_outputs_as_before() -> None:
    graph = chain(Call("a", "relu", 1), Call("b", "relu", 2))
    name_calls(graph)
    name_values(graph)
    assert [node.outputs[0].name for node in graph] == ["a", "output_0"]


def test_names_of_other_exporters_become_paths() -> None:
    assert scoped("/layer1/layer1.0/relu/Relu") == "layer1.0.relu.Relu"
    assert scoped("StatefulPartitionedCall/model/dense/BiasAdd:0") == "StatefulPartitionedCall.model.dense.BiasAdd_0"


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3), torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.relu(self.bn(self.conv(x))) + x)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.Sequential(Block(), Block())
        self.head = torch.nn.Linear(3, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(image).mean((2, 3)))


IN_SOURCE = ["blocks.0.conv", "blocks.0.bn", "blocks.0.relu", "blocks.0.add", "blocks.0.relu_1"]
IMAGE = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)


def test_a_torch_net_keeps_its_names_in_keras_and_on_the_way_home() -> None:
    model = mp.transfer(Net().eval(), to="keras", example=IMAGE)
    names = [operation.name for operation in model.native.operations]
    home = mp.transfer(model, to="torch").native

    for block in ("blocks.0", "blocks.1"):
        mine = [name.replace("blocks.0", block) for name in IN_SOURCE]
        assert [name for name in names if name in mine] == mine
        calls = [name.replace(".", "_") for name in mine]
        assert [node.name for node in home.graph.nodes if node.name in calls] == calls
    assert names[-1] == "head"


def test_a_file_of_torchs_own_exporter_keeps_the_modules_that_it_tells_of(tmp_path) -> None:
    path = tmp_path / "net.onnx"
    torch.onnx.export(Net().eval(), (torch.from_numpy(IMAGE),), path, dynamo=True, optimize=False, verbose=False)
    normal = normalize(ir.from_proto(onnx.load(path)))

    names = [node.name for node in normal.graph]
    assert set(IN_SOURCE) <= set(names)
    assert names[-1].startswith("head")
    code = mp.transfer(path, to="torch").native.code
    assert "blocks_1_add" in code
    assert "getitem" not in code
