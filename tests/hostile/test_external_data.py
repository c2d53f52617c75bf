"""Kind: path traversal through external data (CVE-2022-25882, CVE-2024-27318, CVE-2024-5187)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import modelport as mp
from tests.nets import in_onnx


def write(folder: Path, **entries: str) -> Path:
    """A `.onnx` file whose first weight is external data with some entries."""
    net = in_onnx.net()
    tensor = net.graph.initializer[0]
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(net.SerializeToString())
    return folder / "net.onnx"


def test_external_data_beside_the_file_is_read(tmp_path: Path) -> None:
    loaded = mp.load(write(tmp_path))
    expected = mp.compare(in_onnx.net(), loaded, in_onnx.example(), tolerance=0)
    assert expected.ok, expected


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "", "..", "a\\b", "x\0y"])
def test_a_location_outside_of_the_directory_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"secret" * 4000)
    with pytest.raises(mp.UntrustedFileError, match=r"fc\.weight"):
        mp.load(write(tmp_path / "in", location=location), trust=True)


def test_a_link_that_leaves_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 8192)
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(mp.UntrustedFileError, match="a link to"):
        mp.load(write(tmp_path / "in", location="link.bin"))


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "w.bin").write_bytes(b"\0" * 8192)
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "out")
    with pytest.raises(mp.UntrustedFileError, match="a link to"):
        mp.load(write(tmp_path / "in", location="sub/w.bin"))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-1"},
        {"offset": "100"},
        {"offset": "many"},
        {"offset": "9" * 30},
        {"length": "-8"},
        {"length": "4"},
        {"length": "9" * 30},
        {"location": "nothing.bin"},
    ],
    ids=str,
)
def test_data_that_is_not_in_the_file_is_refused(tmp_path: Path, entries: dict[str, str]) -> None:
    with pytest.raises(mp.IntegrityError):
        mp.load(write(tmp_path, **entries))


def test_a_base_path_in_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights.bin").write_bytes(np.ones(2048, "float32").tobytes())
    loaded = mp.load(write(tmp_path / "in", basepath=str(tmp_path / "out")))
    assert not np.allclose(loaded.parameters()["fc.weight"], 1.0)


def test_identities_in_the_file_are_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path)
    net = onnx.load(path, load_external_data=False)
    net.metadata_props.add(key="modelport.files", value="{not json")
    path.write_bytes(net.SerializeToString())
    assert mp.load(path)(in_onnx.example()).shape == (2, 8, 8)


def test_data_in_an_attribute_is_contained_too(tmp_path: Path) -> None:
    net = in_onnx.net()
    tensor = onnx.TensorProto(name="stolen", data_type=2, dims=[10], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    net.graph.node.append(onnx.helper.make_node("Constant", [], ["stolen"], value=tensor))
    (tmp_path / "net.onnx").write_bytes(net.SerializeToString())
    with pytest.raises(mp.UntrustedFileError, match="stolen"):
        mp.load(tmp_path / "net.onnx")


def test_data_in_a_function_or_a_subgraph_is_contained_too(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="stolen", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../stolen")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "b", [], [onnx.helper.make_tensor_value_info("c", 1, [1])])
    for where in ("function", "subgraph"):
        net = in_onnx.net()
        if where == "function":
            net.functions.append(
                onnx.helper.make_function("local", "F", [], ["c"], [constant], [onnx.helper.make_opsetid("", 21)])
            )
        else:
            net.graph.node.append(onnx.helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch))
        (tmp_path / "net.onnx").write_bytes(net.SerializeToString())
        with pytest.raises(mp.UntrustedFileError, match="stolen"):
            mp.load(tmp_path / "net.onnx")
