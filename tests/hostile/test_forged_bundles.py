"""Kind: forgery. A manifest whose digests are right and whose content is not is refused by what reads it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import modelport as mp
from tests.nets import in_onnx

BLANK = "0" * 64


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    mp.save(in_onnx.net(), tmp_path / "net.mport")
    return tmp_path / "net.mport"


def forge(bundle: Path, **changed: Any) -> None:
    """Write a manifest that fits the files as they are now, with some of its entries changed."""
    data = json.loads((bundle / "manifest.json").read_text())
    contents = {name: (bundle / name).read_bytes() for name in data["files"]}
    data["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in contents.items()
    }
    data.update(changed)
    text = json.dumps({**data, "sha256": BLANK}, indent=2) + "\n"
    (bundle / "manifest.json").write_text(text.replace(BLANK, hashlib.sha256(text.encode()).hexdigest(), 1))


def forged_program(bundle: Path, **entries: str) -> onnx.ModelProto:
    """The program with other external data entries on its first weight."""
    program = onnx.load(bundle / "model.onnx", load_external_data=False)
    for entry in program.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    (bundle / "model.onnx").write_bytes(program.SerializeToString())
    forge(bundle)
    return program


def test_the_forgery_itself_is_not_what_is_refused(bundle: Path) -> None:
    forge(bundle)
    assert mp.load(bundle)(in_onnx.example()).shape == (2, 8, 8)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "native/../../secret", "model.onnx", "", "a\\b"])
def test_external_data_outside_of_the_weights_is_refused(bundle: Path, location: str) -> None:
    forged_program(bundle, location=location)
    with pytest.raises(mp.IntegrityError, match=r"model\.onnx"):
        mp.load(bundle)


@pytest.mark.parametrize(("key", "value"), [("offset", "0"), ("offset", "-8"), ("offset", "x"), ("length", "1" * 30)])
def test_external_data_at_another_place_is_refused(bundle: Path, key: str, value: str) -> None:
    forged_program(bundle, **{key: value})
    with pytest.raises(mp.ModelPortError):
        mp.load(bundle)


def test_an_attribute_that_reads_a_file_is_refused(bundle: Path) -> None:
    program = onnx.load(bundle / "model.onnx", load_external_data=False)
    tensor = onnx.TensorProto(name="stolen", data_type=2, dims=[10], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    program.graph.node.append(onnx.helper.make_node("Constant", [], ["stolen"], value=tensor))
    (bundle / "model.onnx").write_bytes(program.SerializeToString())
    forge(bundle)
    with pytest.raises(mp.IntegrityError, match="/etc/passwd"):
        mp.load(bundle)


def test_a_shape_that_the_weights_do_not_have_is_refused(bundle: Path) -> None:
    program = onnx.load(bundle / "model.onnx", load_external_data=False)
    program.graph.initializer[0].dims[0] = 1 << 40
    (bundle / "model.onnx").write_bytes(program.SerializeToString())
    forge(bundle)
    with pytest.raises(mp.IntegrityError, match=r"fc\.weight"):
        mp.load(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", ".", "a//b", "a\\b", "a\0b"])
def test_a_path_that_leaves_the_bundle_is_refused(bundle: Path, name: str) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    forge(bundle, files={**files, name: {"sha256": BLANK, "size": 1}})
    with pytest.raises(mp.IntegrityError):
        mp.load(bundle)


@pytest.mark.parametrize(
    "changed",
    [
        {"files": {}},
        {"files": []},
        {"files": {"model.onnx": 1}},
        {"signature": {}},
        {"signature": None},
        {"sizes": {"batch": "many"}},
        {"sizes": 3},
        {"unused": {"spare.weight": {"dtype": "FLOAT", "shape": [1 << 60]}}},
        {"unused": {"spare.weight": {"dtype": "NONE", "shape": [3, 3]}}},
        {"unused": {"nothing": {"dtype": "FLOAT", "shape": [3, 3]}}},
        {"unused": {"fc.weight": {"dtype": "FLOAT", "shape": [64, 32]}}},
        {"history": 1},
        {"history": [1]},
        {"version": None},
        {"version": "1"},
        {"reports": [1]},
        {"versions": 7},
    ],
    ids=lambda changed: json.dumps(changed)[:60],
)
def test_a_manifest_that_makes_no_sense_is_refused(bundle: Path, changed: dict[str, Any]) -> None:
    forge(bundle, **changed)
    with pytest.raises(mp.IntegrityError):
        mp.load(bundle)


def test_sizes_that_no_memory_holds_are_not_drawn(bundle: Path) -> None:
    forge(bundle, sizes={"batch": 1 << 60})
    assert mp.load(bundle).example is None


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"null", b"\xff\xfe", b""])
def test_a_manifest_that_is_no_manifest_is_refused(bundle: Path, text: bytes) -> None:
    body = b'{\n  "sha256": "' + BLANK.encode() + b'",\n  "version": ' + text
    digest = hashlib.sha256(body).hexdigest().encode()
    (bundle / "manifest.json").write_bytes(body.replace(BLANK.encode(), digest, 1))
    with pytest.raises(mp.IntegrityError, match=r"manifest\.json"):
        mp.load(bundle)
