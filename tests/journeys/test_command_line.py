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


def test_compress_does_the_steps_in_the_order_in_which_they_are_written(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", image=np.asarray(in_torch.example("cnn", 16)))
    small = tmp_path / "small.onnx"
    cut = ["--prune", "0.5", "--structured", "--exclude", "fc", "--scope", "layer"]
    zero = ["--prune", "2:4", "--exclude", "conv1", "--exclude", "bn1"]
    quantize = ["--quantize", "int8", "--calibration", str(tmp_path / "x.npz"), "--method", "entropy", "--per-tensor"]
    told = {}
    for name, steps in {"cut first": cut + zero, "zero first": zero + cut, "cut, int8": cut + quantize}.items():
        assert main(["compress", str(bundle), str(small), *steps, "--json"]) == 0
        told[name] = _answer(capsys)
    first, second = told["cut first"]["steps"]
    assert told["zero first"]["steps"] == [second, first]
    assert first == "Prune(ratio=0.5, structured=True, scope=layer, exclude=('fc',))"
    assert second == "Prune(n_m=(2, 4), exclude=('conv1', 'bn1'))"
    assert told["cut, int8"]["after"]["bytes"] < 0.5 * told["cut first"]["after"]["bytes"]
    assert mp.load(small).signature == mp.load(bundle).signature


def test_compress_writes_to_another_framework(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "half.keras"
    assert main(["compress", str(bundle), str(written), "--prune", "0.5"]) == 0
    assert "compress: Prune(ratio=0.5) on onnx" in capsys.readouterr().out
    weights = mp.load(written).parameters()
    assert sum(int((weights[name] == 0).sum()) for name in weights if weights[name].ndim > 1) > 1000


def test_compress_takes_classes_for_taylor(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.asarray(in_torch.example("cnn", 40))
    np.savez(tmp_path / "train.npz", image=x, y=np.arange(40) % 10)
    steps = ["--prune", "0.5", "--importance", "taylor", "--data", str(tmp_path / "train.npz")]
    assert main(["compress", str(bundle), str(tmp_path / "half.onnx"), *steps, "--json"]) == 0
    assert _answer(capsys)["agreement"][0]["snr_db"] < 60
    np.savez(tmp_path / "x.npz", image=x)
    steps[-1] = str(tmp_path / "x.npz")
    assert main(["compress", str(bundle), str(tmp_path / "half.onnx"), *steps, "--json"]) == 2
    assert "classes as y" in _answer(capsys)["message"]


@pytest.mark.parametrize(("steps", "told"), [
    ([], "needs a step"),
    (["--structured", "--prune", "0.5"], "--structured stands before every step"),
    (["--prune", "0.5", "--method", "minmax"], "--method is no setting of --prune"),
    (["--prune", "half"], "neither a share, as in 0.5, nor a pattern, as in 2:4"),
    (["--prune", "1.5"], r"inside (0, 1)"),
    (["--quantize", "int3"], "'int8'"),
])  # fmt: skip
def test_a_step_that_makes_no_sense_is_refused_and_nothing_is_written(
    bundle: Path, steps: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", str(bundle), str(tmp_path / "small.onnx"), *steps, "--json"]) == 2
    answer = _answer(capsys)
    assert answer["error"] == "StepError"
    assert told in answer["message"]
    assert not (tmp_path / "small.onnx").exists()


def test_an_interrupted_command_writes_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelport.compression.prune.prune_weights", interrupted)
    assert main(["compress", str(bundle), str(tmp_path / "small.onnx"), "--prune", "0.5"]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert not list(tmp_path.iterdir())


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
