"""Kind: fuzzing. Whatever the bytes are, every reader answers with an error of modelport."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import modelport as mp
from modelport.verbs.formats import formats
from tests.nets import in_onnx

SUFFIXES = sorted({suffix for found in formats() for suffix in found.format.suffixes} - {".mport"})
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", "{}")
    return buffer.getvalue()


def outcome(call: Callable[[], object]) -> str:
    """What came of a call; an error that is not modelport's goes on."""
    try:
        call()
    except mp.ModelPortError as error:
        return "refused" if str(error) else "refused without a word"
    return "opened"


HEADS = (
    b"",
    b"\x08\x0a",
    b"\x80\x02",
    b"PK\x03\x04",
    b"\x89HDF\r\n\x1a\n",
    b"\x10\0\0\0\0\0\0\0{",
    b"\x1f\x8b\x08",
    _zip(),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@FEW
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=200))
@example(head=b"", tail=b"")
def test_random_bytes_are_refused(suffix: str, head: bytes, tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(head + tail)
    with pytest.raises(mp.ModelPortError):
        mp.load(path)
    with pytest.raises(mp.ModelPortError):
        mp.load(path, into=in_onnx.net())


@pytest.mark.parametrize("kept", [0, 1, 2, 10, 100, 1000, 5000, 8000])
def test_a_truncated_onnx_file_is_refused(kept: int, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(in_onnx.net().SerializeToString()[:kept])
    with pytest.raises(mp.IntegrityError):
        mp.load(tmp_path / "net.onnx")


@pytest.mark.parametrize("kept", [0, 1, 8, 9, 50, 500, 5000, -1])
def test_a_truncated_safetensors_file_is_refused(kept: int, tmp_path: Path) -> None:
    mp.save(in_onnx.net(), tmp_path / "net.safetensors")
    content = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(content[:kept])
    with pytest.raises(mp.IntegrityError):
        mp.load(tmp_path / "net.safetensors", into=in_onnx.net())


@FEW
@given(where=st.integers(0, 8_000), byte=st.integers(0, 255))
def test_a_changed_byte_of_an_onnx_file_never_escapes_as_another_error(where: int, byte: int, tmp_path: Path) -> None:
    content = bytearray(in_onnx.net().SerializeToString())
    content[where % len(content)] = byte
    (tmp_path / "net.onnx").write_bytes(content)
    assert outcome(lambda: mp.load(tmp_path / "net.onnx")(in_onnx.example())) in ("opened", "refused")


@FEW
@given(where=st.integers(0, 600), byte=st.integers(0, 255))
def test_a_changed_byte_of_a_safetensors_header_never_escapes_as_another_error(
    where: int, byte: int, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    mp.save(in_onnx.net(), path)
    content = bytearray(path.read_bytes())
    content[where % len(content)] = byte
    path.write_bytes(content)
    assert outcome(lambda: mp.load(path, into=in_onnx.net())) in ("opened", "refused")
