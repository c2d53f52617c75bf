"""ModelProtos in ONNX Runtime: sessions, dtypes, opsets, and what it says when it cannot."""

from __future__ import annotations

import gc
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import modelport as mp
from modelport.backends.onnx import held, run
from modelport.backends.onnx.opset import newest_opset
from modelport.core import registry
from tests.nets import in_onnx

ONNX = registry.backend("onnx")


def one_node(node: onnx.NodeProto, dtype: int, output: int, opset: int = 21) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in (("x", dtype), ("y", output))]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def call(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ONNX.run(model, {"x": x}, ONNX.signature(model))["y"]


def test_an_onnx_ir_model_runs_as_a_model_proto_does() -> None:
    graph = ir.from_proto(in_onnx.net())
    report = mp.compare(in_onnx.net(), graph, in_onnx.example(), tolerance=0)
    assert report.ok, report


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
@pytest.mark.parametrize("size", [0, 1, 5])
def test_dtypes_that_numpy_lacks_go_in_and_out(dtype: str, size: int) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype))
    code = int(ir.DataType.from_numpy(kind))
    x = (np.arange(size) % 7).astype(kind)
    into = one_node(helper.make_node("Cast", ["x"], ["y"], to=code), TensorProto.FLOAT, code)
    out = one_node(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), code, TensorProto.FLOAT)
    found = call(into, x.astype("float32"))
    assert found.dtype == kind
    np.testing.assert_array_equal(found.astype("float32"), x.astype("float32"))
    np.testing.assert_array_equal(call(out, x), x.astype("float32"))


def test_weights_of_dtypes_that_numpy_lacks_are_shared_with_the_session() -> None:
    weight = np.arange(2048).astype(ml_dtypes.bfloat16)
    net = one_node(helper.make_node("Cast", ["w"], ["y"], to=1), TensorProto.FLOAT, TensorProto.FLOAT)
    net.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    np.testing.assert_array_equal(call(net, np.zeros(1, "float32")), weight.astype("float32"))


def test_a_session_has_its_own_weights_and_keeps_none_of_ours_alive() -> None:
    array = np.ones(2048, "float32")
    net = one_node(helper.make_node("Add", ["x", "w"], ["y"]), TensorProto.FLOAT, TensorProto.FLOAT)
    net.graph.initializer.append(onnx.numpy_helper.from_array(array, "w"))
    before = call(net, np.zeros(1, "float32"))
    net.graph.initializer[0].raw_data = (2 * array).tobytes()
    np.testing.assert_array_equal(call(net, np.zeros(1, "float32")), before)


def test_strings_go_in_and_out() -> None:
    net = one_node(helper.make_node("Identity", ["x"], ["y"]), TensorProto.STRING, TensorProto.STRING)
    assert ONNX.signature(net).inputs[0].dtype == "str"
    assert call(net, np.array(["a", "ß"], object)).tolist() == ["a", "ß"]


def test_an_output_type_that_the_file_leaves_open_is_inferred() -> None:
    net = in_onnx.net()
    net.graph.output[0].ClearField("type")
    assert str(ONNX.signature(net).outputs[0]) == "y: float32(y_dim0, 8, 8)"


def test_an_operator_without_a_kernel_is_named_with_its_node() -> None:
    node = helper.make_node("ImageDecoder", ["x"], ["y"], name="decode")
    net = one_node(node, TensorProto.UINT8, TensorProto.UINT8)
    with pytest.raises(mp.UnsupportedOpError, match="ImageDecoder") as caught:
        call(net, np.zeros(3, "uint8"))
    assert (caught.value.op_type, caught.value.node) == ("ImageDecoder", "decode")


def test_an_operator_that_nobody_knows_is_named() -> None:
    net = one_node(helper.make_node("Frobnicate", ["x"], ["y"], name="f"), TensorProto.FLOAT, TensorProto.FLOAT)
    with pytest.raises(mp.UnsupportedOpError, match="Frobnicate") as caught:
        call(net, np.zeros(3, "float32"))
    assert caught.value.op_type == "Frobnicate"


