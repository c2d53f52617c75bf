"""Torch models become portable graphs that ONNX Runtime computes alike, with every weight under its own name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

import modelport as mp
from modelport.backends.torch import BACKEND
from modelport.core.backend import Exported
from modelport.core.errors import UnsupportedModelError, UnsupportedOpError
from modelport.core.signature import Signature
from modelport.graph.signature import read_signature
from modelport.graph.weights import aliases, roles
from tests.nets import in_torch


def exported(native: Any, example: Any, signature: Signature | None = None) -> Exported:
    signature = signature or BACKEND.signature(native, example)
    return BACKEND.export(native, BACKEND.flatten(native, example, signature), signature)


def differences(
    native: Any, example: Any, signature: Signature | None = None, graph: ir.Model | None = None, **sizes: int
) -> list[float]:
    """Largest difference of every output between torch and ONNX Runtime, relative to the largest value."""
    signature = signature or BACKEND.signature(native, example)
    arrays = BACKEND.flatten(native, example, signature)
    proto = ir.to_proto(graph or exported(native, example, signature).graph)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = []
    for batch in (1, 2, 7):
        inputs = signature.draw({"batch": batch, **sizes}, like=arrays, seed=batch)
        expected = BACKEND.run(native, inputs, signature)
        results = session.run([spec.name for spec in signature.outputs], inputs)
        for value, result in zip(expected.values(), results, strict=True):
            assert result.shape == value.shape
            found.append(float(np.abs(result - value).max() / (np.abs(value).max() or 1)))
    return found


def operators(graph: ir.Model, *names: str) -> list[ir.Node]:
    return [node for node in graph.graph if node.op_type in names]


@pytest.mark.parametrize("kind", in_torch.NETS)
def test_every_kind_of_net_computes_the_same_and_keeps_its_weights(kind: str) -> None:
    net, example = in_torch.net(kind), in_torch.example(kind)
    signature = BACKEND.signature(net, example)
    graph = exported(net, example, signature).graph
    assert max(differences(net, example, signature, graph)) < 1e-5
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert set(roles(graph)) == set(state)
    for name, tensor in state.items():
        array = graph.graph.initializers[name].const_value.numpy()
        assert array.shape == tuple(tensor.shape)
        assert array.ctypes.data == tensor.data_ptr()


class Stacked(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.cell = cell(4, 3, num_layers=2, dropout=0.25, bidirectional=True, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> Any:
        return self.cell(x)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_stay_whole_for_any_number_of_steps(cell: type[nn.RNNBase]) -> None:
    net, x = Stacked(cell), torch.randn(2, 5, 4)
    signature = BACKEND.signature(net, x).with_dims({"x": ("batch", "steps", 4)})
    graph = exported(net, x, signature).graph
    assert max(differences(net, x, signature, graph, steps=9)) < 1e-5
    assert [node.op_type for node in operators(graph, "LSTM", "GRU", "RNN")] == [cell.__name__] * 2
    assert len(operators(graph, "Dropout")) == 1
    assert read_signature(graph).outputs[0].shape == ("batch", "steps", 6)


def test_initial_states_cross_and_zero_states_vanish() -> None:
    class WithState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3)

        def forward(self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None) -> Any:
            return self.lstm(x, state)

    net, x, state = WithState(), torch.randn(5, 2, 4), (torch.randn(1, 2, 3), torch.randn(1, 2, 3))
    dims = {"x": (5, "batch", 4), "state_0": (1, "batch", 3), "state_1": (1, "batch", 3)}
    signature = BACKEND.signature(net, (x, state)).with_dims(dims)
    assert max(differences(net, (x, state), signature)) < 1e-5
    (node,) = operators(exported(net, x).graph, "LSTM")
    assert len([value for value in node.inputs if value is not None]) == 4


def test_dropout_stays_with_its_ratio_also_inside_attention() -> None:
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True).eval()
    graph = exported(net, torch.randn(2, 5, 8)).graph
    ratios = [round(float(node.inputs[1].const_value.numpy()), 4) for node in operators(graph, "Dropout")]
    assert ratios == [0.3] * 4
    assert [len(node.outputs) for node in operators(graph, "Dropout")] == [1] * 4


def test_normalisation_and_gelu_are_single_operators_and_batch_norm_keeps_its_momentum() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.2), nn.GELU(), nn.GELU("tanh"), nn.LayerNorm(6)
    ).eval()
    graph = exported(net, torch.randn(2, 1, 8, 8)).graph
    assert [node.op_type for node in graph.graph if node.op_type != "Constant"] == [
        "Conv", "BatchNormalization", "Gelu", "Gelu", "LayerNormalization",
    ]  # fmt: skip
    assert len(operators(graph, "Conv")[0].inputs) == 2
    assert operators(graph, "BatchNormalization")[0].attributes["momentum"].as_float() == pytest.approx(0.8)
    assert [node.attributes["approximate"].as_string() for node in operators(graph, "Gelu")] == ["none", "tanh"]


def test_what_the_graph_says_otherwise_than_torch_is_noted() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, momentum=None), nn.AlphaDropout(0.5)).eval()
    notes = exported(net, torch.randn(2, 1, 4, 4)).notes
    assert {(note.kind, note.where) for note in notes} == {("changed", "1"), ("changed", "2")}


def test_what_acts_in_training_only_is_noted() -> None:
    class Skipping(nn.Module):
        def __init__(self, drop_prob: float) -> None:
            super().__init__()
            self.drop_prob = drop_prob

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (torch.rand(len(x), 1) > self.drop_prob) if self.training else x

    net = nn.Sequential(nn.Linear(2, 2), Skipping(0.1), Skipping(0.0), nn.Linear(2, 2), Skipping(0.2)).eval()
    notes = exported(net, torch.randn(2, 2)).notes
    assert [(note.kind, note.where) for note in notes] == [("dropped", "1 and 1 more")]
    assert "Skipping" in notes[0].message


def test_nodes_are_named_after_their_modules_and_hold_no_source_paths() -> None:
    graph = exported(in_torch.net("encoder"), in_torch.example("encoder")).graph
    names = [node.name for node in graph.graph]
    assert len(set(names)) == len(names)
    assert {"embed", "encoder.layers.1.linear2", "encoder.layers.0.dropout1", "encoder.layers.1.add"} <= set(names)
    assert ".py" not in str(ir.to_proto(graph.clone()).graph.node)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out, self.spare = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False), nn.Linear(2, 2)
        self.out.weight = self.embed.weight
        self.scale = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("shift", torch.ones(4))
        self.register_buffer("cache", torch.arange(4.0), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(ids) * self.scale + self.shift + self.cache)


def test_roles_ties_and_unused_weights_are_kept() -> None:
    graph = exported(Tied(), torch.randint(0, 10, (2, 3))).graph
    assert aliases(graph) == {"out.weight": "embed.weight"}
    assert roles(graph) == {
        "embed.weight": "parameter",
        "spare.weight": "parameter",
        "spare.bias": "parameter",
        "scale": "frozen",
        "shift": "buffer",
    }


def test_inputs_and_outputs_have_names_of_their_own() -> None:
    class Clashing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, weight: torch.Tensor, unused: torch.Tensor) -> dict[str, Any]:
            return {"weight": weight, "unused": [weight * self.weight, None, weight]}

    net, example = Clashing(), (torch.ones(2, 3), torch.ones(2))
    graph = exported(net, example).graph
    signature = read_signature(graph)
    assert [spec.name for spec in signature.inputs] == ["input_weight", "unused"]
    assert signature.returns == {"weight": "output_weight", "unused": ["unused_0", None, "unused_2"]}
    assert max(differences(net, example, None, graph)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_cross(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Dropout(0.1)).to(dtype).eval()
    graph = exported(net, torch.ones(2, 3, dtype=dtype)).graph
    name = str(dtype).removeprefix("torch.")
    assert {spec.dtype for spec in (*read_signature(graph).inputs, *read_signature(graph).outputs)} == {name}
    assert {graph.graph.initializers[role].dtype for role in roles(graph)} == {graph.graph.inputs[0].dtype}


def test_the_model_is_left_as_it_was() -> None:
    net = Stacked(nn.LSTM)
    net.cell.eval()
    net.cell.weight_ih_l0.grad = torch.ones_like(net.cell.weight_ih_l0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    signature = BACKEND.signature(net, torch.zeros(1, 5, 4))
    BACKEND.export(net, {"x": np.zeros((1, 5, 4), "float32")}, signature)
    assert torch.rand(1) == expected
    assert (net.training, net.cell.training) == (True, False)
    assert torch.backends.mha.get_fastpath_enabled()
    assert bool((net.cell.weight_ih_l0.grad == 1).all())
    net.train()(torch.randn(2, 5, 4))[0].sum().backward()
    assert not net._forward_hooks


def test_a_program_keeps_its_own_dimensions() -> None:
    net = in_torch.net("cnn")
    x = torch.randn(2, 3, 16, 16)
    fixed = torch.export.export(net, (x,))
    assert read_signature(exported(fixed, None).graph).inputs[0].shape == (2, 3, 16, 16)
    free = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    graph = exported(free, None).graph
    assert read_signature(graph).outputs[0].shape == ("batch", 10)
    assert max(differences(free, None, None, graph)) < 1e-5
    assert set(roles(graph)) == set(BACKEND.parameters(net))


def test_a_program_exported_in_training_mode_is_refused() -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), (torch.ones(2, 3),))
    with pytest.raises(UnsupportedModelError, match="training mode"):
        exported(program, None)


def test_torchscript_crosses() -> None:
    net = torch.jit.script(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.BatchNorm1d(4), nn.Dropout(0.2)))
    graph = exported(net, torch.randn(2, 3, 8)).graph
    assert max(differences(net, torch.randn(2, 3, 8), None, graph)) < 1e-5
    assert set(roles(graph)) == set(BACKEND.parameters(net))


def test_torchscript_crosses_with_inputs_by_name() -> None:
    class Gated(nn.Module):
        def forward(
            self, x: torch.Tensor, gate: torch.Tensor | None = None, by: torch.Tensor | None = None
        ) -> torch.Tensor:
            x = x if gate is None else x * gate
            return x if by is None else x + by

    x, y = torch.randn(2, 3), torch.randn(2, 3)
    net = torch.jit.trace(Gated(), (x, y))
    graph = exported(net, {"gate": y, "x": x}).graph
    assert [value.name for value in graph.graph.inputs] == ["x", "gate"]
    with pytest.raises(UnsupportedModelError, match="by its inputs' positions, and by come by name"):
        exported(torch.jit.script(Gated()), {"x": x, "by": y})


def test_a_decision_by_values_is_refused_with_its_line() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(UnsupportedModelError, match=r"test_export.py:\d+: if x.sum\(\) > 0.*torch.where") as error:
        exported(Deciding(), torch.ones(2, 3))
    assert error.value.__cause__ is not None


def test_a_fixed_dimension_is_refused_with_its_name_line_and_remedy() -> None:
    class Looping(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in range(x.shape[0]):
                x = x + i
            return x

    net, x = Looping(), torch.ones(2, 3)
    with pytest.raises(UnsupportedModelError, match=r"batch.*for i in range\(x.shape\[0\]\).*\{'x': \(2, 3\)\}"):
        exported(net, x)
    fixed = BACKEND.signature(net, x).with_dims({"x": (2, 3)})
    assert read_signature(exported(net, x, fixed).graph).outputs[0].shape == (2, 3)


def test_an_operator_without_an_onnx_form_is_named_with_its_line() -> None:
    class Spectral(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x).real

    with pytest.raises(UnsupportedOpError, match=r"test_export.py:\d+: return torch.linalg.eigvals") as error:
        exported(Spectral(), torch.randn(2, 3, 3))
    assert error.value.op_type == "aten.linalg_eig"


def test_a_loop_over_a_number_that_is_computed_is_refused_with_its_line() -> None:
    class Counted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(int(x.abs().max().item())):
                x = x + 1
            return x

    with pytest.raises(UnsupportedModelError, match=r"test_export.py:\d+: for _ in range\(int.*torch.where"):
        exported(Counted(), torch.ones(2, 3))


def test_a_buffer_that_every_call_writes_is_noted() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * 2

    result = exported(Counting(), torch.ones(2, 3))
    assert [(note.kind, note.where) for note in result.notes] == [("dropped", "calls")]
    assert len(result.graph.graph.outputs) == 1


class _Mask(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.number - x


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float16])
@pytest.mark.parametrize("number", [1, 1.5])
def test_a_tensor_is_taken_from_a_number(number: float, dtype: torch.dtype) -> None:
    example = torch.tensor([[1, 0, 1], [0, 0, 1]]).to(dtype)
    assert differences(_Mask(number), example) == [0, 0, 0]


def _of_any_length(net: nn.Module, length: int) -> list[float]:
    """How a net of (batch, length) differs from its graph, which is exported at a length, at another one."""
    example = torch.arange(2.0 * length).reshape(2, length)
    signature = BACKEND.signature(net, example)
    signature = signature.with_dims({signature.inputs[0].name: ("batch", "length")})
    return differences(net, example, signature, length=2 * length + 3)


def test_a_tensor_is_taken_from_a_size() -> None:
    class Backwards(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, (x.shape[1] - 1) - torch.arange(x.shape[1])]

    assert max(_of_any_length(Backwards(), 5)) == 0


def test_what_cuts_off_nothing_of_the_example_takes_any_size() -> None:
    class Cropping(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            start = (x.shape[1] - 6) // 2
            return x[:, start : start + 6]

    assert max(_of_any_length(Cropping(), 6)) == 0


class _Joined(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(-1, (2, 3)).transpose(1, 2)
        joined = nn.functional.scaled_dot_product_attention(heads, heads, heads).permute(0, 2, 1, 3).contiguous()
        return joined.view(x.shape[0], -1, 6)


def test_heads_are_joined_whatever_lies_where_in_memory() -> None:
    assert max(differences(_Joined(), torch.rand(2, 4, 6))) < 1e-6


def test_a_packed_sequence_is_named_with_its_line_and_the_remedy() -> None:
    class Packing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    example = (np.zeros((2, 5, 3), "float32"), np.array([5, 3]))
    with pytest.raises(UnsupportedModelError, match=r"packs sequences at .*test_export\.py.*padded batch"):
        mp.transfer(Packing(), to="onnx", example=example)
