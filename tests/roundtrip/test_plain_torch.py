"""A torch result is plain torch: what a user does to a module written by hand works on it, without modelport."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.utils import _pytree as pytree

import modelport as mp
from tests.nets import in_keras

KINDS = ("cnn", "gru", "encoder", "embedding")


class Plain(NamedTuple):
    module: torch.fx.GraphModule
    args: tuple[Any, ...]
    outputs: list[torch.Tensor]

    def same(self, outputs: Any, tolerance: float = 1e-4) -> None:
        for mine, theirs in zip(pytree.tree_leaves(outputs), self.outputs, strict=True):
            torch.testing.assert_close(mine.to(theirs.dtype), theirs, rtol=tolerance, atol=tolerance)

    def more(self) -> tuple[Any, ...]:
        """The same inputs with one more row."""
        return pytree.tree_map(lambda tensor: torch.cat([tensor, tensor[:1]]), self.args)

    def any_batch(self) -> Any:
        return pytree.tree_map(lambda _: {0: torch.export.Dim.DYNAMIC}, self.args)

    def cast(self, dtype: torch.dtype) -> tuple[Any, ...]:
        return pytree.tree_map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, self.args)


@cache
def transferred(kind: str) -> Plain:
    model = mp.transfer(in_keras.net(kind), to="torch", example=in_keras.example(kind))
    named = model.signature.bind(in_keras.example(kind))
    args = pytree.tree_map(lambda name: torch.from_numpy(np.array(named[name])), model.signature.args)
    return Plain(model.native, args, pytree.tree_leaves(model.native(*args)))


@pytest.fixture(params=KINDS)
def plain(request: pytest.FixtureRequest) -> Plain:
    return transferred(request.param)


def trained(module: nn.Module, args: tuple[Any, ...]) -> None:
    sum(output.float().sum() for output in pytree.tree_leaves(module(*args))).backward()


def test_it_exports_again_for_any_batch(plain: Plain) -> None:
    program = torch.export.export(plain.module, plain.args, dynamic_shapes=plain.any_batch())

    plain.same(program.module()(*plain.args))
    torch.testing.assert_close(program.module()(*plain.more()), plain.module(*plain.more()), rtol=1e-4, atol=1e-5)


def test_it_exports_to_onnx_again_for_any_batch(tmp_path: Path) -> None:
    plain = transferred("cnn")
    path = tmp_path / "again.onnx"
    torch.onnx.export(plain.module, plain.args, path, dynamo=True, dynamic_shapes=plain.any_batch(), verbose=False)

    session = ort.InferenceSession(path)
    got = session.run(None, {session.get_inputs()[0].name: plain.more()[0].numpy()})
    torch.testing.assert_close(torch.from_numpy(got[0]), plain.module(*plain.more()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["cnn", "encoder"])
def test_it_compiles_as_one_graph(kind: str) -> None:
    plain = transferred(kind)
    torch._dynamo.reset()
    plain.same(torch.compile(plain.module, backend="aot_eager", fullgraph=True)(*plain.args))


def test_it_is_copied_and_traced(plain: Plain) -> None:
    for twin in (copy.deepcopy(plain.module), torch.fx.symbolic_trace(plain.module)):
        plain.same(twin(*plain.args))


def test_its_state_dict_goes_into_a_copy(plain: Plain) -> None:
    twin = copy.deepcopy(plain.module)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(plain.module.state_dict())
    plain.same(twin(*plain.args))


def test_it_computes_in_other_precisions(plain: Plain) -> None:
    for dtype, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.2)):
        twin = copy.deepcopy(plain.module).to(dtype)
        outputs = pytree.tree_leaves(twin(*plain.cast(dtype)))
        assert all(output.dtype == dtype for output in outputs)
        plain.same(outputs, tolerance)
    with torch.autocast("cpu", torch.bfloat16):
        plain.same(plain.module(*plain.args), 0.2)


def test_it_computes_shapes_on_the_meta_device(plain: Plain) -> None:
    args = pytree.tree_map(lambda tensor: tensor.to("meta"), plain.args)
    outputs = pytree.tree_leaves(copy.deepcopy(plain.module).to("meta")(*args))
    assert [output.shape for output in outputs] == [output.shape for output in plain.outputs]


def test_it_trains_and_its_parameters_are_grouped_by_name(plain: Plain) -> None:
    module = copy.deepcopy(plain.module).train()
    bias = [parameter for name, parameter in module.named_parameters() if name.endswith("bias")]
    rest = [parameter for name, parameter in module.named_parameters() if not name.endswith("bias")]
    optimizer = torch.optim.AdamW([{"params": bias, "weight_decay": 0.0}, {"params": rest, "lr": 1e-3}])
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trained(module, plain.args)
    optimizer.step()

    assert bias
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert any(not torch.equal(before[name], parameter) for name, parameter in module.named_parameters())
    module.eval()(*plain.args)


def test_its_layers_are_pruned(plain: Plain) -> None:
    module = copy.deepcopy(plain.module)
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        nn.utils.prune.l1_unstructured(layer, "weight", 0.5)
    masked = pytree.tree_leaves(module(*plain.args))
    for layer in layers:
        nn.utils.prune.remove(layer, "weight")

    assert layers
    assert all(0.4 < float((layer.weight == 0).float().mean()) < 0.6 for layer in layers)
    assert not torch.equal(masked[0], plain.outputs[0])
    torch.testing.assert_close(pytree.tree_leaves(module(*plain.args)), masked)


class LowRank(nn.Module):
    """A Linear with a low-rank correction, as peft puts it in the place of a Linear."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_a, self.lora_b = (
            nn.Linear(base.in_features, 2, bias=False),
            nn.Linear(2, base.out_features, bias=False),
        )
        nn.init.zeros_(self.lora_b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_b(self.lora_a(x))


def test_its_linears_are_replaced_by_name(plain: Plain) -> None:
    module = copy.deepcopy(plain.module).requires_grad_(False)
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    for name in names:
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, LowRank(module.get_submodule(name)))
    outputs = module(*plain.args)
    trained(module, plain.args)

    assert names
    plain.same(outputs)
    corrections = [parameter for name, parameter in module.named_parameters() if "lora_b" in name]
    assert all(parameter.grad is not None for parameter in corrections)


ALONE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("modelport", "keras", "tensorflow", "onnx", "onnx_ir"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Nothing())
import torch
from torch.utils import _pytree as pytree
for module, args, outputs in torch.load(sys.argv[1], weights_only=False):
    for mine, theirs in zip(pytree.tree_leaves(module(*args)), outputs, strict=True):
        torch.testing.assert_close(mine, theirs)
"""


def test_it_is_pickled_and_opens_where_there_is_no_modelport(tmp_path: Path) -> None:
    torch.save([tuple(transferred(kind)) for kind in KINDS], tmp_path / "plain.pt")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "plain.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_call_of_its_code_is_named_after_its_source(plain: Plain) -> None:
    anonymous = [node.name for node in plain.module.graph.nodes if node.name.startswith(("node_", "getitem", "val_"))]
    assert not anonymous