def test_an_opset_newer_than_the_runtime_runs_where_its_operators_go_back() -> None:
    newest = onnx.defs.onnx_opset_version()
    assert newest > newest_opset() - 1
    unchanged = one_node(helper.make_node("Abs", ["x"], ["y"]), TensorProto.FLOAT, TensorProto.FLOAT, newest)
    changed = one_node(helper.make_node("Cast", ["x"], ["y"], to=7), TensorProto.FLOAT, TensorProto.INT64, newest)
    np.testing.assert_array_equal(call(unchanged, np.array([-1.5], "float32")), [1.5])
    np.testing.assert_array_equal(call(changed, np.array([-1.5], "float32")), [-1])
    assert unchanged.opset_import[0].version == newest


def test_inputs_that_the_program_cannot_take_are_a_signature_error() -> None:
    net = in_onnx.net()
    net.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.array([3, 8, 8]), "shape"))
    net.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(mp.ModelPortError, match="cannot run on these inputs"):
        ONNX.run(net, {"x": in_onnx.example()}, ONNX.signature(net))


def test_a_session_is_opened_once_and_let_go_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = run._open
    monkeypatch.setattr(run, "_open", lambda native, device: opened.append(device) or original(native, device))
    net = in_onnx.net()
    for _ in range(3):
        ONNX.run(net, {"x": in_onnx.example()}, ONNX.signature(net))
    assert opened == ["cpu"]
    key = id(net)
    assert key in held._HELD
    del net
    gc.collect()
    held.held(object())
    assert key not in held._HELD


def test_assigned_weights_are_seen_by_the_next_run() -> None:
    net = in_onnx.net()
    before = ONNX.run(net, {"x": in_onnx.example()}, ONNX.signature(net))["y"]
    ONNX.assign(net, {name: 2 * array for name, array in ONNX.parameters(net).items()})
    after = ONNX.run(net, {"x": in_onnx.example()}, ONNX.signature(net))["y"]
    np.testing.assert_allclose(after, 2 * before, rtol=1e-6)


@pytest.mark.parametrize("kind", ["proto", "graph", "mapped"])
def test_weights_come_and_go_by_name(kind: str, tmp_path: Path) -> None:
    native = in_onnx.net()
    if kind == "graph":
        native = ir.from_proto(native)
    elif kind == "mapped":
        mp.save(native, tmp_path / "net.mport")
        native = mp.load(tmp_path / "net.mport").native
    weights = {name: array + 1 for name, array in ONNX.parameters(native).items()}
    assert list(weights) == ["fc.weight", "fc.bias", "spare.weight"]
    ONNX.assign(native, weights)
    for name, array in ONNX.parameters(native).items():
        np.testing.assert_array_equal(array, weights[name])
    with pytest.raises(mp.DataError, match=r"'fc\.bias' has shape \(3,\), the model has \(64,\)"):
        ONNX.assign(native, {**weights, "fc.bias": np.zeros(3, "float32")})


def test_tied_weights_have_each_of_their_names_and_one_value() -> None:
    graph = ir.from_proto(in_onnx.net())
    graph.metadata_props["modelport.aliases"] = '{"head.bias": "fc.bias"}'
    weights = ONNX.parameters(graph)
    assert weights["head.bias"] is weights["fc.bias"]
    ONNX.assign(graph, weights)
    with pytest.raises(mp.DataError, match="one weight and have two values"):
        ONNX.assign(graph, {**weights, "head.bias": weights["fc.bias"] + 1})


def test_a_device_that_is_not_here_is_refused() -> None:
    net = in_onnx.net()
    assert ONNX.place(net, "cpu") is net
    with pytest.raises(mp.DataError, match="there is no device 'tpu'"):
        ONNX.place(net, "tpu")


def test_support_is_what_the_runtime_says() -> None:
    for op_type in ("Conv", "Gelu", "LayerNormalization", "Dropout", "LSTM", "If", "Constant", "HardSwish"):
        assert ONNX.support(op_type) == "native", op_type
    assert ONNX.support("Frobnicate") == "unsupported"
    assert ONNX.support("Linear", "modelport") == "unsupported"
    assert ONNX.support("FusedMatMul", "com.microsoft") == "native"


def test_batches_run_at_the_same_time() -> None:
    model = mp.transfer(in_onnx.net(), device="cpu", check=False)
    x = in_onnx.example(101)
    np.testing.assert_allclose(model.predict(x, batch_size=8, n_jobs=4), model(x), rtol=1e-6)


def test_a_model_without_its_weights_file_says_what_to_pass() -> None:
    net = in_onnx.net()
    tensor = net.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(mp.DataError, match=r"pass the path of the \.onnx file"):
        ONNX.run(net, {"x": in_onnx.example()}, ONNX.signature(net))
