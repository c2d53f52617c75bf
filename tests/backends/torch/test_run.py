"""A torch model is called with NumPy arrays by name, as its own code nests them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from modelport.backends.torch import BACKEND
from modelport.core.backend import Backend, Trainer
from modelport.core.errors import DataError, SignatureError, UnsupportedModelError


class Nested(nn.Module):
    """Every way to pass and return tensors."""

    def forward(
        self, x: torch.Tensor, pair: tuple[torch.Tensor, torch.Tensor | None], named: dict[str, torch.Tensor], *, k: Any
    ) -> Any:
        return {"sum": x + named["a"], "rest": (pair[0], None, [k, x.repeat(2, 1)])}


def test_the_backend_is_light_and_keeps_the_protocols() -> None:
    assert isinstance(BACKEND, Backend)
    assert isinstance(BACKEND, Trainer)
    assert BACKEND.owns(nn.Linear(2, 2))
    assert BACKEND.owns(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)))
    assert BACKEND.owns(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)))
    assert not BACKEND.owns(object())


def test_the_backend_object_imports_no_torch() -> None:
    code = (
        "import sys; from modelport.backends.torch import BACKEND; BACKEND.formats; "
        "assert not BACKEND.owns(3); assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tuple_is_positional_and_nesting_names_the_inputs() -> None:
    ones = torch.ones(3, 2)
    net, example = Nested(), (ones, (ones, None), {"a": ones})
    with pytest.raises(SignatureError, match="missing 1 required keyword-only argument"):
        BACKEND.signature(net, example)
    signature = BACKEND.signature(net, {"x": ones, "pair": (ones, None), "named": {"a": ones}, "k": np.float32(1)})
    assert [spec.name for spec in signature.inputs] == ["x", "pair_0", "a", "k"]
    assert signature.kwargs == {"x": "x", "pair": ("pair_0", None), "named": {"a": "a"}, "k": "k"}
    assert signature.returns == {"sum": "sum", "rest": ("rest_0", None, ["rest_2_0", "rest_2_1"])}
    shapes = {spec.name: spec.shape for spec in (*signature.inputs, *signature.outputs)}
    assert shapes["x"] == ("batch", 2)
    assert shapes["k"] == ()
    assert shapes["rest_2_1"] == ("2*batch", 2)


def test_a_dict_whose_keys_are_no_parameters_is_one_argument() -> None:
    class DictNet(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return inputs["left"] * inputs["right"]

    example = {"right": torch.full((2, 3), 2.0), "left": np.ones((2, 3), "float32")}
    signature = BACKEND.signature(DictNet(), example)
    assert signature.args == ({"right": "right", "left": "left"},)
    arrays = BACKEND.flatten(DictNet(), example, signature)
    assert BACKEND.flatten(DictNet(), arrays, signature).keys() == arrays.keys()
    np.testing.assert_array_equal(BACKEND.run(DictNet(), arrays, signature)["output"], np.full((2, 3), 2.0))


def test_keywords_are_in_the_order_of_forward() -> None:
    class Two(nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return first - second

    signature = BACKEND.signature(Two(), {"second": torch.ones(2), "first": torch.zeros(2)})
    assert [spec.name for spec in signature.inputs] == ["first", "second"]


class Pair(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor


@dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (lambda x: x, "output"),
        (lambda x: [x, x], ["output_0", "output_1"]),
        (lambda x: Pair(x, x), ("mean", "spread")),
        (lambda x: Output(x), {"logits": "logits"}),
        (lambda x: torch.max(x, 1), ("output_0", "output_1")),
    ],
)
def test_outputs_keep_their_nesting(returned: Any, names: Any) -> None:
    class Returning(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return returned(x)

    signature = BACKEND.signature(Returning(), torch.ones(2, 3))
    assert signature.returns == names
    assert len(BACKEND.run(Returning(), {"x": np.ones((5, 3), "float32")}, signature)) == len(signature.outputs)


@pytest.mark.parametrize(
    ("example", "message"),
    [(None, "pass example="), (torch.ones(2, 3), r"float32\(2, 3\)"), ((torch.ones(2, 2), True), "argument 1.*True")],
)
def test_a_wrong_example_is_refused(example: Any, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        BACKEND.signature(nn.Linear(2, 2), example)


def test_an_output_that_is_no_tensor_is_refused() -> None:
    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x, len(x)

    with pytest.raises(UnsupportedModelError, match="int"):
        BACKEND.signature(Counting(), torch.ones(2, 3))


def test_a_model_that_needs_its_number_of_rows_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.ones(2, 3)

    with pytest.raises(UnsupportedModelError, match="2 rows but not with 3"):
        BACKEND.signature(Fixed(), torch.ones(2, 3))


def test_running_is_inference_and_leaves_every_train_flag() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9), nn.BatchNorm1d(3))
    net[1].eval()
    before = net.state_dict()["2.running_mean"].clone()
    signature = BACKEND.signature(net, torch.ones(2, 3))
    x = {"input": np.random.default_rng(0).standard_normal((4, 3)).astype("float32")}
    np.testing.assert_array_equal(BACKEND.run(net, x, signature)["output"], BACKEND.run(net, x, signature)["output"])
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert bool((net.state_dict()["2.running_mean"] == before).all())


def test_threads_share_one_inference_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).train()
    signature = BACKEND.signature(net, torch.ones(2, 3))
    x = {"input": np.ones((2, 3), "float32")}
    expected = BACKEND.run(net, x, signature)["output"]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: BACKEND.run(net, x, signature)["output"], range(64)))
    assert all(np.array_equal(result, expected) for result in results)
    assert all(module.training for module in net.modules())


def test_padded_positions_are_what_training_computes() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    mask = torch.tensor([[False, False, True], [False, False, True]])
    example = {"src": torch.randn(2, 3, 8), "src_key_padding_mask": mask}
    signature = BACKEND.signature(net, example)
    found = BACKEND.run(net, BACKEND.flatten(net, example, signature), signature)["output"]
    np.testing.assert_allclose(found, net(**example).detach().numpy(), atol=1e-6)


def test_bfloat16_goes_in_and_out() -> None:
    net = nn.Linear(3, 2).to(torch.bfloat16)
    signature = BACKEND.signature(net, torch.ones(2, 3, dtype=torch.bfloat16))
    assert signature.inputs[0].dtype == "bfloat16"
    result = BACKEND.run(net, {"input": np.ones((2, 3), ml_dtypes.bfloat16)}, signature)["output"]
    assert result.dtype == ml_dtypes.bfloat16


def test_gradients_are_those_of_torch_and_leave_grad_alone() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.spare = nn.LSTM(3, 4, batch_first=True), nn.Linear(2, 2)
            self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

        def forward(self, x: torch.Tensor) -> Any:
            hidden, (state, _) = self.lstm(x)
            return {"all": hidden * self.frozen, "last": state[0]}

    net, x = Heads(), torch.randn(2, 5, 3)
    signature = BACKEND.signature(net, x)
    arrays = BACKEND.flatten(net, x, signature)
    cotangents = {"all": np.ones((2, 5, 4), "float32"), "last": np.full((2, 4), 2, "float32")}
    found = BACKEND.gradients(net, arrays, cotangents, signature)
    assert all(parameter.grad is None for parameter in net.parameters())
    outputs = net(x)
    (outputs["all"].sum() + 2 * outputs["last"].sum()).backward()
    assert set(found) == {name for name, p in net.named_parameters() if p.requires_grad}
    assert not found["spare.weight"].any()
    for name, parameter in net.lstm.named_parameters():
        np.testing.assert_allclose(found[f"lstm.{name}"], parameter.grad.numpy(), atol=1e-6)


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    net = nn.Linear(2, 2)
    assert BACKEND.place(net, "cpu") is net
    with pytest.raises(DataError, match=r"cuda:99.*cpu"):
        BACKEND.place(net, "cuda:99")
