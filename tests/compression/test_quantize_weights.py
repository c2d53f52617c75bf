"""`Quantize("int4")` and `weight_only=True`: weights by blocks, activations in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import modelport as mp
from modelport.backends.onnx.blocks import fuse_blocks
from modelport.backends.onnx.program import without_weights
from modelport.compression.quantize.rounding import compensated, nearest
from modelport.core.errors import DataError, StepError
from modelport.core.model import Model
from modelport.verbs.subject import subject

pytestmark = pytest.mark.xdist_group("compress")

TOKENS = np.random.default_rng(1).integers(0, 200, (24, 12))
IMAGES = np.random.default_rng(0).standard_normal((4, 32, 6, 6)).astype("float32")


def _language_model(width: int = 64) -> Any:
    """A table that is the head too, a position table, and two layers between them."""
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(200, width), nn.Embedding(12, width)
            self.up, self.down, self.norm = nn.Linear(width, 96), nn.Linear(96, width), nn.LayerNorm(width)
            self.head = nn.Linear(width, 200, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.tokens(ids) + self.places(torch.arange(12))
            return self.head(self.norm(x + self.down(torch.relu(self.up(x)))))

    torch.manual_seed(0)
    return Tied().eval()


@pytest.fixture(scope="module")
def net() -> Model:
    import torch

    return subject(_language_model(), example=torch.from_numpy(TOKENS[:4]))


def _snr(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def _packed(model: Model, dtype: ir.DataType) -> set[str]:
    return {tensor.name for tensor in model.native.graph.initializer if tensor.data_type == dtype}


@pytest.mark.parametrize(("step", "snr", "share"), [
    (mp.Quantize("int4"), 17, 0.16), (mp.Quantize("int8", weight_only=True), 40, 0.29),
])  # fmt: skip
def test_the_same_recipe_has_the_same_result_in_every_framework(
    net: Model, step: mp.Quantize, snr: float, share: float
) -> None:
    expected = net(TOKENS)
    found = {}
    for backend in ("torch", "keras", "onnx"):
        start = mp.transfer(net, to=backend)
        before = {name: array.copy() for name, array in start.parameters().items()}
        small = mp.compress(start, step)
        assert small.backend == backend
        found[backend] = small(TOKENS)
        assert _snr(expected, found[backend]) > snr
        assert small.report.after.bytes < share * small.report.before.bytes
        after = start.parameters()
        assert all(np.array_equal(after[name], array) for name, array in before.items())
        if backend != "onnx":
            assert any("multiplies in float32" in note.message for note in small.report.notes)
    np.testing.assert_allclose(found["torch"], found["keras"], rtol=0, atol=1e-4 * np.ptp(expected))
    # ONNX Runtime's products by blocks round activations to 8 bits.
    np.testing.assert_allclose(found["onnx"], found["torch"], rtol=0, atol=np.ptp(expected) / 255)


def test_a_tied_weight_is_stored_once_and_read_by_blocks(net: Model) -> None:
    small = mp.compress(mp.transfer(net, to="onnx"), mp.Quantize("int4"))
    sizes = [tuple(tensor.dims) for tensor in small.native.graph.initializer if tensor.data_type == ir.DataType.UINT4]
    assert sorted(size for size in sizes if 2 in (len(size),) and 64 in size and 200 in size) == [(200, 64)]
    program = without_weights(small.native)
    fuse_blocks(program, small.native)
    operators = [node.op_type for node in program.graph.node]
    assert "GatherBlockQuantized" in operators
    assert "MatMulNBits" in operators
    assert not [node for node in program.graph.node if node.op_type == "Gather" and "tokens" in node.name]


@pytest.mark.parametrize("backend", ["torch", "keras", "onnx"])
def test_a_compressed_model_is_saved_and_loaded(net: Model, backend: str, tmp_path: Path) -> None:
    small = mp.compress(mp.transfer(net, to="onnx"), mp.Quantize("int4"))
    small.save(tmp_path / "small.mport")
    loaded = mp.load(tmp_path / "small.mport", backend=backend)
    expected = small(TOKENS)
    np.testing.assert_allclose(loaded(TOKENS), expected, rtol=0, atol=np.ptp(expected) / 255)


@pytest.mark.parametrize("width", [80, 96])
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_the_last_block_may_be_short_and_blocks_may_be_odd_in_number(width: int, precision: Any) -> None:
    """80 is two blocks and a half; of 96 every row of zero points ends within a byte."""
    import torch

    model = _language_model(width)
    step = mp.Quantize(precision, weight_only=True)
    start = mp.transfer(model, to="onnx", example=torch.from_numpy(TOKENS[:4]))
    small = mp.compress(start, step)
    found = small(TOKENS)
    assert _snr(start(TOKENS), found) > (17 if precision == "int4" else 35)
    back = mp.transfer(small, to="torch")
    np.testing.assert_allclose(found, back(TOKENS), rtol=0, atol=np.ptp(found) / 255)


def test_onnx_runtime_opens_the_saved_file(net: Model, tmp_path: Path) -> None:
    import onnxruntime

    small = mp.compress(mp.transfer(net, to="onnx"), mp.Quantize("int4"))
    mp.save(small, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: TOKENS})
    expected = small(TOKENS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=np.ptp(expected) / 255)


def test_what_multiplies_no_blocks_is_named() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(32, 48, 1), nn.ReLU(), nn.Conv2d(48, 8, 3), nn.Flatten(), nn.Linear(128, 5), nn.Linear(5, 3)
    )
    small = mp.compress(model, mp.Quantize("int4", exclude=("4",)), example=torch.from_numpy(IMAGES))
    left = dict(small.report.alone)
    assert "does not take this weight by blocks" in left["2"]
    assert left["4"] == "it is excluded"
    assert "5 rows only" in left["5"]
    assert "0" not in left
    assert _snr(model(torch.from_numpy(IMAGES)).detach().numpy(), small(IMAGES)) > 15


def test_rounding_to_the_nearest_is_at_least_as_near_as_between_extremes() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 80)).astype("float32")
    matrix[3] = 0
    matrix[4] = 1.5
    matrix[5] = 2 + 0.1 * matrix[5]
    for bits in (4, 8):
        error = np.abs(nearest(matrix, 32, bits).numbers() - matrix)
        low, high = np.minimum(matrix.min(1), 0), np.maximum(matrix.max(1), 0)
        step = (high - low) / (2**bits - 1)
        assert (error.max(1) <= 1.5 * step + 1e-3).all()
        assert np.square(error[:3]).mean() <= 1.01 * np.square(step[:3, None]).mean() / 12
        assert not error[3].any()


def test_gptq_has_the_smaller_error_in_the_products() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 64)).astype("float32")
    inputs = rng.standard_normal((500, 12)) @ rng.standard_normal((12, 64)) + 0.1 * rng.standard_normal((500, 64))
    expected = inputs @ matrix.T
    by_size = {}
    for size in (16, 32):
        plain, better = nearest(matrix, size, 4), compensated(matrix, inputs.T @ inputs, size, 4)
        by_size[size] = [_snr(expected, inputs @ each.numbers().T) for each in (plain, better)]
        assert better.steps.max() <= 15
        assert better.scale.dtype == np.float16
    assert all(better > plain + 3 for plain, better in by_size.values())


def test_gptq_keeps_weights_that_no_data_reached() -> None:
    matrix = np.random.default_rng(0).standard_normal((8, 32)).astype("float32")
    hessian = np.eye(32)
    hessian[4, 4] = 0
    found = compensated(matrix, hessian, 32, 4).numbers()
    assert np.abs(found - matrix).max() < 0.3


def test_gptq_is_done_by_name(net: Model) -> None:
    step = mp.Quantize("int4", algorithm="gptq", calibration=TOKENS)
    small = mp.compress(mp.transfer(net, to="onnx"), step)
    plain = mp.compress(mp.transfer(net, to="onnx"), mp.Quantize("int4"))
    assert _snr(net(TOKENS), small(TOKENS)) > 15
    assert not np.array_equal(small(TOKENS), plain(TOKENS))


def test_weights_too_small_for_float16_scales_keep_their_digits() -> None:
    matrix = 1e-8 * np.random.default_rng(0).standard_normal((8, 32)).astype("float32")
    found = nearest(matrix, 32, 4)
    assert found.scale.dtype == np.float32
    assert _snr(matrix, found.numbers()) > 15


@pytest.mark.parametrize(("settings", "told"), [
    ({"precision": "int4", "block_size": 24}, "power of two"),
    ({"precision": "int4", "block_size": 8}, "power of two"),
    ({"precision": "uint8", "weight_only": True}, "weight_only"),
    ({"precision": "int4", "algorithm": "gptq"}, "needs calibration"),
    ({"precision": "int8", "algorithm": "gptq", "calibration": TOKENS}, "weight_only=True"),
    ({"precision": "int4", "calibration": TOKENS}, "without data"),
    ({"precision": "int4", "algorithm": "awq"}, "'rtn', 'gptq'"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(StepError, match=told):
        mp.Quantize(**settings)


def test_bad_data_and_blocks_that_fit_nothing_are_refused(net: Model) -> None:
    with pytest.raises(StepError, match="rows only"):
        mp.compress(net, mp.Quantize("int4", block_size=128))
    with pytest.raises(DataError, match="calibration"):
        mp.compress(net, mp.Quantize("int4", algorithm="gptq", calibration=TOKENS[:0]))
    with pytest.raises(DataError, match="calibration"):
        mp.compress(net, mp.Quantize("int4", algorithm="gptq", calibration=TOKENS[:, :3].astype("float32")))
