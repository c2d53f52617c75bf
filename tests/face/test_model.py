"""The handle: NumPy in, NumPy out, whatever is behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import modelport as mp


def _handle() -> mp.Model:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    two (float[batch, 3] x, float[batch, 3] y) => (float[batch, 3] total, float[batch] norm) {
      total = Add (x, y)
      axis = Constant <value_ints: ints = [1]> ()
      norm = ReduceL2 <keepdims = 0> (total, axis)
    }""")
    return mp.transfer(ir.to_proto(model), to="onnx")


@pytest.fixture(scope="module")
def handle() -> mp.Model:
    return _handle()


def _inputs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    return rng.standard_normal((rows, 3)).astype("float32"), rng.standard_normal((rows, 3)).astype("float32")


def test_inputs_come_in_order_or_by_name(handle: mp.Model) -> None:
    x, y = _inputs(4)
    total, norm = handle((x, y))
    np.testing.assert_allclose(total, x + y, rtol=1e-6)
    np.testing.assert_allclose(norm, np.linalg.norm(x + y, axis=1), rtol=1e-6)
    by_name = handle({"y": y, "x": x})
    assert all(np.array_equal(a, b) for a, b in zip(by_name, (total, norm), strict=True))


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"batch_size": 100}, {"batch_size": 2, "n_jobs": 2}])
def test_predict_in_batches_equals_one_call(handle: mp.Model, options: dict[str, Any]) -> None:
    inputs = _inputs(7)
    for found, expected in zip(handle.predict(inputs, **options), handle(inputs), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_predict_shows_its_progress_where_it_is_asked_to(handle: mp.Model, capsys: pytest.CaptureFixture[str]) -> None:
    handle.predict(_inputs(4), batch_size=2)
    assert capsys.readouterr().err == ""
    handle.predict(_inputs(4), batch_size=2, progress=True)
    assert "2/2" in capsys.readouterr().err


def test_a_handle_says_what_it_is(handle: mp.Model) -> None:
    assert repr(handle).startswith("<modelport.Model on onnx: (x: float32(batch, 3), y: float32(batch, 3)) -> ")


def test_a_transfer_is_in_the_history_with_its_parity(handle: mp.Model) -> None:
    (event,) = handle.history
    assert event["verb"] == "transfer"
    assert event["parity"]["ok"]
    assert {row["batch"] for row in event["parity"]["rows"]} == {2, 3}
    assert mp.transfer(handle, to="torch").history[0] == event
