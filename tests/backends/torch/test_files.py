"""torch's files are read without running what is in them, and what could run code is named."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modelport.backends.torch import BACKEND
from modelport.core.backend import FileFormat
from modelport.core.errors import FormatError, IntegrityError, UntrustedFileError

PT2, STATE, SCRIPT = BACKEND.formats


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.position = nn.Embedding(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        if x.shape[0] == 5:
            x = x * 1
        hidden = self.lstm(x + self.position(torch.arange(x.shape[1])))[0]
        return {"logits": self.fc(hidden[:, -1]), "state": (hidden, None)}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    net, x = Net().eval(), torch.randn(2, 6, 3)
    signature = BACKEND.signature(net, x)
    assert PT2.write is not None
    PT2.write(net, tmp_path / "net.pt2", signature, BACKEND.flatten(net, x, signature))
    return tmp_path / "net.pt2"


def rewritten(path: Path, member: str, content: bytes) -> Path:
    """A copy of an archive with one member replaced or added."""
    copy = path.with_name(f"changed{path.suffix}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        top = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            if name != f"{top}/{member}":
                target.writestr(name, source.read(name))
        target.writestr(f"{top}/{member}", content)
    return copy


def graph_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("models/model.json"))
        return json.loads(archive.read(name))


def test_a_written_program_reads_back_with_its_signature(program: Path) -> None:
    assert PT2.detect(program)
    assert PT2.unsafe(program) == ""
    assert PT2.open is not None
    opened = PT2.open(program)
    assert opened.signature is not None
    assert str(opened.signature.inputs[0]) == "x: float32(batch, 6, 3)"
    assert opened.signature.returns == {"logits": "logits", "state": ("state_0", None)}
    result = BACKEND.run(opened.native, {"x": np.ones((7, 6, 3), "float32")}, opened.signature)
    assert result["logits"].shape == (7, 2)
    assert b"test_files.py" not in program.read_bytes()


def test_a_program_needs_an_example(tmp_path: Path) -> None:
    assert PT2.write is not None
    with pytest.raises(FormatError, match="example="):
        PT2.write(nn.Linear(2, 2), tmp_path / "net.pt2", None, None)


def test_a_damaged_program_is_an_integrity_error(program: Path) -> None:
    program.write_bytes(program.read_bytes()[:-200])
    assert PT2.open is not None
    with pytest.raises(IntegrityError, match=r"net\.pt2"):
        PT2.open(program)


def test_a_pickle_among_a_programs_inputs_is_named(program: Path, tmp_path: Path) -> None:
    torch.save((Evil(),), tmp_path / "evil.pt")
    changed = rewritten(program, "data/sample_inputs/model.pt", (tmp_path / "evil.pt").read_bytes())
    assert "posix.system" in PT2.unsafe(changed)


@pytest.mark.parametrize(
    "member", ["data/aotinductor/model/a.so", "data/constants/custom_obj_0", "data/weights/model.pt"]
)
def test_parts_of_a_program_that_are_no_data_are_named(program: Path, member: str) -> None:
    assert member in PT2.unsafe(rewritten(program, member, b"x"))


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.ops.load_library", "_operator.methodcaller", "torch.ops.aten.from_file.default"],
)
def test_a_program_that_calls_anything_but_operators_is_named(program: Path, target: str) -> None:
    graph = graph_of(program)
    graph["graph_module"]["graph"]["nodes"][0]["target"] = target
    assert target in PT2.unsafe(rewritten(program, "models/model.json", json.dumps(graph).encode()))


@pytest.mark.parametrize(
    "size", ["__import__('os').system('true')", "S('1')", "Symbol('s0').__class__", "(lambda: 1)()", "Symbol('a b')"]
)
def test_a_program_whose_sizes_are_code_is_named(program: Path, size: str) -> None:
    graph = graph_of(program)
    values = graph["graph_module"]["graph"]["tensor_values"]
    values["x"]["sizes"][0]["as_expr"]["expr_str"] = size
    assert "a size is computed" in PT2.unsafe(rewritten(program, "models/model.json", json.dumps(graph).encode()))


def test_a_program_whose_checks_are_code_is_named(program: Path) -> None:
    graph = graph_of(program)
    graph["guards_code"] = ["L['x'].size()[0] != 5", "L['x'].__class__.mro()"]
    reason = PT2.unsafe(rewritten(program, "models/model.json", json.dumps(graph).encode()))
    assert "a check runs" in reason
    assert "mro" in reason


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_reads_back(tmp_path: Path, zipped: bool) -> None:
    net, path = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), tmp_path / "net.pt"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert STATE.detect(path)
    assert STATE.unsafe(path) == ""
    assert STATE.read_weights is not None
    found = STATE.read_weights(path)
    assert set(found) == set(BACKEND.parameters(net))
    np.testing.assert_array_equal(found["0.weight"], net[0].weight.detach())


def test_a_written_state_dict_is_torchs_own(tmp_path: Path) -> None:
    net, path = nn.Linear(3, 2), tmp_path / "net.pth"
    assert STATE.write is not None
    STATE.write(net, path, None, None)
    assert set(torch.load(path, weights_only=True)) == {"weight", "bias"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("content", "name"), [(nn.Linear(2, 2), "a pickled module"), ({"a": Evil()}, "posix.system")])
def test_a_pickle_of_more_than_tensors_is_refused_whoever_asks(
    tmp_path: Path, content: Any, name: str, zipped: bool
) -> None:
    path = tmp_path / "net.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert name in STATE.unsafe(path)
    assert STATE.read_weights is not None
    with pytest.raises(UntrustedFileError, match=name):
        STATE.read_weights(path)


def test_a_hidden_name_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"a": Evil()}, path, pickle_protocol=4)
    assert "system" in STATE.unsafe(path)


def test_a_checkpoint_is_refused_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({"epoch": 3, "model": nn.Linear(2, 2).state_dict()}, path)
    assert STATE.read_weights is not None
    with pytest.raises(FormatError, match="'epoch', 'model'"):
        STATE.read_weights(path)


def test_torchscript_is_unsafe_and_reads_back(tmp_path: Path) -> None:
    net, path = torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)), tmp_path / "net.pt"
    assert SCRIPT.write is not None
    assert SCRIPT.open is not None
    SCRIPT.write(net, path, None, None)
    assert [file_format.detect(path) for file_format in BACKEND.formats] == [False, False, True]
    assert "code/" in SCRIPT.unsafe(path)
    assert torch.equal(SCRIPT.open(path).native(torch.ones(1, 3)), net(torch.ones(1, 3)))
    with pytest.raises(FormatError, match="no TorchScript"):
        SCRIPT.write(nn.Linear(2, 2), path, None, None)


@pytest.mark.parametrize("file_format", BACKEND.formats, ids=lambda f: f.name)
def test_other_files_are_not_taken_for_torchs(tmp_path: Path, file_format: FileFormat) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a/b.txt", "hello")
    assert not file_format.detect(tmp_path / "text.pt")
    assert not file_format.detect(tmp_path / "zip.pt")
    assert not file_format.detect(tmp_path / "missing.pt")
