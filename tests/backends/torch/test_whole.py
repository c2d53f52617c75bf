"""What torch cannot trace is one node on the way home."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from modelport.backends.torch import BACKEND
from modelport.backends.torch.build import build
from modelport.core.errors import UnsupportedModelError
from modelport.core.signature import Signature
from modelport.graph.signature import read_signature
from modelport.graph.weights import roles
from tests.backends.torch.test_control import MODEL, _inputs
from tests.graph.running import run


def _home(native: Any, inputs: dict[str, np.ndarray], signature: Signature) -> ir.Model:
    return BACKEND.export(native, inputs, signature).graph


def _same(model: ir.Model, home: ir.Model, inputs: dict[str, np.ndarray]) -> None:
    for expected, found in zip(run(model, inputs), run(home, inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def built() -> tuple[Any, ir.Model, Signature]:
    model = ir.from_onnx_text(MODEL)
    return build(model).native, model, read_signature(model)


@pytest.fixture(scope="module")
def home(built: tuple[Any, ir.Model, Signature]) -> ir.Model:
    native, _, signature = built
    return _home(native, _inputs(), signature)


@pytest.mark.parametrize(("deep", "trips", "time"), [(True, 4, 3), (False, 1, 5), (True, 0, 1)])
def test_branches_and_loops_come_home_for_every_size(
    built: tuple[Any, ir.Model, Signature], home: ir.Model, deep: bool, trips: int, time: int
) -> None:
    _same(built[1], home, _inputs(deep, trips, time))


def test_they_come_home_as_the_nodes_they_were(home: ir.Model) -> None:
    assert [node.op_type for node in home.graph] == ["If", "Loop", "Scan"]
    assert home.graph.opset_imports == {"": 21}
    assert roles(home) == {"w": "parameter", "b": "parameter"}


def test_a_size_that_no_input_has_is_called_after_the_output(home: ir.Model) -> None:
    specs = {spec.name: spec.shape for spec in read_signature(home).outputs}
    assert specs == {"out": ("batch", 3), "all": ("all_dim0", "batch", 3), "last": (3,), "sums": ("time", 3)}


def test_what_was_trained_inside_a_larger_module_goes_home(built: tuple[Any, ir.Model, Signature]) -> None:
    class Outer(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.head = torch.nn.Linear(3, 2)

        def forward(self, x: Any, trips: Any, deep: Any, steps: Any) -> Any:
            out, stacked, _, _ = self.inner(x, trips, deep, steps)
            return self.head(out), stacked.sum(0)

    net = Outer(pickle.loads(pickle.dumps(built[0])))
    with torch.no_grad():
        net.inner.w.mul_(1.5)
    net.inner.b.requires_grad_(False)
    example = tuple(torch.as_tensor(value) for value in _inputs().values())
    signature = BACKEND.signature(net, example)
    home = _home(net, BACKEND.flatten(net, example, signature), signature)
    assert roles(home) == {
        "inner.w": "parameter",
        "inner.b": "frozen",
        "head.weight": "parameter",
        "head.bias": "parameter",
    }
    expected = BACKEND.run(net, _inputs(), signature)
    for value, found in zip(expected.values(), run(home, _inputs()), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_a_model_made_half_as_precise_comes_home_so(built: tuple[Any, ir.Model, Signature]) -> None:
    native = pickle.loads(pickle.dumps(built[0])).bfloat16()
    inputs = _inputs()
    example = tuple(torch.as_tensor(v) for v in inputs.values())
    example = tuple(value.bfloat16() if value.is_floating_point() else value for value in example)
    signature = BACKEND.signature(native, example)
    home = _home(native, BACKEND.flatten(native, example, signature), signature)
    assert {value.dtype for value in home.graph.outputs} == {ir.DataType.BFLOAT16}
    assert {value.dtype for name, value in home.graph.initializers.items() if name in ("w", "b")} == {
        ir.DataType.BFLOAT16
    }


def test_graphs_inside_graphs_and_sequences_inside_them_come_home() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (float[batch, 3] x, int64 trips, bool deep) => (float[batch, 3] out, float[n] sums)
      <float[3, 3] w = {0.5, -0.2, 0.1, 0.3, 0.4, -0.6, 0.2, 0.1, 0.7}> {
      rows = Shape <start = 0, end = 1> (x)
      out, sums = Loop (trips, , x) <body = l (int64 i, bool c, float[batch, 3] s)
          => (bool c_out, float[batch, 3] more, float t) {
        c_out = Identity (c)
        half = Constant <value: tensor = float[1] {0.5}> ()
        big = Expand (half, rows)
        t = ReduceSum <keepdims = 0> (big)
        both = SequenceConstruct (s, x)
        two = Constant <value: tensor = int64 {2}> ()
        which = Mod (i, two)
        one = SequenceAt (both, which)
        more = If (deep) <then_branch = t1 () => (float[batch, 3] p) { p = MatMul (one, w) },
                          else_branch = e1 () => (float[batch, 3] q) { q = Sin (one) }>
      }>
    }""")
    x = np.random.default_rng(0).standard_normal((2, 3)).astype("float32")
    home = _home(build(model).native, {"x": x, "trips": np.array(3), "deep": np.array(True)}, read_signature(model))
    for trips, deep in ((3, True), (4, False)):
        _same(model, home, {"x": np.repeat(x, 2, 0), "trips": np.array(trips), "deep": np.array(deep)})


