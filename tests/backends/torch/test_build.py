"""Portable graphs as torch modules."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from modelport.backends.torch.build import build
from modelport.core.errors import UnsupportedOpError
from modelport.core.signature import Signature, TensorSpec
from modelport.graph.signature import write_signature
from modelport.graph.weights import set_aliases, set_roles

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple],
    outputs: dict[str, tuple | None],
    tensors: dict[str, np.ndarray],
    roles: dict[str, str] | None = None,
) -> ir.Model:
    """A portable graph; what `roles` does not name is a constant, and without `roles` the graph is foreign."""
    info = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in part.items()]
        for part in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    proto = helper.make_graph(nodes, "g", *info, initializers)
    model = ir.from_proto(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    if roles is not None:
        set_roles(model, roles)
    return model


def linear(name: str, x: str, y: str, *, weight: str | None = None) -> list[onnx.NodeProto]:
    return [helper.make_node("Gemm", [x, weight or f"{name}.weight", f"{name}.bias"], [y], name=name, transB=1)]


def two_layers() -> ir.Model:
    tensors = {"a.weight": array(4, 3), "a.bias": array(4), "b.0.weight": array(2, 4), "b.0.bias": array(2)}
    nodes = [*linear("a", "x", "h"), helper.make_node("Relu", ["h"], ["r"]), *linear("b.0", "r", "y")]
    return graph(nodes, {"x": ("batch", 3)}, {"y": ("batch", 2)}, tensors, dict.fromkeys(tensors, "parameter"))


def test_weights_are_in_layers_under_their_own_names() -> None:
    module = build(two_layers()).native
    assert list(module.state_dict()) == ["a.weight", "a.bias", "b.0.weight", "b.0.bias"]
    assert isinstance(module.get_submodule("a"), nn.Linear)
    assert isinstance(module.get_submodule("b.0"), nn.Linear)
    assert [node.name for node in module.graph.nodes if node.op == "call_module"] == ["a", "b_0"]


def test_every_parameter_gets_a_gradient() -> None:
    module = build(two_layers()).native
    module(torch.randn(5, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert len(list(module.parameters())) == 4


def test_the_source_arrays_do_not_change_when_the_module_trains() -> None:
    model = two_layers()
    before = model.graph.initializers["a.weight"].const_value.numpy().copy()
    module = build(model).native
    with torch.no_grad():
        module.get_submodule("a").weight.zero_()
    np.testing.assert_array_equal(model.graph.initializers["a.weight"].const_value.numpy(), before)


def test_one_layer_that_is_called_twice_is_one_module() -> None:
    tensors = {"a.weight": array(3, 3), "a.bias": array(3)}
    nodes = [*linear("a", "x", "h"), *linear("a", "h", "y")]
    model = graph(nodes, {"x": (2, 3)}, {"y": (2, 3)}, tensors, dict.fromkeys(tensors, "parameter"))
    module = build(model).native
    assert [node.target for node in module.graph.nodes if node.op == "call_module"] == ["a", "a"]


def test_tied_weights_are_one_parameter_under_two_names() -> None:
    table = {"embed.weight": array(7, 3)}
    nodes = [
        helper.make_node("Gather", ["embed.weight", "ids"], ["e"]),
        helper.make_node("Transpose", ["embed.weight"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "t"], ["y"]),
    ]
    model = graph(nodes, {"ids": ("batch",)}, {"y": ("batch", 7)}, table, {"embed.weight": "parameter"})
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.INT64)
    set_aliases(model, {"head.weight": "embed.weight"})
    module = build(model).native
    assert module.get_submodule("embed").weight is module.get_submodule("head").weight
    assert isinstance(module.get_submodule("head"), nn.Linear)
    assert set(module.state_dict()) == {"embed.weight", "head.weight"}


def test_frozen_weights_buffers_and_unused_weights_stay_what_they_are() -> None:
    tensors = {"a.weight": array(3, 3), "scale": array(3), "unused.weight": array(2), "count": np.array(7)}
    nodes = [
        helper.make_node("Gemm", ["x", "a.weight"], ["h"], transB=1),
        helper.make_node("Mul", ["h", "scale"], ["y"]),
    ]
    roles = {"a.weight": "frozen", "scale": "buffer", "unused.weight": "parameter", "count": "buffer"}
    module = build(graph(nodes, {"x": (2, 3)}, {"y": (2, 3)}, tensors, roles)).native
    assert set(module.state_dict()) == set(tensors)
    assert not module.get_submodule("a").weight.requires_grad
    assert set(dict(module.named_buffers())) == {"scale", "count"}
    assert set(copy.deepcopy(module).state_dict()) == set(tensors)


def test_a_weight_whose_name_fits_no_layer_is_a_parameter_at_its_path() -> None:
    tensors = {"attn.in_proj_weight": array(4, 3), "attn.in_proj_bias": array(4)}
    nodes = [helper.make_node("Gemm", ["x", *tensors], ["y"], transB=1)]
    model = graph(nodes, {"x": ("n", 3)}, {"y": ("n", 4)}, tensors, dict.fromkeys(tensors, "parameter"))
    module = build(model).native
    assert list(module.state_dict()) == list(tensors)
    x = torch.randn(2, 3)
    expected = x.numpy() @ tensors["attn.in_proj_weight"].T + tensors["attn.in_proj_bias"]
    np.testing.assert_allclose(module(x).detach(), expected, rtol=1e-5, atol=1e-6)


def test_the_weights_of_a_foreign_graph_become_a_layer() -> None:
    tensors = {"onnx::MatMul_12": array(3, 4), "fc.kernel": array(4, 2)}
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_12"], ["h"], name="/encoder/0/MatMul"),
        helper.make_node("MatMul", ["h", "fc.kernel"], ["y"], name="fc"),
    ]
    module = build(graph(nodes, {"x": ("n", 3)}, {"y": ("n", 2)}, tensors)).native
    assert list(module.state_dict()) == ["encoder.0.MatMul.weight", "fc.weight"]
    assert all(isinstance(module.get_submodule(path), nn.Linear) for path in ("encoder.0.MatMul", "fc"))
    x = torch.randn(2, 3)
    np.testing.assert_allclose(
        module(x).detach(), x.numpy() @ tensors["onnx::MatMul_12"] @ tensors["fc.kernel"], rtol=1e-4
    )


def constant_and_slice() -> ir.Model:
    """A position table as a constant, cut to the length of the input."""
    tensors = {"table": array(1, 9, 3), "zero": np.array([0]), "one": np.array([1]), "a.weight": array(3, 3)}
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=1, end=2),
        helper.make_node("Slice", ["table", "zero", "size", "one"], ["positions"]),
        helper.make_node("Add", ["x", "positions"], ["h"]),
        helper.make_node("Transpose", ["a.weight"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),
    ]
    roles = {"a.weight": "parameter"}
    return graph(nodes, {"x": ("n", "length", 3)}, {"y": ("n", "length", 3)}, tensors, roles)


def test_constants_stay_out_of_state_dict_in_every_copy() -> None:
    module = build(constant_and_slice()).native
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (module, copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert list(other.state_dict()) == ["a.weight"]
        x = torch.randn(2, 4, 3)
        torch.testing.assert_close(other(x), module(x))


def test_the_module_is_exported_again_with_dynamic_sizes() -> None:
    module = build(constant_and_slice()).native
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.randn(2, 4, 3),), dynamic_shapes=({0: dynamic, 1: dynamic},))
    x = torch.randn(5, 7, 3)
    torch.testing.assert_close(program.module()(x), module(x))


def test_a_saved_program_runs_in_a_process_without_modelport(tmp_path: Path) -> None:
    module = build(two_layers()).native
    x = torch.randn(2, 3)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "m.pt2")
    torch.save(module, tmp_path / "m.pt")
    torch.save((x, module(x).detach()), tmp_path / "xy.pt")
    code = (
        "import sys; sys.modules['modelport'] = None\n"
        "import torch\n"
        "x, y = torch.load('xy.pt')\n"
        "torch.testing.assert_close(torch.export.load('m.pt2').module()(x), y)\n"
        "torch.testing.assert_close(torch.load('m.pt', weights_only=False)(x), y)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_batch_norm_statistics_move_and_dropout_drops_in_train_mode() -> None:
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {f"bn.{name}": np.abs(array(3)) for name in names} | {"ratio": np.array(0.5, np.float32)}
    nodes = [
        helper.make_node("BatchNormalization", ["x", *(f"bn.{name}" for name in names)], ["h"], momentum=0.8),
        helper.make_node("Dropout", ["h", "ratio"], ["y"], name="drop"),
    ]
    roles = {"bn.weight": "parameter", "bn.bias": "parameter", "bn.running_mean": "buffer", "bn.running_var": "buffer"}
    module = build(graph(nodes, {"x": ("n", 3, 4)}, {"y": ("n", 3, 4)}, tensors, roles)).native
    norm, drop = module.get_submodule("bn"), module.get_submodule("drop")
    assert (type(norm), norm.momentum, drop.p) == (nn.BatchNorm1d, 0.2, 0.5)
    x, before = torch.randn(6, 3, 4), norm.running_mean.clone()
    torch.testing.assert_close(module(x), module(x))
    module.train()
    assert (module(x) == 0).any()
    assert not torch.equal(norm.running_mean, before)
    # The counter belongs to the layer: a class of one's own loads this state dict with every key matched.
    assert list(module.state_dict()) == [*(f"bn.{name}" for name in names), "bn.num_batches_tracked"]


def test_dict_arguments_and_nested_outputs_are_those_of_the_signature() -> None:
    nodes = [helper.make_node("Add", ["p", "q"], ["s"]), helper.make_node("Mul", ["p", "k"], ["m"])]
    shapes = {"p": ("n", 3), "q": ("n", 3), "k": ("n", 3)}
    model = graph(nodes, shapes, {"s": ("n", 3), "m": ("n", 3)}, {}, {})
    inputs = tuple(TensorSpec(name, "float32", dims) for name, dims in shapes.items())
    outputs = tuple(TensorSpec(name, "float32", ("n", 3)) for name in ("s", "m"))
    signature = Signature(inputs, outputs, ({"first": "p", "second": "q"},), {"k": "k"}, {"sum": "s", "rest": ("m",)})
    write_signature(model, signature)
    module = build(model).native
    p, q, k = torch.randn(3, 2, 3)
    result = module({"first": p, "second": q}, k=k)
    torch.testing.assert_close(result["sum"], p + q)
    torch.testing.assert_close(result["rest"][0], p * k)


def test_an_operator_without_a_counterpart_is_named_with_its_node() -> None:
    nodes = [helper.make_node("Tokenizer", ["x"], ["y"], name="clean.text", domain="com.example")]
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.STRING, (2,))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.STRING, (2,))],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.example", 1)]
    model = ir.from_proto(helper.make_model(proto, opset_imports=opsets, ir_version=10))
    with pytest.raises(UnsupportedOpError, match=r"Tokenizer.*clean\.text") as caught:
        build(model)
    assert (caught.value.op_type, caught.value.node) == ("Tokenizer", "clean.text")
