"""The command line, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import modelport as mp
from modelport.cli import main
from tests.nets import in_torch

pytestmark = pytest.mark.xdist_group("journeys")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "net.mport"
    mp.save(in_torch.net("cnn"), path, example=in_torch.example("cnn"))
    return path


def _answer(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_transfer_writes_the_other_framework_s_file(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = bundle.with_suffix(".keras")
    assert main(["transfer", str(bundle), str(written), "--json"]) == 0
    report = _answer(capsys)
    assert report["target"] == "keras"
    assert report["parity"]["ok"]
    assert mp.compare(bundle, written, gradients=False).ok


def test_check_says_how_every_operator_would_be_built(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(bundle), "--to", "torch", "--json"]) == 0
    report = _answer(capsys)
    assert report["ok"]
    assert {row["op_type"] for row in report["rows"]} >= {"Conv", "BatchNormalization", "Dropout"}


def test_compare_says_no_with_its_exit_status(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = in_torch.net("cnn")
    other.fc.bias.data += 1
    mp.save(other, tmp_path / "other.onnx", example=in_torch.example("cnn"))
    assert main(["compare", str(bundle), str(bundle), "--json"]) == 0
    assert _answer(capsys)["ok"]
    assert main(["compare", str(bundle), str(tmp_path / "other.onnx"), "--json"]) == 1
    assert not _answer(capsys)["ok"]


def test_compare_takes_an_example_from_a_file(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.asarray(in_torch.example("cnn", 3)))
    assert main(["compare", str(bundle), str(bundle), "--example", str(tmp_path / "x.npy"), "--json"]) == 0
    assert {row["batch"] for row in _answer(capsys)["rows"]} == {3}


def test_profile_counts_at_the_batch_that_is_asked_for(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(bundle), "--batch", "4", "--runs", "5", "--json"]) == 0
    report = _answer(capsys)
    assert report["inputs"] == {"image": "float32(4, 3, 16, 16)"}
    assert report["macs"] == 4 * 131_584
    assert report["runs"] == 5
    assert main(["profile", str(bundle)]) == 0
    assert "MACs         132 k" in capsys.readouterr().out


def test_inspect_tells_what_a_bundle_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle), "--json"]) == 0
    report = _answer(capsys)
    assert report["format"] == "bundle"
    assert report["safe"]
    assert report["signature"].startswith("(image: float32(batch, 3, 16, 16))")
    assert report["parameters"]["fc.weight"] == "float32(10, 256)"
    assert report["versions"]
    assert report["history"]


def test_inspect_says_that_a_pickle_is_not_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import joblib

    joblib.dump(print, tmp_path / "model.joblib")
    assert main(["inspect", str(tmp_path / "model.joblib"), "--json"]) == 1
    assert "print" in _answer(capsys)["unsafe"]


def test_a_refusal_is_one_message_and_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.xyz").write_bytes(b"?")
    assert main(["inspect", str(tmp_path / "model.xyz")]) == 2
    assert capsys.readouterr().err.startswith("FormatError: ")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A TorchScript file and an example of two inputs of six steps, as the arguments that open it."""
    import torch

    class Masked(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return ids * mask

    folder = tmp_path_factory.mktemp("traced")
    example = {"ids": np.ones((2, 6), "float32"), "mask": np.ones((2, 6), "float32")}
    torch.jit.trace(Masked(), tuple(torch.from_numpy(x) for x in example.values())).save(folder / "net.pt")
    np.savez(folder / "x.npz", **example)
    return [str(folder / "net.pt"), "--trust", "--example", str(folder / "x.npz"), "--json"]


@pytest.mark.parametrize("sizes", [["1=n"], ["ids:1=n", "mask:1=n"], ["1=steps", "mask:1=n", "ids:1=n"], ["-1=n"]])
def test_an_axis_may_be_named_that_has_any_size(
    traced: list[str], sizes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [f"--dynamic={size}" for size in sizes]
    path = tmp_path / "net.onnx"
    assert main(["check", *traced, "--to", "onnx", *named]) == 0
    assert main(["transfer", traced[0], str(path), *traced[1:], *named]) == 0
    capsys.readouterr()
    assert main(["inspect", str(path), "--json"]) == 0
    assert "float32(batch, n)" in _answer(capsys)["signature"]


@pytest.mark.parametrize("size", ["sequence", "x=sequence", "ids:=sequence", "1="])
def test_what_names_no_axis_is_refused(traced: list[str], size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *traced, "--to", "onnx", "--dynamic", size]) == 2
    assert (
        _answer(capsys)["message"]
        == f"--dynamic {size}: not an axis and its name, as in 1=sequence or input:1=sequence"
    )