STRINGS = """<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]>
g (string[n] words, float[n] x) => (string[n] out, float[n] kept, int64[n] ids) <float[1] scale = {2.0}> {
  tail = Constant <value_strings: strings = ["!"]> ()
  out = StringConcat (words, tail)
  same = Equal (words, out)
  zero = Constant <value_float: float = 0.0> ()
  y = Mul (x, scale)
  kept = Where (same, zero, y)
  ids = ai.onnx.ml.LabelEncoder <keys_strings = ["a", "b"], values_int64s = [4, 5], default_int64 = 9> (words)
}"""


def test_strings_come_home() -> None:
    model = ir.from_onnx_text(STRINGS)
    inputs = {"words": np.array(["a", "c"], object), "x": np.array([1, 2], "float32")}
    home = _home(build(model).native, inputs, read_signature(model))
    assert [(spec.name, spec.dtype, spec.shape) for spec in read_signature(home).outputs] == [
        ("out", "str", ("n",)),
        ("kept", "float32", ("n",)),
        ("ids", "int64", ("n",)),
    ]
    out, kept, ids = run(home, {"words": np.array(["b", "a", "x"], object), "x": np.array([1, 2, 3], "float32")})
    assert list(out) == ["b!", "a!", "x!"]
    assert kept.tolist() == [2, 4, 6]
    assert ids.tolist() == [5, 4, 9]


def test_a_sequence_that_goes_in_is_refused_with_a_way_out() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (seq(float[n]) given) => (float[m] y) { y = ConcatFromSequence <axis = 0> (given) }""")
    inputs: Any = {"given": [np.ones(2, "float32"), np.ones(1, "float32")]}
    with pytest.raises(UnsupportedModelError, match=r"input 'given' is of the type sequence\(float32\)"):
        _home(build(model).native, inputs, read_signature(model))


def test_a_branch_that_a_user_wrote_for_torch_crosses() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return torch.cond(x.sum() > 0, lambda x: torch.relu(self.a(x)), lambda x: torch.sin(self.b(x)), (x,))

    net, x = Net(), torch.ones(2, 3)
    signature = BACKEND.signature(net, x)
    home = _home(net, {"x": x.numpy()}, signature)
    assert set(roles(home)) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    for given in (x, -x):
        (found,) = run(home, {"x": given.numpy()})
        np.testing.assert_allclose(found, net(given).detach().numpy(), rtol=1e-5, atol=1e-6)
