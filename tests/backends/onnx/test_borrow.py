"""A large model that is proved runs on its source's weights: none is copied, and none is kept."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import modelport as mp
from modelport.backends.onnx import borrow
from modelport.backends.onnx.held import held
from modelport.core import registry
from modelport.core.errors import UnsupportedModelError
from tests.nets import in_onnx

ONNX = registry.backend("onnx")


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(borrow, "_LARGE", 1)
    monkeypatch.setattr(borrow, "_LENT", 1)


def built(graph: ir.Model) -> onnx.ModelProto:
    native = ONNX.build(graph).native
    assert isinstance(native, onnx.ModelProto)
    return native


def lent(native: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of what the open session is fed besides the inputs."""
    loan = held(native).loan
    return {} if loan is None else {name: tuple(value.shape()) for name, value in loan[1].items()}


def call(native: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return ONNX.run(native, {"x": x}, ONNX.signature(native))["y"]


def with_weight(graph: ir.Model, name: str, array: np.ndarray) -> ir.Model:
    graph.graph.initializers[name].const_value = ir.Tensor(array, name=name)
    return graph


def test_a_model_computes_the_same_on_borrowed_weights() -> None:
    graph = ir.from_proto(in_onnx.net())
    native, x = built(graph), in_onnx.example()
    with borrow.borrowing(native, graph):
        assert lent(native) == {"fc.weight": (64, 32), "fc.bias": (64,), "shape": (3,)}
        found = call(native, x)
        assert held(native).session is None
    assert lent(native) == {}
    np.testing.assert_allclose(found, call(native, x), rtol=1e-5, atol=1e-5)


def test_nothing_of_the_graph_is_held_afterwards() -> None:
    array = np.ones((64, 32), "float32")
    graph = with_weight(ir.from_proto(in_onnx.net()), "fc.weight", array)
    native, kept = built(graph), weakref.ref(array)
    with borrow.borrowing(native, graph):
        call(native, in_onnx.example())
    del graph, array
    gc.collect()
    assert kept() is None
    assert held(native).loan is None


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("perm", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)])
def test_a_weight_whose_axes_are_moved_is_lent_as_it_lies(perm: tuple[int, ...], dtype: type) -> None:
    block = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(dtype)
    array = block.transpose(perm)
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=1), helper.make_node("Mul", ["x", "wide"], ["y"])]
    net = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, array.shape)],
        [helper.make_tensor("w", int(ir.DataType.from_numpy(array.dtype)), array.shape, array.tobytes(), raw=True)],
    )
    graph = ir.from_proto(helper.make_model(net, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    native = built(with_weight(graph, "w", array))
    with borrow.borrowing(native, graph):
        assert lent(native) == ({"w": array.shape} if perm == (0, 1, 2) else {"w.moved": (2, 3, 4)})
        found = call(native, np.ones(array.shape, "float32"))
    np.testing.assert_array_equal(found, array.astype("float32"))


def test_a_weight_that_is_not_the_models_is_not_lent() -> None:
    graph = ir.from_proto(in_onnx.net())
    native, x = built(graph), in_onnx.example()
    with_weight(graph, "fc.weight", np.zeros((64, 32), "float32"))
    with borrow.borrowing(native, graph):
        assert "fc.weight" not in lent(native)
        found = call(native, x)
    np.testing.assert_allclose(found, call(native, x), rtol=1e-5, atol=1e-5)


def test_a_weight_that_another_domains_operator_reads_is_not_lent() -> None:
    net = in_onnx.net()
    net.graph.node[0].CopyFrom(
        helper.make_node("FusedGemm", ["x", "fc.weight", "fc.bias"], ["hidden"], transB=1, domain="com.microsoft")
    )
    net.graph.node[0].attribute.append(helper.make_attribute("activation", "Relu"))
    net.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph, x = ir.from_proto(net), in_onnx.example()
    with borrow.borrowing(net, graph):
        assert lent(net) == {"shape": (3,)}
        np.testing.assert_allclose(call(net, x), call(in_onnx.net(), x), rtol=1e-5, atol=1e-5)


def test_a_session_that_is_open_already_is_used() -> None:
    graph = ir.from_proto(in_onnx.net())
    native = built(graph)
    call(native, in_onnx.example())
    with borrow.borrowing(native, graph):
        assert held(native).loan is None


def test_weights_of_a_bundle_are_lent_from_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[set[str]] = []
    opened = borrow._open

    def noted(native: onnx.ModelProto, weights: dict[str, np.ndarray]) -> Any:
        names.append(set(weights))
        return opened(native, weights)

    monkeypatch.setattr(borrow, "_open", noted)
    mp.save(in_onnx.net(), tmp_path / "net.mport")
    loaded = mp.load(tmp_path / "net.mport")
    moved = mp.transfer(loaded, to="onnx")
    assert moved.report.parity.ok
    # The model and the program that was saved; the model that was loaded and where it went.
    assert len(names) == 4
    assert all({"fc.weight", "fc.bias"} <= lent for lent in names)
    assert (held(loaded.native).session, held(moved.native).session) == (None, None)


def test_a_program_that_onnx_runtime_refuses_leaves_no_loan() -> None:
    net = in_onnx.net()
    graph = ir.from_proto(net)
    net.graph.node[0].attribute[0].i = 0
    with pytest.raises(UnsupportedModelError), borrow.borrowing(net, graph):
        pass
    assert held(net).loan is None


MEASURED = """
from pathlib import Path
import numpy as np
import onnx_ir as ir
from modelport.core import registry
from modelport.graph.signature import read_signature

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

arrays = [np.full((4096, 4096), 1 / 4096, "float32") for _ in range(5)]
weights = [ir.Value(name=f"w{i}", const_value=ir.Tensor(array)) for i, array in enumerate(arrays)]
kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", 4096])
x = ir.Value(name="x", type=kind, shape=shape)
nodes = []
for weight in weights:
    nodes.append(ir.node("MatMul", [nodes[-1].outputs[0] if nodes else x, weight]))
y = nodes[-1].outputs[0]
y.name, y.type, y.shape = "y", kind, shape
graph = ir.Model(ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 21}), ir_version=10)
onnx = registry.backend("onnx")
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
native = onnx.build(graph).native
with onnx.borrowing(native, graph):
    outputs = onnx.run(native, {"x": np.ones((2, 4096), "float32")}, read_signature(graph))
assert np.allclose(outputs["y"], 1)
print((status("VmHWM") - before) / sum(array.nbytes for array in arrays))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the greatest resident memory since a moment")
def test_a_large_model_is_built_and_run_with_its_weights_in_memory_once_beside_the_graph() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The ModelProto is one, and a fifth of it is on the way; ONNX Runtime's own copies would make it three.
    assert float(done.stdout) < 1.6
